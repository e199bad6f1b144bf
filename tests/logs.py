"""Logs for tests, in lm-eval's own form, with any questions and values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REAL = Path(__file__).parent / "logs"
"""Logs that lm-eval 0.4.13 has written with its model `dummy`."""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def line(question: str, response: str = "", **more: Any) -> dict[str, Any]:
    """A sample of a task with generated answers. `more` holds metrics, and keys that replace those of the sample."""
    doc = {"question": question, "answer": "#### 4"}
    sample = {
        "doc_id": 0,
        "doc": doc,
        "target": "4",
        "arguments": {"gen_args_0": {"arg_0": f"Question: {question}\nAnswer:", "arg_1": {"until": ["\n"]}}},
        "resps": [[response]],
        "filtered_resps": [response],
        "filter": "none",
        "metrics": [key for key in more if key not in ("doc", "target", "filter", "resps", "doc_hash", "arguments")],
        "doc_hash": sha256(json.dumps(more.get("doc", doc), indent=2)),
        "prompt_hash": sha256(question),
        "target_hash": sha256("4"),
    }
    return {**sample, **more}


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    return path


def of_values(path: Path, values: Mapping[str, float | None], metric: str = "acc") -> Path:
    """A log with a value for each question."""
    return write(path, [line(question, "so", **{metric: value}) for question, value in values.items()])
