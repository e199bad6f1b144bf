"""`make run ARM=slow`, `make run QUESTION=helps`: what one arm or one question needs, as targets for snakemake.

They are files of the whole experiment. So a later run of all of it makes none of them again, and nothing else is
touched."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from imprint.config import checks
from imprint.dag import asked, command_line
from imprint.dag.experiment import Experiment
from imprint.runtime.errors import ImprintError, shown
from imprint.statistics.summarize import CurveCheck


def main(arguments: list[str] | None = None) -> None:
    """Print the targets, one a line. `--configfile` and `--config` are snakemake's options; an empty name is none."""
    parser = argparse.ArgumentParser(prog="python -m imprint.targets")
    command_line.add_fields(parser)
    parser.add_argument("--arm", default="")
    parser.add_argument("--question", default="")
    options = parser.parse_args(arguments)
    try:
        experiment = command_line.experiment(options)
        targets = [*of_arm(experiment, options.arm)] if options.arm else []
        targets += of_question(experiment, options.question) if options.question else []
        if not options.arm and not options.question:
            raise ImprintError("nothing to run is named; write `make run ARM=NAME` or `make run QUESTION=NAME`")
        print("\n".join(dict.fromkeys(targets)))
    except (ImprintError, ValueError) as error:
        sys.exit(f"imprint.targets: {shown(error)}")


def of_arm(experiment: Experiment, name: str) -> Iterator[str]:
    """The weights of an arm, and its results on all evals that it takes, at every seed. Raises ImprintError where there
    is no such arm."""
    if name not in experiment.config.arms:
        raise ImprintError(checks.unknown("ARM", name, experiment.config.arms, "arm"))
    yield from _weights(experiment, name)
    yield from (experiment.result(run) for run in experiment.runs if run.arm == name)


def of_question(experiment: Experiment, name: str) -> Iterator[str]:
    """The results that a question compares, and what its check looks at, at every seed. Raises ImprintError where there
    is no such question."""
    if name not in experiment.config.questions:
        raise ImprintError(checks.unknown("QUESTION", name, experiment.config.questions, "question"))
    compared: set[tuple[str, str]] = set()
    for question in asked.questions(experiment.config):
        if question.name != name:
            continue
        compared |= {(question.arm, question.eval), (question.control, question.eval)}
        if isinstance(question.check, CurveCheck):
            yield from _weights(experiment, question.check.arm)
        elif question.check:
            compared |= {(arm, question.check.eval) for arm in (question.check.arm, question.check.control)}
    yield from (experiment.result(run) for run in experiment.runs if (run.arm, run.eval) in compared)


def _weights(experiment: Experiment, name: str) -> list[str]:
    """The manifests of an arm's own fits."""
    return [experiment.path("train", "manifest", arm=arm, seed=seed) for arm, seed in experiment.fits if arm == name]


if __name__ == "__main__":
    main()
