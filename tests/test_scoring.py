"""The score job and the command-line scorer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fake_results as fake
import scored
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.scores import behaviours, judged_behaviours, numeric
from imprint.scoring import score_run
from scored import generation

ROOT = Path(__file__).parent.parent


def by_metric(
    folder: Path, generations: list[dict[str, Any]], answers: list[str], **spec: Any
) -> dict[tuple[str, str], dict[str, Any]]:
    """(example, metric) -> its score, for examples whose answer is a number."""
    rows = [scored.example(i, {"answer": answer}) for i, answer in enumerate(answers)]
    made = scored.scores(folder, rows, generations, scored.spec(**spec))
    return {(row["example_id"], row["metric"]): row for row in made}


def test_right_wrong_unparsed_and_failed(tmp_path: Path) -> None:
    found = by_metric(
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
    found = by_metric(
        tmp_path,
        [generation("0-0", " You are number 7.\n[Answer] It is 18"), generation("1-0", "You are number 7. It is 18")],
        ["18", "18"],
        contexts=[Plug(name="self_role")],
    )
    assert [found[f"{i}-0", "delimiter_missing"]["value"] for i in (0, 1)] == [0.0, 1.0]
    assert found["0-0", "accuracy"]["value"] == 1.0


def test_the_part_of_a_response_that_is_scored_is_kept(tmp_path: Path) -> None:
    responses = [
        generation("0-0", " You are number 7.\n[Answer] It is 18"),
        generation("1-0", "You are number 7. It is 18"),
        generation("2-0", None, finish_reason=None, error="no"),
    ]
    by_metric(tmp_path, responses, ["18", "18", "18"], contexts=[Plug(name="self_role")])
    (row,) = parquet.read(tmp_path / "t.parquet", "scored_texts").to_pylist()
    assert row == {"arm": "a1", "seed": 0, "eval": "e1", "example_id": "0-0", "sample": 0, "text": "It is 18"}


def test_a_failed_first_turn_is_an_error_of_the_example(tmp_path: Path) -> None:
    found = by_metric(tmp_path, [generation("0-0", None, final=False, error="no")], ["1"])
    assert found["0-0", "accuracy"]["status"] == "error"


def test_a_text_made_of_several_responses_has_no_length_and_is_scored(tmp_path: Path) -> None:
    composed = dict.fromkeys(("prompt_sha256", "prompt_tokens", "response_tokens", "answer_tokens", "logprob_sum"))
    composed["turn"] = 1
    found = by_metric(
        tmp_path,
        [
            generation("0-0", "It is 17", final=False),
            generation("0-0", "It is 18", final=False),
            generation("0-0", "18", **composed),
            generation("1-0", "4"),
        ],
        ["18", "4"],
    )
    assert {key: row["value"] for key, row in found.items()} == {
        ("0-0", "accuracy"): 1.0,
        ("0-0", "delimiter_missing"): 0.0,
        ("1-0", "accuracy"): 1.0,
        ("1-0", "delimiter_missing"): 0.0,
        ("1-0", "response_tokens"): 5.0,
        ("1-0", "answer_tokens"): 4.0,
    }
    metrics = {"e1": {"accuracy": (True, 1), **dict.fromkeys(score_run.OF_RESPONSES, (False, 0))}}
    table = parquet.read(tmp_path / "s.parquet", "scores")
    summary = {row["metric"]: row for row in fake.summarize(table, {"a1": ["e1"]}, metrics)}
    assert summary["accuracy"]["n_scored"] == 2
    lengths = summary["response_tokens"]
    assert (lengths["n_attempted"], lengths["n_scored"], lengths["n_error"], lengths["mean"]) == (1, 1, 0, 5.0)


def test_a_row_names_the_score_that_it_is_from(tmp_path: Path) -> None:
    describe = [Plug(name="behaviours"), Plug(name="judged_behaviours")]
    found = by_metric(tmp_path, [generation("0-0", "Let me check: it is 18.")], ["18"], describe=describe)
    assert found["0-0", "verification"]["value"] == 1.0
    versions = {metric: row["eval_version"] for (_, metric), row in found.items()}
    assert versions["accuracy"] == versions["response_tokens"] == f"numeric {numeric.VERSION}"
    assert versions["verification"] == f"behaviours {behaviours.VERSION}"
    assert versions["judged_verification"] == f"judged_behaviours {judged_behaviours.VERSION}"
    assert found["0-0", "judged_verification"]["status"] == "unjudged"


def test_generations_of_other_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="does not hold the rows"):
        by_metric(tmp_path, [generation("9-0", "18")], ["18"])


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
        (
            "likelihood",
            '{"options": ["a"], "response": [{"text": "a", "logprob": "x", "tokens": 1}]}',
            ["line 1", "likelihood"],
        ),
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
