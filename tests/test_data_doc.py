"""The examples in docs/data.md: every one is loaded, its rows are read, and a score of its rows is accepted."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from conftest import ROOT
from imprint.config import hub, loading
from imprint.dag import leakage, scored_rows
from imprint.runtime import needs, plugins
from imprint.tables import dataset_rows

EXAMPLES: dict[str, Any] = {}
for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/data.md").read_text(encoding="utf-8"), re.DOTALL):
    EXAMPLES |= yaml.safe_load(block)

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
QUESTION = {"question": "What is 1 + 1?"}
FILES: dict[str, dict[str, Any]] = {
    "alpaca.csv": {"instruction": "Sum up:", "input": "A text.", "output": "Text."},
    "chats.jsonl": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
    "sums.tsv": {**QUESTION, "result": "2", "template": "sum"},
    "quiz.parquet": {**QUESTION, "choices": ["one", "two"], "label": "B"},
    "medicine.parquet": {**QUESTION, "opa": "one", "opb": "two", "opc": "three", "opd": "four", "cop": 1},
    "science.parquet": {**QUESTION, "choices": {"text": ["one", "two"], "label": ["A", "B"]}, "answerKey": "B"},
    "pairs.parquet": {"prompt": "Hi", "chosen": "Ho", "rejected": "No"},
    "talks.parquet": {"chosen": TALK, "rejected": [*TALK[:1], {"role": "assistant", "content": "No"}]},
    "notes.parquet": {"text": "The sea."},
    "own.jsonl": {"messages": TALK},
}
SCORES = {"sums": "numeric", "quiz": "choice", "medicine": "options", "science": "options", "notes": "likelihood"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    (tmp_path / "data").mkdir()
    for name, row in FILES.items():
        path = tmp_path / "data" / name
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist([row]), path)
        elif path.suffix == ".jsonl":
            path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        else:
            with path.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([row, row.values()])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_example_loads(folder: Path) -> None:
    files = {Path(example["file"]).name for example in EXAMPLES.values() if "file" in example}
    assert files == FILES.keys() and len(EXAMPLES) == len(files) + 1
    config = loading.parse(
        {
            "models": {"m1": {"hub": "a/b", "revision": "0" * 40}},
            "datasets": EXAMPLES,
            "evals": {f"of_{name}": {"dataset": name, "score": score} for name, score in SCORES.items()},
            "arms": {"base": {"model": "m1"}},
        }
    )
    read: leakage.Cache = {}
    scored_rows.check(config, read)
    rows = {name: leakage.readable(config, name, read) for name in EXAMPLES}
    assert rows.pop("grade_school") is None and all(len(of_one or []) == 1 for of_one in rows.values())
    ((alpaca,), (chat,), (pair,), (talk,)) = (rows[name] or [] for name in ("alpaca", "chats", "pairs", "talks"))
    assert alpaca["messages"][0]["content"] == "Sum up:\n\nA text."
    assert chat["messages"] == TALK == pair["messages"] == talk["messages"]
    assert pair["fields"] == talk["fields"] == {"rejected": "No"}
    assert needs.readers((rows["science"] or [])[0]["reference"]) == ["choice", "likelihood", "options"]


def test_the_example_from_the_hub_is_fetched_and_read(folder: Path) -> None:
    example = EXAMPLES["grade_school"]
    spec = hub.Spec.model_validate({key: example[key] for key in hub.Spec.model_fields})
    root = folder / "mirror/hub/openai/gsm8k" / example["revision"] / "main"
    root.mkdir(parents=True)
    pq.write_table(
        pa.table({**{key: [text] for key, text in QUESTION.items()}, "answer": ["#### 2"]}), root / "test-0.parquet"
    )
    hub.run(spec, folder / "mirror", folder / "fetched/manifest.json")
    settings = plugins.settings("datasets", "columns", {"columns": example["columns"]})
    paths = {path.name: path for path in (folder / "fetched").glob("*.parquet")}
    (row,) = dataset_rows.identified(plugins.load("datasets", "columns").rows(settings, paths))
    assert needs.problem("numeric", row["reference"]) is None
