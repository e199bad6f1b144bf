"""`make plan`: which jobs a run would do and why, what memory its fits and engines need on a GPU, what the questions of
a config can find out, and what it would take to find out more.

The variances come from the answers of a pilot: `--pilot RESULTS`, else the experiment's own results. Without either,
they are stated by options, or assumed. Costs come from the pilot's table `costs`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.dag import command_line, room, to_run
from imprint.dag.experiment import Experiment
from imprint.dag.plan import Planned, Stated, planned, variances, within_reach
from imprint.dag.spending import Spending, costs
from imprint.report.numbers import duration
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError, shown
from imprint.statistics import planning


def main(arguments: list[str] | None = None) -> None:
    """Print the jobs of a run and the plan of each question. `--configfile` and `--config` are snakemake's options."""
    parser = argparse.ArgumentParser(
        prog="python -m imprint.plan", description="What a run would do, and what the questions can find out."
    )
    command_line.add_fields(parser)
    parser.add_argument("--pilot", help="results folder of a finished experiment with the same evals")
    parser.add_argument(
        "--difference", type=float, help="the difference that a gain should show; without it, the pilot's"
    )
    parser.add_argument("--sd", type=float, help="without a pilot: the standard deviation of an example's difference")
    parser.add_argument(
        "--seed-sd",
        type=float,
        default=0.03,
        help="without a pilot: the standard deviation of an arm's mean between training runs",
    )
    options = parser.parse_args(arguments)
    try:
        experiment = command_line.experiment(options)
        folder = Path(options.pilot or experiment.results)
        answers = folder / "tables/answers.parquet"
        if options.pilot and not answers.is_file():
            raise ImprintError(f"--pilot: {answers} is not there; write the results folder of a finished experiment")
        table = folder / "tables/costs.parquet"
        spent = parquet.read(table, "costs").to_pylist() if table.is_file() else []
        jobs = to_run.jobs(experiment, command_line.arguments(options), spent)
        print(shown("\n".join([*to_run.lines(jobs, experiment.results), "", *room.lines(experiment), ""])))
        plans = planned(experiment, answers if answers.is_file() else None, {})
        lines = text(experiment, plans, spent, Stated(options.sd, options.seed_sd), options.difference)
        print(shown("\n".join(lines)) if plans else "The config asks no question (`questions:`).")
    except (ImprintError, OSError, ValueError) as error:
        sys.exit(f"imprint.plan: {shown(error)}")


def text(
    experiment: Experiment,
    plans: list[Planned],
    spent: list[dict[str, Any]],
    stated: Stated,
    difference: float | None,
) -> Iterator[str]:
    """Three to five lines a question. `spent`: rows of a pilot's table `costs`."""
    z = planning.critical(len(plans))
    for plan in plans:
        question = plan.question
        yield f"{question.name}: {question.asks}"
        yield f"  {question.arm} against {question.control} on {question.eval} ({question.metric}), {question.kind}"
        yield f"  {within_reach(plan, z, stated)}"
        target = question.margin or difference or (abs(plan.pilot["difference"]) if plan.pilot else None)
        if plan.clusters is None or not target:
            continue
        components, _ = variances(plan, stated)
        examples, seeds = planning.needs(components, z, plan.clusters, plan.seeds, target, question.kind)
        if planning.reach(components, z, plan.clusters, plan.seeds, question.kind) < target:
            yield f"  That is enough for {target:.3g}."
        else:
            yield f"  For {target:.3g} it takes {takes(examples, seeds)}."
        if price := costs(experiment, plan, spent):
            ways = [("as planned", plan.clusters, plan.seeds)]
            ways += [(f"with {examples:,} examples", examples, plan.seeds)] if examples else []
            ways += [(f"with {seeds} seeds", plan.clusters, seeds)] if seeds else []
            prices = [f"{amount(price.of(clusters, runs))} {way}" for way, clusters, runs in ways]
            yield f"  By the pilot's costs: {'; '.join(prices)}."


def amount(spent: Spending) -> str:
    """Job time, GPU time where there is any, and tokens, in words."""
    parts = [duration(spent.seconds)]
    parts += [f"{spent.gpu_seconds / 3600:.2f} GPU hours"] if spent.gpu_seconds else []
    return ", ".join([*parts, f"{spent.tokens:,.0f} tokens"])


def takes(examples: int | None, seeds: int | None) -> str:
    """The examples or the seeds that a target takes, in words."""
    ways = [f"{count:,} {what}" for count, what in ((examples, "examples"), (seeds, "seeds")) if count]
    return f"{' or '.join(ways)}, the other staying as it is" if ways else "more of both, examples and seeds"


if __name__ == "__main__":
    main()
