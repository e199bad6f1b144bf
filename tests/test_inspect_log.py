"""Logs of Inspect. The tests that need its package are skipped without it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from imprint.imports import COLUMNS, inspect_log
from imprint.runtime.errors import ImprintError

INSTALLED = importlib.util.find_spec("inspect_ai") is not None
needs_inspect = pytest.mark.skipif(not INSTALLED, reason="inspect_ai is not installed")


def written(path: Path) -> Path:
    """A log that Inspect writes: two epochs, a failed sample, grades, and a score that is no number."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalError, EvalLog, EvalSample, EvalSpec, write_eval_log
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    def sample(number: int, epoch: int, text: str, grade: Any, **more: Any) -> EvalSample:
        scores = {"match": Score(value=grade), "parts": Score(value={"a": 0.25, "b": True})}
        output = ModelOutput.from_content("mock", text, stop_reason="max_tokens" if number == 2 else "stop")
        asked: Any = f"What is {number}?"
        if number == 2:
            asked = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content=asked)]
        metadata = {"topic": f"t{number}"}
        row = {
            "id": number,
            "epoch": epoch,
            "input": asked,
            "target": str(number),
            "output": output,
            "metadata": metadata,
        }
        return EvalSample(**{**row, "scores": scores, **more})

    samples = [
        sample(1, 1, "one", "C"),
        sample(1, 2, "uno", "I"),
        sample(2, 1, "two", "P"),
        sample(2, 2, "due", "what"),
        sample(
            3,
            1,
            "",
            "N",
            scores=None,
            output=ModelOutput(),
            error=EvalError(message="no", traceback="", traceback_ansi=""),
        ),
    ]
    spec = EvalSpec(
        created="2026-01-01T00:00:00+00:00", task="tiny", dataset=EvalDataset(), model="mock/model", config=EvalConfig()
    )
    write_eval_log(EvalLog(eval=spec, status="success", samples=samples), str(path))
    return path


@needs_inspect
@pytest.mark.parametrize("ending", ["eval", "json"])
def test_samples_epochs_grades_and_errors(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"log.{ending}")
    assert inspect_log.suits(path)
    log = inspect_log.read(path, inspect_log.Settings(cluster="topic"))
    assert log.eval == "tiny" and log.samples.columns == list(COLUMNS)
    assert log.metrics == {"match": 1, "parts/a": 1, "parts/b": 1}
    # Inspect sorts the samples by epoch.
    assert log.values["match"].to_list() == [1.0, 0.5, None, 0.0, None]
    assert log.values.select("parts/a", "parts/b").row(0) == (0.25, 1.0)
    assert log.samples.select("question", "response", "sample", "cluster", "error", "truncated").rows() == [
        ("What is 1?", "one", 0, "t1", None, False), ("What is 2?", "two", 0, "t2", None, True),
        ("What is 3?", None, 0, "t3", "no", False),
        ("What is 1?", "uno", 1, "t1", None, False), ("What is 2?", "due", 1, "t2", None, True),
    ]  # fmt: skip


@needs_inspect
def test_what_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "a.eval").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(ImprintError, match=r"a\.eval: Inspect cannot read it"):
        inspect_log.read(tmp_path / "a.eval", inspect_log.Settings())
    with pytest.raises(ImprintError, match="its metadata have no 'tropic'"):
        inspect_log.read(written(tmp_path / "b.eval"), inspect_log.Settings(cluster="tropic"))


@pytest.mark.skipif(INSTALLED, reason="inspect_ai is installed")
def test_without_the_package_the_message_names_the_extra(tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match=r"pip install '\.\[inspect\]'"):
        inspect_log.read(tmp_path / "a.eval", inspect_log.Settings())


def test_a_json_file_of_others_does_not_suit(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"results": {}, "versions": {}}))
    assert not inspect_log.suits(tmp_path / "results.json")
