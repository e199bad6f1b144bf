"""The score job: verdicts on the responses of one run. Needs no model."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.policies import answers
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.plugins import Plug, Strict
from imprint.scores import Option, Verdict
from imprint.scoring import bounded, verification
from imprint.tables import dataset_rows

OF_RESPONSES = {"response_tokens": 0, "answer_tokens": 0, "delimiter_missing": 0}
"""Descriptive metrics of every generated response: its length in tokens, the length of the answer in it, and whether it
lacks the delimiter that the arm's contexts look for (`[Answer]`, say). Without the delimiter, the complete text is
scored."""


class Spec(Strict):
    """What a score job makes: the verdicts of `score`, and of the scores in `describe`, on the responses of one run."""

    arm: str
    seed: int
    eval: str
    score: Plug
    describe: list[Plug]
    contexts: list[Plug]
    limit: int | None


def run(
    *, generations: Path, dataset: Path, spec: Spec, out: Path, scored_texts: Path, judgements: Path | None = None
) -> None:
    """Write the scores of one generations file to `out`, and the parts of its responses that the eval's own score has
    read to `scored_texts`. The statuses beside "scored" and "unparsed" are

    - "error", value null: the engine or a context failed on the example;
    - "unjudged", value null: a judged score, without a file of judgements;
    - "unverified": the check came to no verdict. The value is 0 if higher is better, else null.

    Raises ImprintError if a score stumbles over every one of several responses, for a reference that cannot be judged,
    and if the generations do not hold the dataset's examples."""
    checks = [_Check(plug, dataset) for plug in (spec.score, *spec.describe)]
    scored = _Scored(checks, spec.contexts, None if judgements is None else _answers(judgements))
    examples = {row["example_id"]: row for row in dataset_rows.read(dataset, spec.limit)}
    rows, texts = [], []
    for (example_id, sample), responses in _responses(generations, scored.of_options, set(examples), dataset).items():
        run_key = {"arm": spec.arm, "seed": spec.seed, "eval": spec.eval}
        key = {**run_key, "example_id": example_id, "sample": sample}
        truncated = any(row["finish_reason"] == "length" for row in responses)
        columns_of_verdicts = scored.columns(examples[example_id], responses)
        rows += [{**key, "truncated": truncated, **columns} for columns in columns_of_verdicts]
        if (text := scored.part(responses)) is not None:
            texts.append({**key, "text": text})
    for check in checks:
        check.report(f"{spec.arm}/{spec.eval}")
    parquet.write(out, "scores", rows)
    parquet.write(scored_texts, "scored_texts", texts)


def _responses(
    generations: Path, of_options: bool, expected: set[str], dataset: Path
) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """(example, sample) -> its final rows: one response, or all options of the example. An error in an earlier turn
    ends the dialogue, so its row is taken for the response."""
    responses: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in parquet.read(generations, "generations").to_pylist():
        if row["final"] or row["error"] is not None:
            responses[row["example_id"], 0 if of_options else row["sample"]].append(row)
    if {example for example, _ in responses} != expected:
        raise ImprintError(f"{generations} does not hold the rows of {dataset}; delete it and run again")
    return responses


class _Check:
    """One score of a run with its settings. It counts the checks, and collects those that came to no verdict."""

    def __init__(self, plug: Plug, dataset: Path) -> None:
        self.name, self.dataset = plug.name, dataset
        self.module, self.settings = plug.open("scores")
        self.version = verification.version(plug.name)
        self.checks = 0
        self.failures: list[bounded.Failure] = []

    def columns(self, row: dict[str, Any], response: str | list[Option]) -> Iterator[dict[str, Any]]:
        """Columns of the score's verdicts on one response."""
        self.checks += 1
        try:
            for verdict in verification.verdicts(self.name, self.settings, row, response):
                yield _columns(verdict, self.version)
        except bounded.Failure as failure:
            self.failures.append(failure)
            # If lower is better, a zero would reward a response that cannot be checked.
            for metric, direction in self.module.METRICS.items():
                yield _blank(metric, self.version, "unverified", 0.0 if direction > 0 else None)
        except ImprintError as error:
            raise ImprintError(f"{self.dataset}, example {row['example_id']}: {error}") from error

    def blanks(self, status: str) -> Iterator[dict[str, Any]]:
        """Columns of its metrics, without values, for an example that cannot be scored."""
        return (_blank(metric, self.version, status) for metric in self.module.METRICS)

    def report(self, run: str) -> None:
        """Print how many checks came to no verdict. Raises ImprintError if the score stumbled over every one of several
        responses: then the score or the references are at fault, not the responses."""
        if not self.failures:
            return
        summary = f"score '{self.name}': {len(self.failures)} of {self.checks} checks came to no verdict"
        stumbles, late = (
            sum(isinstance(failure, kind) for failure in self.failures) for kind in (bounded.Stumble, bounded.Timeout)
        )
        if stumbles == self.checks > 1:
            raise ImprintError(f"{summary}, the first because of: {self.failures[0]}; mend the score or the references")
        line = f"imprint: {run}: {summary}, {late} of them ran out of time; the first: {self.failures[0]}"
        print(shown(line), file=sys.stderr, flush=True)


