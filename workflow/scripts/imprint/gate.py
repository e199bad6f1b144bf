"""`make gate CONFIG=... POLICY=...`: may this be merged? The gate holds the answers of a finished experiment, or of two
logs, against a policy.

    $ python -m imprint.gate --policy policy.yaml --config config/config.yaml
    $ python -m imprint.gate --policy policy.yaml A B

The exit status is 0 if the answers pass, 1 if they fail, 2 if they are undecided, and 3 if there is no answer: the
command, the policy or a log is wrong, or the experiment's answers are missing or older than its config, code or scores.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from imprint.config import checks, loading, strict_yaml
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.logs import command
from imprint.report import gating
from imprint.runtime import origin, parquet, unknown_keys
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.identity import file_sha256

STATUS = {"pass": 0, "fail": 1, "undecided": 2}
NO_ANSWER = 3


class _Parser(argparse.ArgumentParser):
    """A wrong command is no answer; argparse's own status for it, 2, stands for undecided."""

    def error(self, message: str) -> NoReturn:
        self.exit(NO_ANSWER, f"{self.format_usage()}{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> None:
    """Print the summary, append it to a file, and end with the status."""
    parser = _Parser(prog="python -m imprint.gate", description="Do the answers satisfy a policy?")
    parser.add_argument("a", metavar="A", nargs="?", help="a log, as in imprint.compare; without logs, an experiment")
    parser.add_argument("b", metavar="B", nargs="?", help="the log that must be better, or keep what A has")
    parser.add_argument("--policy", default="", help="the YAML file of the policy")
    parser.add_argument("--config", type=Path, default=loading.DEFAULT, help="the config of the finished experiment")
    parser.add_argument("--summary", type=Path, help="a file to append the summary to, such as $GITHUB_STEP_SUMMARY")
    command.add_fields(parser)
    options = parser.parse_args(arguments)
    if (options.a is None) != (options.b is None):
        parser.error("write two logs, or none")
    if not options.policy:
        parser.error("no policy is named; write `--policy FILE`, or `make gate POLICY=FILE`")
    try:
        policy = _policy(Path(options.policy))
        answers = _of_config(policy, options.config) if options.a is None else _of_logs(policy, options)
        findings = gating.findings(policy, answers)
        summary = gating.markdown(findings)
        if options.summary:
            with options.summary.open("a", encoding="utf-8") as file:
                file.write(summary)
        print(summary, end="")
    except (ImprintError, OSError) as error:
        print(f"imprint.gate: {shown(error)}", file=sys.stderr)
        sys.exit(NO_ANSWER)
    except Exception:  # Python's own exit status, 1, would say that the answers fail
        print(shown(traceback.format_exc()), file=sys.stderr)
        sys.exit(NO_ANSWER)
    sys.exit(STATUS[gating.overall(findings)])


def _policy(path: Path) -> gating.Policy:
    try:
        return unknown_keys.validated(gating.Policy, strict_yaml.load(path))
    except ValidationError as error:
        problems = [checks.message(item) for item in error.errors(include_url=False)]
        raise ImprintError("\n".join(f"{path}: {problem}" for problem in problems)) from None


def _of_config(policy: gating.Policy, path: Path) -> list[dict[str, Any]]:
    """The answers of a finished experiment. Raises ImprintError where they are missing, or are not those of the present
    config, code and scores."""
    if policy.margin is not None:
        raise ImprintError(
            "margin: an experiment's questions have margins of their own; leave `margin` out of the policy"
        )
    experiment = Experiment(loading.load([path]))
    answers = Path(experiment.path("summarize", "answers"))
    remedy = f"run `snakemake --cores all --configfile {path}` first"
    if not answers.is_file():
        raise ImprintError(f"{answers}: there are no answers yet; {remedy}")
    record, summarize = origin.read(answers, experiment.results), all_jobs(experiment)["summarize"]
    if record is None or record["params"] != {"code": summarize.code(()), "spec": summarize.params(())}:
        raise ImprintError(f"{answers}: was not made by this config and code; {remedy}")
    for name, sha256 in record["inputs"].items():
        if not Path(name).is_file() or file_sha256(Path(name)) != sha256:
            raise ImprintError(f"{answers}: {name} has changed since they were made; {remedy}")
    rows: list[dict[str, Any]] = parquet.read(answers, "answers").to_pylist()
    return rows


def _of_logs(policy: gating.Policy, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The answers of two logs to the policy's questions. The name of a question is that of its eval."""
    if policy.kept and policy.margin is None:
        raise ImprintError("margin: missing; write by how much the evals in `kept` may be worse")
    margins = {name: policy.margin for name in policy.kept if policy.margin is not None}
    _, _, verdict = command.compared(options, [*policy.better, *policy.kept], margins)
    answers: list[dict[str, Any]] = verdict.tables["answers"].to_dicts()
    return answers


if __name__ == "__main__":
    main()
