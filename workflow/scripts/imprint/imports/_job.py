"""The import job: the responses of a run that another harness has logged, as the tables of any run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.runtime import parquet
from imprint.runtime.plugins import Plug, Strict


class Spec(Strict):
    """What an import job makes: the tables of one run, with at most `samples` responses an example."""

    arm: str
    seed: int
    eval: str
    reader: Plug
    samples: int
    limit: int | None


def run(*, spec: Spec, log: Path, dataset: Path, out: Path, prompts: Path) -> None:
    """Write the generations and prompts of a run. A row of the dataset without a response in the log gets an error. The
    prompt is the question alone, without what another harness has put around the question. Raises ImprintError for a
    log that cannot be read, or that has fewer than half of the questions."""
    from imprint.imports import _matching

    module, settings = spec.reader.open("imports")
    content = module.read(log, settings)
    samples, rows = content.samples.to_dicts(), []
    questions: dict[str, str] = {}
    for row, example in _matching.matched(content, log, dataset, spec.limit):
        for number in range(spec.samples):
            place = None if example is None else example.places.get(number)
            sample = {"error": _matching.ABSENT} if place is None else samples[place]
            question = sample.get("question")
            sha256 = None if question is None else hashlib.sha256(question.encode()).hexdigest()
            if question is not None and sha256 is not None:
                questions[sha256] = question
            identity = {
                **{"arm": spec.arm, "seed": spec.seed, "eval": spec.eval, "example_id": row["example_id"]},
                **{"turn": 0, "final": True, "prompt_sha256": sha256, "engine": f"import {spec.reader.name}"},
            }
            rows += [{**identity, **columns} for columns in _responses(sample, number)]
    parquet.write(prompts, "prompts", [{"prompt_sha256": key, "prompt": text} for key, text in questions.items()])
    parquet.write(out, "generations", rows)


def _responses(sample: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """The columns of a response, or of each option."""
    error = sample["error"]
    if error is None and sample["options"] is not None:
        for place, option in enumerate(sample["options"]):
            yield {"sample": place, "response": option["text"], "logprob_sum": option["logprob"]}
        return
    if error is None and sample["response"] is None:
        error = "the log has no response"
    response = None if error is not None else sample["response"]
    yield {
        "sample": number,
        "response": response,
        "error": error,
        "finish_reason": "length" if response is not None and sample["truncated"] else None,
    }
