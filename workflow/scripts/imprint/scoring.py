"""The score job: verdicts on the responses of one run, without a model."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from imprint import plugins, tables
from imprint.errors import ImprintError
from imprint.scores import Option, Verdict

OF_RESPONSES = {"response_tokens": 0, "delimiter_missing": 0}
"""Descriptive metrics of every generated response: its length in tokens, and whether the delimiter that the arm's
context looks for (`[Answer]`, say) was missing, so that the whole text was scored."""


def run(*, generations: Path, dataset: Path, spec: dict[str, Any], out: Path, judgements: Path | None = None) -> None:
    """Write the scores of one generations file: `spec["score"]`, and those of `describe`. An example whose response
    errored gives one row a metric, with a null value and status "error"; so do, with status "unjudged", the metrics of
    a judged score where there are no judgements."""
    scores = [
        (ref["name"], plugins.load("scores", ref["name"]), plugins.settings("scores", ref["name"], ref["settings"]))
        for ref in (spec["score"], *spec.get("describe", ()))
    ]
    _, module, settings = scores[0]
    version = f"{spec['score']['name']} {module.VERSION}"
    if hasattr(module, "conditions"):
        version += f", {module.conditions()}"
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
    rows = []

    def scored(each: Any, example: dict[str, Any], *given: Any) -> list[Verdict]:
        try:
            verdicts: list[Verdict] = each.score(example, *given)
            return verdicts
        except ImprintError as error:
            raise ImprintError(f"{dataset}, example {example['example_id']}: {error}") from error

    for (example_id, sample), found in responses.items():
        fixed = {key: spec[key] for key in ("arm", "seed", "eval")} | {
            "eval_version": version,
            "example_id": example_id,
            "sample": sample,
            "truncated": any(row["finish_reason"] == "length" for row in found),
        }
        if any(row["error"] is not None for row in found):
            names = [
                *(metric for _, each, _ in scores for metric in each.METRICS),
                *(OF_RESPONSES if module.ASKS == "generate" else ()),
            ]
            rows += [{**fixed, **_blank(metric, "error")} for metric in names]
            continue
        verdicts: list[Verdict]
        if module.ASKS == "loglikelihood":
            found.sort(key=lambda row: row["sample"])
            options = [Option(row["response"], row["logprob_sum"], row["response_tokens"]) for row in found]
            verdicts = scored(module, examples[example_id], options, settings)
        else:
            whole = found[0]["response"]
            text, complete = context.answer(whole, context_settings) if hasattr(context, "answer") else (whole, True)
            verdicts = []
            for name, each, given in scores:
                asked = (examples[example_id], whole if _reads_all(each) else text, given)
                if not hasattr(each, "QUESTIONS"):
                    verdicts += scored(each, *asked)
                elif judged is None:
                    rows += [{**fixed, **_blank(metric, "unjudged")} for metric in each.METRICS]
                else:
                    verdicts += scored(each, *asked, judged.get((example_id, sample, name), {}))
            verdicts += [
                Verdict("response_tokens", float(found[0]["response_tokens"])),
                Verdict("delimiter_missing", float(not complete)),
            ]
        rows += [{**fixed, **_columns(verdict)} for verdict in verdicts]
    tables.write(out, "scores", rows)


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
