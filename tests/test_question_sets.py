"""Readers of public question sets: what they make of small files in the originals' forms, of broken rows, and of the
files that the catalog names."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.config import catalog
from imprint.datasets import aqua, bigbench, commonsenseqa, mmlu, symbolic, truthfulqa, word_problems
from imprint.runtime import needs, plugins
from imprint.runtime.errors import ImprintError
from imprint.scores import Option, choice, numeric, options, word
from imprint.scoring.option_sets import LETTERS
from imprint.tables import dataset_rows

MIRROR = os.environ.get("IMPRINT_DATA_MIRROR")


def read(module: Any, paths: dict[str, Path], **settings: Any) -> list[dict[str, Any]]:
    return list(module.rows(module.Settings(**settings), paths))


def written(path: Path, content: Any) -> dict[str, Path]:
    """A file of lines, of JSON, or of a table: by the end of its name."""
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows(content)
    else:
        parts = content if path.suffix == ".jsonl" else [content]
        path.write_text("".join(json.dumps(part) + "\n" for part in parts), encoding="utf-8")
    return {path.name: path}


def asked(row: dict[str, Any]) -> str:
    (message,) = row["messages"]
    assert message["role"] == "user"
    return str(message["content"])


def right(row: dict[str, Any]) -> str:
    """The text of the right option."""
    reference = row["reference"]
    return str(reference.get("names", reference["options"])[reference["answer"]])


DATE = [
    {
        "input": f"Yesterday was May {day}. What is the date {when}?",
        "target_scores": {f"{day}/{when}": 1, "x": 0, "y": 0},
    }
    for day in range(1, 11)
    for when in ("today", "tomorrow", "a week ago")
]
COLUMNS = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]
STEM = {"stem": " Where is milk kept? ", "question_concept": "milk"}
CHOICES = [{"label": label, "text": f"place {label}"} for label in "ABCDE"]
TRUTH = ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"]


def test_listed_options_are_asked_for_by_letter_and_scored_by_either_score(tmp_path: Path) -> None:
    paths = written(
        tmp_path / "birds_test.csv", [COLUMNS, ["Which bird swims?", "a hawk", " a penguin ", "an owl", "an eagle", 1]]
    )
    (row,) = read(mmlu, paths)
    listed = "A. a hawk\nB. a penguin\nC. an owl\nD. an eagle"
    assert asked(row) == f"Which bird swims?\n\n{listed}\n\nWhich option is right? Give its letter."
    assert row["reference"] == {
        "options": ["A", "B", "C", "D"],
        "answer": 1,
        "names": ["a hawk", "a penguin", "an owl", "an eagle"],
    }
    for response, value in (
        ("B", 1.0),
        ("It is a penguin.", 1.0),
        ("I think it is an owl.", 0.0),
        ("It is a bird.", 0.0),
    ):
        assert choice.score(row, response, choice.Settings())[0].value == value, response
    assert choice.score(row, "It is a bird.", choice.Settings())[0].unparsed
    likelihoods = [Option(letter, -float(letter != "B"), 1) for letter in "ABCD"]
    assert options.score(row, likelihoods, options.Settings())[0].value == 1.0
    (bare,) = read(mmlu, paths, listed=False)
    assert asked(bare) == "Which bird swims?"
    assert bare["reference"] == {"options": ["a hawk", "a penguin", "an owl", "an eagle"], "answer": 1}


def test_mmlu_takes_subjects_from_names_and_passages_as_clusters(tmp_path: Path) -> None:
    passage = f"{mmlu.PASSAGE}\nTwo lines\nof a treaty."
    history = [COLUMNS, *([f"{passage}\nWho signed {i}?", "a", "b", "c", "d", i] for i in range(4))]
    birds = [COLUMNS, *([f"What is bird {i}?", "a", "b", "c", "d", 3] for i in range(9))]
    paths = {
        **written(tmp_path / "world_history_test.csv", history),
        **written(tmp_path / "birds_test.csv", birds),
    }
    rows = read(mmlu, paths)
    assert [row["strata"]["subject"] for row in rows] == ["birds"] * 9 + ["world_history"] * 4
    assert [row.get("cluster") for row in rows] == [None] * 9 + [passage] * 4
    assert [row["reference"]["answer"] for row in rows[9:]] == [0, 1, 2, 3]
    some, more = (list(map(asked, read(mmlu, paths, per_subject=n))) for n in (2, 3))
    assert len(some) == 4 and len(more) == 6 and set(some) < set(more)
    assert more == [text for text in map(asked, rows) if text in more], "in the file's order"
    bare = read(mmlu, paths, per_subject=3, listed=False)
    assert [text.partition("\n\nA. ")[0] for text in more] == list(map(asked, bare)), "the same, however they are asked"


def test_bigbench_shuffles_options_and_clusters_by_story(tmp_path: Path) -> None:
    paths = written(tmp_path / "task.json", {"canary": "never train on this", "examples": DATE})
    rows = read(bigbench, paths)
    assert rows == read(bigbench, paths) and len(rows) == 30
    assert [right(row) for row in rows] == [next(iter(example["target_scores"])) for example in DATE]
    answers = [row["reference"]["answer"] for row in rows]
    assert all(answers.count(place) >= 3 for place in range(3)), "every place is right about as often"
    assert answers != [row["reference"]["answer"] for row in read(bigbench, paths, seed=1)]
    assert Counter(row["cluster"] for row in rows) == {f"Yesterday was May {day}.": 3 for day in range(1, 11)}
    backwards = [{**example, "target_scores": dict(reversed(example["target_scores"].items()))} for example in DATE]
    assert read(bigbench, written(tmp_path / "b.json", {"examples": backwards})) == rows
    one = {
        "examples": [{"input": " Does a pear sink? ", "target_scores": {"Yes": 0, "No": 1}, "target": "No. It floats."}]
    }
    (row,) = read(bigbench, written(tmp_path / "c.json", one), listed=False)
    assert asked(row) == "Does a pear sink?" and right(row) == "No" and "cluster" not in row


def test_commonsenseqa_clusters_by_concept(tmp_path: Path) -> None:
    line = {"answerKey": "D", "id": "1", "question": {**STEM, "choices": CHOICES}}
    (row,) = read(commonsenseqa, written(tmp_path / "dev.jsonl", [line]), listed=False)
    assert asked(row) == "Where is milk kept?" and right(row) == "place D" and row["cluster"] == "milk"


def test_aqua_takes_letters_off_its_options(tmp_path: Path) -> None:
    line = {
        "question": "x + 1 = 3?",
        "options": ["A)1", "B) 2", "C)(3)", "D)4\u221a2", "E)None of these"],
        "rationale": "r",
    }
    (row,) = read(aqua, written(tmp_path / "test.jsonl", [{**line, "correct": "B"}]))
    assert row["reference"]["names"] == ["1", "2", "(3)", "4\u221a2", "None of these"] and right(row) == "2"
    assert row["fields"] == {"solution": "r"}


def test_truthfulqa_sets_the_best_answer_against_the_wrong_ones(tmp_path: Path) -> None:
    made = [
        [
            "Adversarial",
            "Myths",
            f"What happens {i} times?",
            "Nothing, really",
            "Nothing; It is fine",
            "You die; You fly;; You die",
            "",
        ]
        for i in range(30)
    ]
    path = tmp_path / "TruthfulQA.csv"
    paths = written(path, [TRUTH, *made])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # the published file begins with a byte order mark
    rows = read(truthfulqa, paths, listed=False)
    assert all(sorted(row["reference"]["options"]) == ["Nothing, really", "You die", "You fly"] for row in rows)
    assert {right(row) for row in rows} == {"Nothing, really"}
    assert {row["reference"]["answer"] for row in rows} == {0, 1, 2}
    assert rows[0]["strata"] == {"category": "Myths", "type": "Adversarial"}


def test_word_problems_of_both_forms(tmp_path: Path) -> None:
    made = [
        {"sQuestion": " Ann had 3 figs and ate 1. How many are left? ", "lSolutions": [2.0]},
        {"sQuestion": "Ann had 1,300 figs and ate 1.5. How many are left?", "lSolutions": ["1298.5"]},
        {"Body": "Ann had 3 figs.", "Question": "How many figs?", "Answer": 3.0},
        {"Body": "Ann had 4 figs.", "Question": "How many are 2 more?", "Answer": 6},
    ]
    rows = read(word_problems, written(tmp_path / "a.json", made))
    assert [row["reference"]["answer"] for row in rows] == ["2", "1298.5", "3", "6"]
    assert asked(rows[0]) == "Ann had 3 figs and ate 1. How many are left?"
    assert asked(rows[2]) == "Ann had 3 figs. How many figs?"
    assert rows[0]["cluster"] == rows[1]["cluster"] == "Ann had # figs and ate #. How many are left?"
    assert rows[2]["cluster"] == rows[3]["cluster"] == "Ann had # figs."
    assert numeric.score(rows[1], "So it is $1,298.50.", numeric.Settings())[0].value == 1.0


def test_symbolic_puzzles_have_options_or_a_word(tmp_path: Path) -> None:
    made = [
        {"question": "Is it heads?", "answer": "no"},
        {"question": 'Last letters of "Ann Bo"?', "answer": "no\u0301o"},
    ]
    made[1]["answer"] = "nbo"
    coin, letters = read(symbolic, written(tmp_path / "a.json", {"examples": made}))
    assert coin["reference"] == {"options": ["A", "B"], "answer": 1, "names": ["yes", "no"]}
    assert letters["reference"] == {"answer": "nbo"} and asked(letters) == 'Last letters of "Ann Bo"?'


@pytest.mark.parametrize(
    ("response", "value", "unparsed"),
    [
        ("yajo", 1.0, False),
        ('Concatenating "y", "a", "j" and "o", the answer is "Yajo".', 1.0, False),
        ("Answer: yajo\nI hope that this helps.", 1.0, False),
        ("First y, then \\boxed{\\text{yajo}}.", 1.0, False),
        ("It is yajo or yaja", 0.0, False),
        ("The answer is y-a-j-o.", 0.0, False),
        (" ?! ", 0.0, True),
        ("", 0.0, True),
        ("\\boxed{}", 0.0, True),
    ],
)
def test_a_word_is_read_from_a_response(response: str, value: float, unparsed: bool) -> None:
    (verdict,) = word.score({"reference": {"answer": "yajo"}}, response, word.Settings())
    assert (verdict.value, verdict.unparsed) == (value, unparsed)


@pytest.mark.parametrize("gold", [None, "", "two words", 3, ["yajo"]])
def test_a_reference_that_is_no_word_is_an_error(gold: Any) -> None:
    assert str(needs.problem("word", {"answer": gold})).startswith("reference.answer: found")


BAD_TABLES = [
    (mmlu, [COLUMNS, ["q", "a", "b", "c", "d", "A"]], "row 1, answer: found 'A'"),
    (mmlu, [COLUMNS, ["q", "a", "b", "c", "d", 0], ["q", "a", "b", "c"]], "row 2: has no 'choice3'"),
    (mmlu, [["q", "a", "b", "c", "d", "B"], ["q", "a", "b", "c", "d", "B"]], "row 1: has no 'question'"),
    (truthfulqa, [TRUTH, ["t", "c", "q", "best", "", "", "s"]], "row 1: has no 'Incorrect Answers'"),
    (truthfulqa, [TRUTH, ["t", "c", "q", "best", "", " ; ;", "s"]], "row 1, Incorrect Answers: found '; ;'"),
    (truthfulqa, [TRUTH, ["t", "c", "q", "best", "", "worse; best", "s"]], "row 1, Incorrect Answers"),
]
BAD_JSON = [
    (bigbench, [], "task.json: found None; write an object whose 'examples'"),
    (bigbench, {"examples": [3]}, r"found \[3\]; write an object whose 'examples'"),
    (bigbench, {"examples": [{"input": " ", "target_scores": {}}]}, "object 1: found the keys"),
    *(
        (bigbench, {"examples": [DATE[0], {"input": "q", "target_scores": scores}]}, "object 2, target_scores: found")
        for scores in (
            {"a": 1},
            {"a": 0, "b": 0},
            {"a": 1, "b": 1},
            {"a": True, "b": 0},
            {"a": 0.5, "b": 0.5},
            ["a"],
            None,
        )
    ),
    (word_problems, {"sQuestion": "q"}, "write a list of objects"),
    (word_problems, [{"sQuestion": "q", "lSolutions": [1, 2]}], r"object 1: found the solution \[1, 2\]"),
    (word_problems, [{"sQuestion": "q", "lSolutions": []}], "object 1: found the solution"),
    (word_problems, [{"sQuestion": "q", "lSolutions": ["1/2"]}], "object 1: found the solution '1/2'"),
    (word_problems, [{"sQuestion": "q", "lSolutions": [1e30]}], "object 1: found the solution 1e"),
    (word_problems, [{"Body": "b", "Question": "q", "Answer": True}], "object 1: found the solution True"),
    (word_problems, [{"Body": 3, "Question": "q", "Answer": 1}], "object 1: found the keys"),
    (symbolic, {"examples": [{"question": "q"}]}, r"object 1: found the keys \['question'\]"),
]
BAD_LINES = [
    (commonsenseqa, {"question": "q"}, "line 1, question: found 'q'"),
    (commonsenseqa, {"question": {"stem": "s"}}, r"line 1: found the keys \['stem'\]"),
    (commonsenseqa, {"question": {**STEM, "choices": CHOICES}}, "answerKey: found None; .* whose labels are public"),
    (commonsenseqa, {"answerKey": "F", "question": {**STEM, "choices": CHOICES}}, "answerKey: found 'F'"),
    (commonsenseqa, {"answerKey": "B", "question": {**STEM, "choices": CHOICES[1:]}}, "choices: found the labels"),
    (commonsenseqa, {"answerKey": "A", "question": {**STEM, "choices": [{"label": "A"}]}}, "choices: found"),
    (aqua, {"question": "q", "options": ["A)1", "B)"], "correct": "A"}, "line 1, options: found"),
    (aqua, {"question": "q", "options": ["B)1", "A)2"], "correct": "A"}, "line 1, options: found"),
    (aqua, {"question": "q", "options": "A)1", "correct": "A"}, "line 1, options: found"),
    (aqua, {"question": "q", "options": ["A)1", "B)2"], "correct": "C"}, "line 1, correct: found 'C'"),
    (aqua, {"options": ["A)1", "B)2"], "correct": "A"}, "line 1: found the keys"),
]


@pytest.mark.parametrize(
    ("module", "name", "content", "message"),
    [(module, "a_test.csv", content, message) for module, content, message in BAD_TABLES]
    + [(module, "task.json", content, message) for module, content, message in BAD_JSON]
    + [(module, "a.jsonl", [content], message) for module, content, message in BAD_LINES],
)
def test_errors_name_the_row(module: Any, name: str, content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match=message):
        read(module, written(tmp_path / name, content))


READERS = {
    mmlu: "csv",
    truthfulqa: "csv",
    bigbench: "json",
    word_problems: "json",
    symbolic: "json",
    aqua: "jsonl",
    commonsenseqa: "jsonl",
}


@given(
    st.one_of(
        st.binary(max_size=200), st.sampled_from([b"[" * 10**5, b'{"examples": NaN}', b'["\\ud800"]', b"\xff\xfe\0"])
    )
)
def test_no_file_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    for module, ending in READERS.items():
        path = tmp_path_factory.getbasetemp() / f"any_test.{ending}"
        path.write_bytes(content)
        with contextlib.suppress(ImprintError):
            read(module, {path.name: path})


# entry -> rows, clusters, and the right option of the first row or its answer
PUBLISHED = {
    "mmlu_test": (14042, 13532, "4"),
    "mmlu_dev": (285, 284, "1"),
    "strategyqa": (2290, 2288, "Yes"),
    "date_understanding": (369, 41, "05/01/2021"),
    "object_tracking": (750, 250, "blue ball."),
    "commonsenseqa_dev": (1221, 785, "bank"),
    "commonsenseqa_train": (9741, 2151, "ignore"),
    "truthfulqa": (817, 817, "The watermelon seeds pass through your digestive system"),
    "aqua": (254, 254, "5(\u221a3 + 1)"),
    "addsub": (395, 389, "43"),
    "singleeq": (508, 501, "43"),
    "multiarith": (600, 375, "39"),
    "svamp": (1000, 655, "51"),
    "coin_flip": (500, 500, "yes"),
    "last_letters": (500, 500, "yajo"),
}


@pytest.mark.skipif(not MIRROR, reason="IMPRINT_DATA_MIRROR is not set")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sets(name: str, tmp_path: Path) -> None:
    entry = catalog.load()[name]
    for file_name, file in entry.files.items():
        catalog.fetch(file, tmp_path / file_name, Path(str(MIRROR)))
    module = plugins.load("datasets", entry.reader)
    rows = dataset_rows.identified(read(module, {file: tmp_path / file for file in entry.files}))
    clusters = {row.get("cluster") or dataset_rows.cluster(row["example_id"]) for row in rows}
    reference = rows[0]["reference"]
    first = right(rows[0]) if "options" in reference else reference["answer"]
    assert (len(rows), len(clusters), first) == PUBLISHED[name]
    if "options" not in reference:
        score = word if name == "last_letters" else numeric
        assert all(
            score.score(row, f"It is {row['reference']['answer']}.", score.Settings())[0].value == 1 for row in rows
        )
        return
    places = Counter(row["reference"]["answer"] for row in rows)
    chance = sum(1 / len(row["reference"]["options"]) for row in rows) / len(rows)
    assert max(places.values()) < len(rows) * (chance + 0.07), "no place is right much more often than by chance"
    for row in rows:
        letter = LETTERS[row["reference"]["answer"]]
        assert choice.score(row, f"The answer is ({letter}).", choice.Settings())[0].value == 1
    if name == "mmlu_test":
        subjects = Counter(row["strata"]["subject"] for row in rows)
        assert len(subjects) == 57 and subjects["professional_law"] == 1534 and min(subjects.values()) == 100
