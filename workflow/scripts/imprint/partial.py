"""`make report`: the report on what is finished so far, while the run goes on or after it was stopped.

It is written to partial.html in the results folder and says of itself that it is partial. It has figures and intervals,
and no verdicts. It takes no look at a question, holds no lock, and changes nothing that the run reads."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from imprint.dag import command_line, to_run
from imprint.dag.finished import Finished
from imprint.dag.jobs import all_jobs
from imprint.runtime import frame, stages
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.schemas import SCHEMAS


def main(arguments: list[str] | None = None) -> None:
    """Write the page, and print where it is. `--configfile` and `--config` are snakemake's options."""
    parser = argparse.ArgumentParser(prog="python -m imprint.partial", description="A report on what is finished.")
    command_line.add_fields(parser)
    options = parser.parse_args(arguments)
    frame.prepare(threads=1)
    try:
        experiment = command_line.experiment(options)
        missing = set(to_run.planned(command_line.arguments(options)))
        report = experiment.path("report", "report")
        if not missing:
            print(shown(f"All of the experiment is finished; its report is {report}."))
            return
        with tempfile.TemporaryDirectory() as apart:
            finished = Finished(experiment, missing, Path(apart))
            out = Path(report).with_name(stages.PARTIAL)
            write(finished, out)
        print(shown(f"{finished.words().capitalize()}. The report on them, without verdicts: {out}"))
    except (ImprintError, OSError, ValueError) as error:
        sys.exit(f"imprint.partial: {shown(error)}")


def write(finished: Finished, out: Path) -> None:
    """Make the tables and charts of what is finished, and write the report. Raises ImprintError where nothing is
    measured yet."""
    from imprint.charts import _job as plotting
    from imprint.report import costs
    from imprint.report import write as reporting
    from imprint.statistics import summarize
    from imprint.tables import contamination

    if not finished.measured:
        raise ImprintError(
            f"{finished.words()}, and no run has a score yet, so there is nothing to report; `make watch` shows how "
            "far the run is"
        )
    jobs = all_jobs(finished)
    leakage, summary, collect, plot, report = (
        jobs[name] for name in ("check_leakage", "summarize", "collect", "plot", "report")
    )

    def apart(stage: str, **job: str) -> dict[str, Path]:
        paths = {name: Path(finished.path(stage, name, **job)) for name in stages.STAGES[stage].outputs}
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        return paths

    spec = leakage.spec(())
    there = [pair for pair in spec.pairs if Path(pair.train).is_file() and Path(pair.held_out).is_file()]
    contamination.run(spec=spec.model_copy(update={"pairs": there}), **apart("check_leakage"))
    reads = summary.inputs(())
    summarize.run(
        spec=summary.spec(()),
        scores=list(map(Path, reads["scores"])),
        datasets=list(map(Path, reads["datasets"])),
        manifests=list(map(Path, reads["manifests"])),
        out=apart("summarize"),
    )
    reads = collect.inputs(())
    costs.run(
        spec=collect.spec(()),
        manifests=list(map(Path, reads["manifests"])),
        synthesis=list(map(Path, reads["synthesis"])),
        out=apart("collect"),
    )
    charts = {}
    for job in plot.jobs():
        drawn = apart("plot", chart=job.chart)
        plotting.run(plot.spec(job), Path(plot.inputs(job)["caption"]), drawn["svg"], drawn["caption"])
        charts[drawn["svg"]] = drawn["caption"]
    reads = report.inputs(())
    reporting.run(
        spec=report.spec(()).model_copy(update={"partial": finished.words(), "questions": finished.questions}),
        template=Path(reads["template"]),
        tables={name: list(map(Path, reads[name])) for name in reads if name in SCHEMAS},
        charts=charts,
        out=out,
    )


if __name__ == "__main__":
    main()
