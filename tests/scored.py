"""Made-up runs for the score job: its spec, rows of generations, and the scores that it makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imprint.runtime import parquet
from imprint.runtime.plugins import Plug
from imprint.scoring import score_run
from imprint.tables import dataset_rows


def spec(score: str = "numeric", **more: Any) -> score_run.Spec:
    """Of a score job: one score, no settings, the context `plain`."""
    whole = {
        "arm": "a1", "seed": 0, "eval": "e1", "limit": None,
        "score": Plug(name=score), "describe": [], "contexts": [Plug(name="plain")],
    }  # fmt: skip
    return score_run.Spec(**{**whole, **more})


def generation(example: str, response: str | None, **more: Any) -> dict[str, Any]:
    """A row of table `generations`: the one response to an example."""
    row = {
        "arm": "a1", "seed": 0, "eval": "e1", "example_id": example, "sample": 0, "turn": 0, "final": True,
        "prompt_sha256": "0", "response": response, "state": None, "finish_reason": "stop", "prompt_tokens": 3,
        "response_tokens": 5, "answer_tokens": 4, "logprob_sum": -1.0, "seconds": 0.1, "engine": "test",
        "error": None,
    }  # fmt: skip
    return {**row, **more}


def example(number: int, reference: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A dataset row, number N of which has the id "N-0"."""
    messages = [{"role": "user", "content": "?"}]
    return {"example_id": f"{number}-0", "messages": messages, "reference": reference, **more}


def run(folder: Path, of: score_run.Spec, judgements: Path | None = None) -> list[dict[str, Any]]:
    """The rows that the score job writes for the dataset `d.parquet` and the generations `g.parquet` of a folder. Its
    files are `s.parquet` and `t.parquet` there."""
    score_run.run(
        generations=folder / "g.parquet",
        dataset=folder / "d.parquet",
        spec=of,
        out=folder / "s.parquet",
        scored_texts=folder / "t.parquet",
        judgements=judgements,
    )
    rows: list[dict[str, Any]] = parquet.read(folder / "s.parquet", "scores").to_pylist()
    return rows


def scores(
    folder: Path,
    rows: list[dict[str, Any]],
    generations: list[dict[str, Any]],
    of: score_run.Spec,
    judgements: Path | None = None,
) -> list[dict[str, Any]]:
    """The rows that the score job writes for these rows of a dataset and of generations."""
    dataset_rows.write(folder / "d.parquet", "d", rows, "0")
    parquet.write(folder / "g.parquet", "generations", generations)
    return run(folder, of, judgements)
