"""What is exported in lm-eval's form is read back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imprint.imports import Log, lm_eval
from imprint.logs import export
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.schemas import SCHEMAS
from imprint.tables import dataset_rows

RUN = {"arm": "a1", "seed": 0, "eval": "e1"}
METRICS = {"loss": (False, -1), "accuracy": (True, 1), "words": (False, 0)}
ROWS = [
    {"messages": [{"role": "user", "content": text}], "reference": {"answer": "1"}, "cluster": cluster}
    for text, cluster in (("Why?", "c1"), ("Wo liegt K\xf6ln?\n</script>", "c1"), ("NaN", "c2"))
]


def blank(name: str) -> dict[str, Any]:
    return dict.fromkeys(SCHEMAS[name].names)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Two samples an example; the second example has an error, and the third a value that is missing."""
    paths = {name: tmp_path / f"{name}.parquet" for name in ("generations", "prompts", "scores", "dataset")}
    dataset_rows.write(paths["dataset"], "d1", ROWS, "0" * 64)
    ids = [row["example_id"] for row in dataset_rows.read(paths["dataset"])]
    generations, scores = [], []
    for place, example_id in enumerate(ids):
        for sample in range(2):
            error = "engine" if place == 1 else None
            row = {"example_id": example_id, "sample": sample, "turn": 0, "final": True, "prompt_sha256": "p1"}
            generations.append(
                {**blank("generations"), **RUN, **row, "response": None if error else f"r{sample}", "error": error}
            )
            for metric, value in (("accuracy", float(sample)), ("loss", 2.5), ("words", 1.0)):
                missing = place == 1 or (place == 2 and metric == "loss")
                score = {
                    "metric": metric,
                    "value": None if missing else value,
                    "status": "error" if missing else "scored",
                }
                scores.append({**blank("scores"), **RUN, "example_id": example_id, "sample": sample, **score})
    parquet.write(paths["generations"], "generations", generations)
    parquet.write(paths["scores"], "scores", scores)
    parquet.write(paths["prompts"], "prompts", [{**blank("prompts"), "prompt_sha256": "p1", "prompt": "Q"}])
    return paths


def back(folder: Path) -> Log:
    return lm_eval.read(folder / "samples_e1.jsonl", lm_eval.Settings(cluster="cluster"))


def test_texts_values_and_directions_come_back(files: dict[str, Path], tmp_path: Path) -> None:
    assert export.write(tmp_path / "out", "e1", "generate", files, METRICS) == 3
    export.write_directions(tmp_path / "out", {"e1": METRICS}, ["e1"])
    log = back(tmp_path / "out")
    order = [row["messages"][0]["content"] for row in dataset_rows.read(files["dataset"])]
    assert log.metrics == {"accuracy": 1, "loss": -1}, "the primary metric first, and no descriptive one"
    assert log.samples.select("question", "response", "sample", "cluster").rows() == [
        (order[0], "r0", 0, "c1"), (order[0], "r1", 1, "c1"), (order[1], None, 0, "c1"),
        (order[2], "r0", 0, "c2"), (order[2], "r1", 1, "c2"),
    ]  # fmt: skip
    assert log.values.rows() == [(0.5, 2.5), (0.5, 2.5), (None, None), (0.5, None), (0.5, None)]


def test_options_come_back(files: dict[str, Path], tmp_path: Path) -> None:
    generations = parquet.read(files["generations"], "generations").to_pylist()
    scored = [{**row, "logprob_sum": -1.5 - row["sample"]} for row in generations]
    parquet.write(files["generations"], "generations", scored)
    export.write(tmp_path / "out", "e1", "loglikelihood", files, METRICS)
    options = back(tmp_path / "out").samples["options"].to_list()
    assert options[0] == [{"text": "r0", "logprob": -1.5}, {"text": "r1", "logprob": -2.5}]


def test_every_line_has_the_keys_of_lm_eval(files: dict[str, Path], tmp_path: Path) -> None:
    export.write(tmp_path / "out", "e1", "generate", files, METRICS)
    lines = [json.loads(line) for line in (tmp_path / "out/samples_e1.jsonl").read_text().splitlines()]
    assert all(line.keys() == {*lm_eval.OWN, "accuracy", "loss"} for line in lines)


def test_a_run_that_is_not_there_yet(files: dict[str, Path], tmp_path: Path) -> None:
    files["scores"].unlink()
    with pytest.raises(ImprintError, match="is not there yet; run the experiment first"):
        export.write(tmp_path / "out", "e1", "generate", files, METRICS)
