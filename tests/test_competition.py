"""Competition mathematics: what its reader makes of the public files, and that each set's own answers are right."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import fake_results as fake
import scored
from imprint.config import catalog
from imprint.datasets import competition, humaneval
from imprint.runtime import parquet, schemas
from imprint.runtime.errors import ImprintError
from imprint.scores import code, math
from imprint.scoring import score_run

MIRROR = os.environ.get("IMPRINT_DATA_MIRROR")
mirrored = pytest.mark.skipif(not MIRROR, reason="IMPRINT_DATA_MIRROR is not set")


def read(path: Path) -> list[dict[str, Any]]:
    return list(competition.rows(competition.Settings(), {path.name: path}))


def public(name: str, folder: Path) -> dict[str, Path]:
    """The files of a catalog entry, from the mirror."""
    paths = {}
    for file_name, file in catalog.load()[name].files.items():
        catalog.fetch(file, folder / file_name, Path(str(MIRROR)))
        paths[file_name] = folder / file_name
    return paths


def test_answers_and_boxed_solutions(tmp_path: Path) -> None:
    made = [
        {"problem": " Find $1+1$. ", "answer": "2", "subject": "Algebra", "level": 3},
        {"problem": "Find $3/2$.", "answer": 1.5},
        {"problem": "Find $3^3$.", "answer": 27.0},
        {"problem": "Find $1+1$.", "solution": "It is \\boxed{1}, no: \\boxed{\\frac{4}{2}}."},
        {"problem": "Nobody knows.", "answer": None},
        {"problem": "Nobody knows.", "answer": ""},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    (tmp_path / "b.json").write_text(json.dumps(made))
    rows = read(tmp_path / "a.jsonl")
    assert [row["reference"]["answer"] for row in rows] == ["2", "1.5", "27", "\\frac{4}{2}", "", ""]
    assert rows[0]["messages"] == [{"role": "user", "content": "Find $1+1$."}]
    assert rows[0]["strata"] == {"subject": "Algebra", "level": "3"} and rows[1]["strata"] == {}
    assert read(tmp_path / "b.json") == rows
    for row in rows[4:]:  # no gold: null, never wrong
        assert math.score(row, "\\boxed{2}", math.Settings())[0].value is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"problem": "q"}', "line 1: found no answer"),
        ('{"problem": "q", "solution": "It is 2."}', "line 1: found no answer"),
        ('{"problem": "q", "answer": ["2"]}', "line 1: found no answer"),
        ('{"answer": "2"}', "line 1: found the keys"),
        ('{"problem": " ", "answer": "2"}', "line 1: found the keys"),
    ],
)
def test_rows_that_are_no_problems(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_text(text + "\n")
    with pytest.raises(ImprintError, match=said):
        read(tmp_path / "a.jsonl")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(ImprintError, match="write a list of objects"):
        read(tmp_path / "b.json")


@mirrored
@pytest.mark.parametrize(("name", "n"), [("aime24", 30), ("amc23", 40), ("math500", 500)])
def test_every_answer_of_a_public_set_is_right(name: str, n: int, tmp_path: Path) -> None:
    (path,) = public(name, tmp_path).values()
    rows = read(path)
    assert len(rows) == n == len({row["messages"][0]["content"] for row in rows})
    for row in rows:
        answer = row["reference"]["answer"]
        assert math.score(row, f"So it is $\\boxed{{{answer}}}$.", math.Settings())[0].value == 1.0, answer
    assert math.score(rows[0], "So it is \\boxed{123456789}.", math.Settings())[0].value == 0.0


@mirrored
def test_the_training_problems_can_be_read(tmp_path: Path) -> None:
    rows = list(competition.rows(competition.Settings(), public("deepscaler_math", tmp_path)))
    assert len(rows) == 8449 and sum(not row["reference"]["answer"] for row in rows) == 4


@mirrored
def test_reference_solutions_pass_and_stubs_do_not(tmp_path: Path) -> None:
    rows = list(humaneval.rows(humaneval.Settings(), public("humaneval_plus", tmp_path)))
    assert len(rows) == 164
    for row in rows[::33]:
        reference = row["reference"]
        whole = f"```python\n{reference['prompt']}{reference['canonical_solution']}\n```"
        found = {v.metric: v.value for v in code.score(row, whole, code.Settings())}
        assert found == {"passed": 1.0, "passed_base": 1.0}, reference["task_id"]
        stub = f"```python\n{reference['prompt']}    return None\n```"
        assert code.score(row, stub, code.Settings())[0].value == 0.0, reference["task_id"]


def test_k_samples_are_averaged_and_clustered_by_problem(tmp_path: Path) -> None:
    """avg@4: every sample is a row, the mean is over all, and the sample is of problems, not of responses."""
    problems = 12
    rows = [scored.example(i, {"answer": str(i)}, example_id=f"{i:02}-0") for i in range(problems)]
    said = [
        scored.generation(f"{i:02}-0", f"\\boxed{{{i if i % 2 or sample == 0 else -1}}}", sample=sample)
        for i in range(problems)
        for sample in range(4)
    ]
    scored.scores(tmp_path, rows, said, scored.spec("math"))

    def summary(table: pa.Table) -> dict[str, Any]:
        metrics = {"e1": {"accuracy": (True, 1), **dict.fromkeys(score_run.OF_RESPONSES, (False, 0))}}
        return fake.summarize(table, {"a1": ["e1"]}, metrics)[0]

    table = parquet.read(tmp_path / "s.parquet", "scores")
    found = summary(table)
    assert (found["n_examples"], found["n_attempted"]) == (12, 48) and found["mean"] == pytest.approx((6 + 6 / 4) / 12)
    assert found["interval"] == "t"
    alone = [
        {**row, "example_id": f"{row['example_id'][:2]}{row['sample']}-0", "sample": 0} for row in table.to_pylist()
    ]
    independent = summary(pa.Table.from_pylist(alone, schema=schemas.SCHEMAS["scores"]))
    assert found["se"] > 1.3 * independent["se"], "samples of one problem are no independent ones"
