"""The score job and the command-line scorer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imprint import scoring, tables
from imprint.errors import ImprintError

ROOT = Path(__file__).parent.parent
SPEC = {
    "arm": "a1",
    "seed": 0,
    "eval": "e1",
    "limit": None,
    "score": {"name": "numeric", "settings": {}},
    "context": {"name": "plain", "settings": {}},
}


def generation(example: str, response: str | None, **more: Any) -> dict[str, Any]:
    row = {
        "arm": "a1", "seed": 0, "eval": "e1", "example_id": example, "sample": 0, "turn": 0, "final": True,
        "prompt_sha256": "0", "response": response, "finish_reason": "stop", "prompt_tokens": 3, "response_tokens": 5,
        "logprob_sum": -1.0, "seconds": 0.1, "engine": "test", "error": None,
    }  # fmt: skip
    return {**row, **more}


def scored(tmp_path: Path, generations: list[dict], answers: list[str], **spec: Any) -> dict[tuple[str, str], dict]:
    messages = [{"role": "user", "content": "?"}]
    rows = [
        {"example_id": f"{i}-0", "messages": messages, "reference": {"answer": answer}}
        for i, answer in enumerate(answers)
    ]
    tables.write_dataset(tmp_path / "d.parquet", "d", rows, "0")
    tables.write(tmp_path / "g.parquet", "generations", generations)
    scoring.run(
        generations=tmp_path / "g.parquet",
        dataset=tmp_path / "d.parquet",
        spec={**SPEC, **spec},
        out=tmp_path / "s.parquet",
    )
    return {(r["example_id"], r["metric"]): r for r in tables.read(tmp_path / "s.parquet", "scores").to_pylist()}


def test_right_wrong_unparsed_and_failed(tmp_path: Path) -> None:
    found = scored(
        tmp_path,
        [
            generation("0-0", "It is #### 18"),
            generation("1-0", "It is 3."),
            generation("2-0", "no idea", finish_reason="length"),
            generation("3-0", None, finish_reason=None, response_tokens=None, error="the prompt does not fit"),
        ],
        ["18", "4", "5", "6"],
    )
    value = {key: (row["value"], row["status"], row["truncated"]) for key, row in found.items()}
    assert value["0-0", "accuracy"] == (1.0, "scored", False)
    assert value["1-0", "accuracy"] == (0.0, "scored", False)
    assert value["2-0", "accuracy"] == (0.0, "unparsed", True)
    assert value["3-0", "accuracy"] == (None, "error", False)
    assert value["3-0", "response_tokens"][:2] == (None, "error")
    assert value["0-0", "response_tokens"][0] == 5.0
    assert found["0-0", "accuracy"]["eval_version"].startswith("numeric ")


def test_the_role_is_split_off_and_a_missing_delimiter_counted(tmp_path: Path) -> None:
    found = scored(
        tmp_path,
        [generation("0-0", " You are number 7.\n[Answer] It is 18"), generation("1-0", "You are number 7. It is 18")],
        ["18", "18"],
        context={"name": "self_role", "settings": {}},
    )
    assert [found[f"{i}-0", "delimiter_missing"]["value"] for i in (0, 1)] == [0.0, 1.0]
    assert found["0-0", "accuracy"]["value"] == 1.0


def test_a_failed_first_turn_is_an_error_of_the_example(tmp_path: Path) -> None:
    found = scored(tmp_path, [generation("0-0", None, final=False, error="no")], ["1"])
    assert found["0-0", "accuracy"]["status"] == "error"


def test_generations_of_other_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="does not hold the rows"):
        scored(tmp_path, [generation("9-0", "18")], ["18"])


def command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow/scripts")}
    return subprocess.run(
        [sys.executable, "-m", "imprint.score", *arguments],
        input=stdin, env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_scores_ifeval_rows(tmp_path: Path) -> None:
    row = {
        "key": 7,
        "prompt": "Write without commas. Answer in lower case.",
        "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
        "kwargs": [{}, {}],
        "response": "a plain answer, with a comma",
    }
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n\n" + json.dumps({**row, "response": "a plain answer in a few words"}) + "\n")
    out = command("ifeval", str(path))
    assert out.returncode == 0, out.stderr
    first, second = map(json.loads, out.stdout.splitlines())
    assert (first["row"], second["row"], first["key"]) == (1, 3, 7)
    assert first["instruction_strict"] == [0.0, 1.0]
    assert first["labels"] == row["instruction_id_list"]
    assert (first["prompt_strict"], second["prompt_strict"], second["prompt_loose"]) == (0.0, 1.0, 1.0)


def test_the_command_joins_responses_with_their_references(tmp_path: Path) -> None:
    """The two files of the benchmark itself: the prompts with their instructions, and the responses by prompt."""
    prompts, responses = tmp_path / "input_data.jsonl", tmp_path / "responses.jsonl"
    row = {"key": 7, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    prompts.write_text(json.dumps({**row, "key": 6, "prompt": "Other."}) + "\n" + json.dumps(row))
    responses.write_text(json.dumps({"prompt": "No commas.", "response": "Well, no."}))
    out = command("ifeval", str(responses), "--references", str(prompts))
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout)
    assert (found["key"], found["prompt_strict"]) == (7, 0.0)
    responses.write_text(json.dumps({"prompt": "Neither.", "response": "No."}))
    out = command("ifeval", str(responses), "--references", str(prompts))
    assert out.returncode != 0
    assert "line 1" in out.stderr
    assert "'Neither.'" in out.stderr


def test_the_command_takes_settings() -> None:
    out = command("{format: {tag: plan}}", "-", stdin='{"response": "<plan>a</plan><answer>4</answer>"}')
    assert json.loads(out.stdout)["well_formed"] == 1.0


@pytest.mark.parametrize(
    ("score", "text", "parts"),
    [
        ("ifevl", "{}", ["ifevl", "did you mean 'ifeval'"]),
        ("numeric", "{", ["line 1", "not JSON"]),
        ("numeric", "[1]", ["line 1", "found [1]"]),
        ("numeric", '{"answer": "1"}', ["line 1", "response"]),
        ("numeric", '{"answer": "1", "response": 5}', ["line 1", "int"]),
        ("ifeval", '{"prompt": "x", "response": "y"}', ["line 1", "instruction_id_list"]),
        ("ifeval", '{"reference": "x", "response": "y"}', ["line 1", "reference", "write an object"]),
        ("numeric", '{"prompt": "x", "response": "y"}', ["line 1", "reference.answer"]),
        ("likelihood", '{"response": "y"}', ["line 1", "logprob"]),
        ("format", '{"response": "y"}', ["format.tag"]),
        ("{format: {tog: plan}}", '{"response": "y"}', ["tog"]),
        ("{format", '{"response": "y"}', ["not YAML"]),
        ("!!bool abc", '{"response": "y"}', ["not YAML"]),
        ("ifeval", '{"prompt": [], "response": "y"}', ["line 1"]),
        ("ifeval", '{"instruction_id_list": [[1]], "kwargs": [{}], "response": "y"}', ["line 1", "ifeval"]),
        ("likelihood", '{"response": [{"text": "a", "logprob": "x", "tokens": 1}]}', ["line 1", "likelihood"]),
        ("numeric", "[" * 100_000, ["line 1", "not JSON"]),
        ("numeric", '{"key": "\\ud800", "answer": "1", "response": "1"}', ["line 1", "half a character"]),
    ],
)
def test_the_command_says_what_is_wrong(score: str, text: str, parts: list[str]) -> None:
    out = command(score, "-", stdin=text)
    assert out.returncode != 0
    assert "Traceback" not in out.stderr
    for part in parts:
        assert part in out.stderr
