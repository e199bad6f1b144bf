"""`python -m imprint.export CONFIG`: the results of an experiment as logs in the form of lm-eval.

The log of an arm's run on an eval is `RESULTS/export/ARM/seedN/samples_EVAL.jsonl`. `imprint.compare` and other tools
that read lm-eval's logs take these folders.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from imprint.config import graph, loading
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.runtime.errors import ImprintError, shown


def main(arguments: list[str] | None = None) -> None:
    """Write the logs of all runs of a config."""
    parser = argparse.ArgumentParser(prog="python -m imprint.export")
    parser.add_argument("config", nargs="?", type=Path, default=loading.DEFAULT)
    options = parser.parse_args(arguments)
    try:
        experiment = Experiment(loading.load([options.config]))
        from imprint.logs import export

        metrics = all_jobs(experiment)["summarize"].spec(()).metrics
        folder, evals = Path(experiment.results, "export"), experiment.config.evals
        samples = 0
        for run in experiment.measured:
            asked = run._replace(eval=graph.source(experiment.config, run.eval))
            tables = {"generations": ("generate", asked), "prompts": ("generate", asked), "scores": ("score", run)}
            files = {name: Path(experiment.path(stage, name, **job._asdict())) for name, (stage, job) in tables.items()}
            files["dataset"] = Path(experiment.dataset(evals[run.eval].dataset))
            beside = [ev for arm, seed, ev in experiment.measured if (arm, seed) == (run.arm, run.seed)]
            run_folder = folder / run.arm / f"seed{run.seed}"
            samples += export.write(run_folder, run.eval, evals[run.eval].asks, files, metrics[run.eval])
            export.write_directions(run_folder, metrics, beside)
        print(shown(f"{len(experiment.measured)} logs with {samples:,} samples are in {folder}"))
    except (ImprintError, OSError) as error:
        sys.exit(f"imprint.export: {shown(error)}")


if __name__ == "__main__":
    main()