class _Scored:
    """The scores of a run, the eval's own first, on an example's responses: none after an error, options, or a text."""

    def __init__(
        self,
        checks: list[_Check],
        contexts: list[Plug],
        judged: dict[tuple[str, int, str], dict[str, str | None]] | None,
    ) -> None:
        self.checks, self.contexts, self.judged = checks, contexts, judged
        self.of_options = checks[0].module.ASKS == "loglikelihood"

    def columns(self, example: dict[str, Any], responses: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Columns of all verdicts on an example's responses."""
        if any(row["error"] is not None for row in responses):
            return self._without_response()
        return self._options(example, responses) if self.of_options else self._text(example, responses[0])

    def part(self, responses: list[dict[str, Any]]) -> str | None:
        """The part of an example's response that the eval's own score reads; None if it reads all of the response, if
        it reads options, and after an error."""
        if self.of_options or responses[0]["error"] is not None:
            return None
        whole: str = responses[0]["response"]
        text = answers.judged(self.checks[0].module.READS, self.contexts, whole)
        return None if text == whole else text

    def _without_response(self) -> Iterator[dict[str, Any]]:
        """Columns without values, for an example on which the engine or a context failed."""
        for check in self.checks:
            yield from check.blanks("error")
        if not self.of_options:
            yield from (_blank(metric, self.checks[0].version, "error") for metric in OF_RESPONSES)

    def _options(self, example: dict[str, Any], responses: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Columns of the verdicts on the options' log-likelihoods."""
        ordered = sorted(responses, key=lambda row: row["sample"])
        options = [Option(row["response"], row["logprob_sum"], row["response_tokens"]) for row in ordered]
        return self.checks[0].columns({**example, "state": None}, options)

    def _text(self, example: dict[str, Any], response: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Columns of the verdicts on a text, or on the part of it that a score judges."""
        full_text = response["response"]
        _, complete = answers.answer(self.contexts, full_text)
        row = {**example, "state": None if response["state"] is None else json.loads(response["state"])}
        for check in self.checks:
            text = answers.judged(check.module.READS, self.contexts, full_text)
            if not check.module.QUESTIONS:
                yield from check.columns(row, text)
            elif self.judged is None:
                yield from check.blanks("unjudged")
            else:
                judge_answers = self.judged.get((example["example_id"], response["sample"], check.name), {})
                yield from check.columns({**row, "answers": judge_answers}, text)
        version = self.checks[0].version
        for length in ("response_tokens", "answer_tokens"):
            if response[length] is not None:  # a text that was composed of several responses has no length in tokens
                yield _columns(Verdict(length, float(response[length])), version)
        yield _columns(Verdict("delimiter_missing", float(not complete)), version)


def _answers(path: Path) -> dict[tuple[str, int, str], dict[str, str | None]]:
    """(example, sample, score) -> question -> the judge's answer, None if the judge's engine failed."""
    judged: dict[tuple[str, int, str], dict[str, str | None]] = {}
    for row in parquet.read(path, "judgements").to_pylist():
        judged.setdefault((row["example_id"], row["sample"], row["score"]), {})[row["question"]] = row["answer"]
    return judged


def _blank(metric: str, version: str, status: str, value: float | None = None) -> dict[str, Any]:
    return {**_columns(Verdict(metric, value), version), "status": status}


def _columns(verdict: Verdict, version: str) -> dict[str, Any]:
    return {
        "eval_version": version,
        "metric": verdict.metric,
        "item": verdict.item,
        "item_label": verdict.label,
        "value": verdict.value,
        "status": "unparsed" if verdict.unparsed else "error" if verdict.value is None else "scored",
    }
