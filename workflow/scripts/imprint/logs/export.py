"""Imprint's results as logs in the form of lm-eval: `samples_EVAL.jsonl` for each arm and seed, with `results.json`,
which says of each metric whether higher is better. `imprint.imports.lm_eval` reads them back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import atomic, canonical, write_json
from imprint.tables import content, dataset_rows

Metrics = Mapping[str, Mapping[str, tuple[bool, int]]]
"""eval -> metric -> (is primary, direction)."""


def write(
    folder: Path, name: str, asks: str, files: Mapping[str, Path], metrics: Mapping[str, tuple[bool, int]]
) -> int:
    """Write the log of one run, and return how many samples it has.

    `name`: the eval; `asks`: "generate" or "loglikelihood"; `files`: the run's tables (`generations`, `prompts`,
    `scores`) and its `dataset`; `metrics`: metric -> (is primary, direction). Descriptive metrics are left out. Raises
    ImprintError for tables that are missing or broken.
    """
    for path in files.values():
        if not path.is_file():
            raise ImprintError(f"{path} is not there yet; run the experiment first")
    directed = [metric for metric, (_, direction) in metrics.items() if direction]
    primary_first = sorted(directed, key=lambda metric: not metrics[metric][0])
    lines = list(_lines(files, asks, primary_first))
    with atomic(folder / f"samples_{name}.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return len(lines)


def write_directions(folder: Path, metrics: Metrics, evals: Iterable[str]) -> None:
    """Write `results.json`, which says whether higher is better, beside the logs of a run."""
    higher_is_better = {
        name: {metric: direction > 0 for metric, (_, direction) in metrics[name].items() if direction} for name in evals
    }
    write_json(folder / "results.json", {"higher_is_better": higher_is_better})


def _lines(files: Mapping[str, Path], asks: str, metrics: list[str]) -> Iterator[dict[str, Any]]:
    """A line for each example, in the order of the dataset."""
    scores = pl.DataFrame(pl.from_arrow(parquet.read(files["scores"], "scores")))
    means = scores.group_by("example_id", "metric").agg(
        value=pl.when(pl.col("value").is_not_null().all()).then(pl.col("value").mean())
    )
    values = {(example_id, metric): value for example_id, metric, value in means.rows()}
    prompts = {row["prompt_sha256"]: row["prompt"] for row in parquet.read(files["prompts"], "prompts").to_pylist()}
    responses: dict[str, list[dict[str, Any]]] = {}
    for row in parquet.read(files["generations"], "generations").to_pylist():
        if row["final"] or row["error"] is not None:
            responses.setdefault(row["example_id"], []).append(row)
    rows = [row for row in dataset_rows.read(files["dataset"]) if row["example_id"] in responses]
    for number, row in enumerate(rows):
        finals = sorted(responses[row["example_id"]], key=lambda response: response["sample"])
        row_values = {metric: values.get((row["example_id"], metric)) for metric in metrics}
        yield _line(number, row, asks, finals, prompts, row_values)


def _line(
    number: int,
    row: dict[str, Any],
    asks: str,
    finals: list[dict[str, Any]],
    prompts: Mapping[str, str],
    values: Mapping[str, float | None],
) -> dict[str, Any]:
    doc = {"question": content.question(row), "reference": row["reference"], "cluster": row["cluster"]}
    target = canonical(row["reference"])
    prompt_texts = [prompts.get(final["prompt_sha256"]) or "" for final in finals]
    if asks == "loglikelihood" and all(final["error"] is None for final in finals):
        arguments = {
            f"gen_args_{i}": {"arg_0": prompt_texts[i], "arg_1": final["response"]} for i, final in enumerate(finals)
        }
        resps: list[list[Any]] = [[[str(final["logprob_sum"]), "False"]] for final in finals]
    else:
        arguments = {"gen_args_0": {"arg_0": prompt_texts[0], "arg_1": "" if asks == "loglikelihood" else {}}}
        resps = [[final["response"] for final in finals if final["error"] is None]]
    return {
        "doc_id": number,
        "doc": doc,
        "target": target,
        "arguments": arguments,
        "resps": resps,
        "filtered_resps": [part[0] for part in resps if part],
        "filter": "none",
        "metrics": list(values),
        "doc_hash": _sha256(canonical(doc)),
        "prompt_hash": _sha256(prompt_texts[0]),
        "target_hash": _sha256(target),
        **values,
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
