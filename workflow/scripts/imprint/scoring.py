"""The score job: verdicts on the responses of one run, without a model."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from imprint import bounded, plugins, tables, verification
from imprint.errors import ImprintError, shown
from imprint.scores import Option, Verdict

OF_RESPONSES = {"response_tokens": 0, "delimiter_missing": 0}
"""Descriptive metrics of every generated response: its length in tokens, and whether the delimiter that the arm's
context looks for (`[Answer]`, say) was missing, so that the whole text was scored."""


def run(*, generations: Path, dataset: Path, spec: dict[str, Any], out: Path, judgements: Path | None = None) -> None:
    """Write the scores of one generations file: `spec["score"]`, and those of `describe`. An example whose response
    errored gives one row a metric, with a null value and status "error"; so do, with status "unjudged", the metrics of
    a judged score where there are no judgements. A check without a verdict gives its metrics status "unverified", with
    0 where more is better, else null. Raises ImprintError where a score stumbles over all of several responses."""
    scores = [
        (ref["name"], plugins.load("scores", ref["name"]), plugins.settings("scores", ref["name"], ref["settings"]))
        for ref in (spec["score"], *spec.get("describe", ()))
    ]
    module = scores[0][1]
    version = verification.version(spec["score"]["name"])
    context = plugins.load("contexts", spec["context"]["name"])
    context_settings = plugins.settings("contexts", spec["context"]["name"], spec["context"]["settings"])
    examples = {row["example_id"]: row for row in tables.read_dataset(dataset, spec["limit"])}
    responses: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in tables.read(generations, "generations").to_pylist():
        # An error in an earlier turn ends the example: that row stands for its response.
        if row["final"] or row["error"] is not None:
            responses[row["example_id"], 0 if module.ASKS == "loglikelihood" else row["sample"]].append(row)
    if {example for example, _ in responses} != set(examples):
        raise ImprintError(f"{generations} does not hold the rows of {dataset}; delete it and run again")
    judged = None if judgements is None else _answers(judgements)
    checks = _Checks(dataset)
    rows = []
    for (example_id, sample), found in responses.items():
        fixed = {key: spec[key] for key in ("arm", "seed", "eval")} | {
            "eval_version": version,
            "example_id": example_id,
            "sample": sample,
            "truncated": any(row["finish_reason"] == "length" for row in found),
        }
        columns: list[dict[str, Any]] = []
        if any(row["error"] is not None for row in found):
            names = [
                *(metric for _, each, _ in scores for metric in each.METRICS),
                *(OF_RESPONSES if module.ASKS == "generate" else ()),
            ]
            columns = [_blank(metric, "error") for metric in names]
        elif module.ASKS == "loglikelihood":
            found.sort(key=lambda row: row["sample"])
            options = [Option(row["response"], row["logprob_sum"], row["response_tokens"]) for row in found]
            columns = checks.columns(*scores[0], examples[example_id], options)
        else:
            whole = found[0]["response"]
            text, complete = context.answer(whole, context_settings) if hasattr(context, "answer") else (whole, True)
            for name, each, given in scores:
                asked = (name, each, given, examples[example_id], whole if _reads_all(each) else text)
                if not hasattr(each, "QUESTIONS"):
                    columns += checks.columns(*asked)
                elif judged is None:
                    columns += [_blank(metric, "unjudged") for metric in each.METRICS]
                else:
                    columns += checks.columns(*asked, judged.get((example_id, sample, name), {}))
            columns += [
                _columns(Verdict("response_tokens", float(found[0]["response_tokens"]))),
                _columns(Verdict("delimiter_missing", float(not complete))),
            ]
        rows += [{**fixed, **each} for each in columns]
    checks.report(f"{spec['arm']}/{spec['eval']}")
    tables.write(out, "scores", rows)


class _Checks:
    """The checks of a run's responses, and those that came to no verdict."""

    def __init__(self, dataset: Path) -> None:
        self.dataset = dataset
        self.asked: Counter[str] = Counter()
        self.failures: defaultdict[str, list[bounded.Failure]] = defaultdict(list)

    def columns(
        self, name: str, module: Any, settings: Any, example: dict[str, Any], *given: Any
    ) -> list[dict[str, Any]]:
        """The columns that one score gives of one response (and of a judge's answers to it)."""
        self.asked[name] += 1
        try:
            return [_columns(verdict) for verdict in verification.verdicts(name, settings, example, *given)]
        except bounded.Failure as failure:
            self.failures[name].append(failure)
            # Where less is better, a zero would be a prize for a response that cannot be checked.
            return [
                {**_blank(metric, "unverified"), "value": 0.0 if direction > 0 else None}
                for metric, direction in module.METRICS.items()
            ]
        except ImprintError as error:
            raise ImprintError(f"{self.dataset}, example {example['example_id']}: {error}") from error

    def report(self, run: str) -> None:
        """Say what came to no verdict. Raises where a score stumbled over all of several responses: then not they are
        at fault."""
        for name, failures in self.failures.items():
            told = f"score '{name}': {len(failures)} of {self.asked[name]} checks came to no verdict"
            if len(failures) == self.asked[name] > 1 and all(isinstance(one, bounded.Stumble) for one in failures):
                raise ImprintError(f"{told}, the first because of: {failures[0]}; mend the score or the references")
            late = sum(isinstance(one, bounded.Timeout) for one in failures)
            line = f"imprint: {run}: {told}, {late} of them ran out of time; the first: {failures[0]}"
            print(shown(line), file=sys.stderr, flush=True)


def _answers(path: Path) -> dict[tuple[str, int, str], dict[str, str | None]]:
    """(example, sample, score) -> question -> the judge's answer; None where the judge's engine failed."""
    found: dict[tuple[str, int, str], dict[str, str | None]] = {}
    for row in tables.read(path, "judgements").to_pylist():
        found.setdefault((row["example_id"], row["sample"], row["score"]), {})[row["question"]] = row["answer"]
    return found


def _reads_all(module: Any) -> bool:
    """Whether a score judges the whole response, and not just what the arm's context takes for the answer."""
    return getattr(module, "READS", "answer") == "response"


def _blank(metric: str, status: str) -> dict[str, Any]:
    return {"metric": metric, "item": None, "item_label": None, "value": None, "status": status}


def _columns(verdict: Verdict) -> dict[str, Any]:
    status = "unparsed" if verdict.unparsed else "error" if verdict.value is None else "scored"
    return {
        "metric": verdict.metric,
        "item": verdict.item,
        "item_label": verdict.label,
        "value": verdict.value,
        "status": status,
    }
