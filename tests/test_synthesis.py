"""Role synthesis: filters, yield, and the shuffled placebo."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asking
from asking import Scripted
from imprint.contexts import prior_prompt
from imprint.draws import seed_of
from imprint.engines import Prompt, Response
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.scoring.forms import well_formed
from imprint.synthesis import _job, _rearrange, outlines, role_prompts, shuffled_roles, without
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named, Read

ANSWER = "Stir the pot every five minutes and add salt only at the very end of cooking."
GOOD = (
    "You are a cook who has run a village kitchen for decades, and you know from long practice which small habits "
    "decide whether a stew turns out well."
)


def dialogues(n: int) -> list[dict]:
    return [
        {
            "example_id": f"{i:016x}-0",
            "messages": [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": ANSWER}],
            "reference": None,
            "fields": {"role_prompt": f"You are expert {i}."},
            "strata": {},
        }
        for i in range(n)
    ]


def read(rows: list[dict]) -> Read:
    """The rows as what a synthesiser reads."""
    return Read({"dialogues": rows})


@pytest.mark.parametrize(
    ("role", "reason"),
    [
        (GOOD, None),
        ("As a cook, " + GOOD, "does not begin with 'You are'"),
        ("You are a cook.", "not 20 to 120 words"),
        (GOOD + " more" * 120, "not 20 to 120 words"),
        (GOOD + "\n\nAnd patient.", "more than one paragraph"),
        (GOOD + " Remember to stir the pot every five minutes and add salt late.", "leaks the answer"),
        (role_prompts.EXAMPLES[0][1], "copies an example"),
        (GOOD + " [Answer] yes", "holds a delimiter"),
    ],
)
def test_filters(role: str, reason: str | None) -> None:
    assert role_prompts.rejection(role, ANSWER) == reason


def test_a_short_answer_in_the_role_is_a_leak() -> None:
    assert role_prompts.rejection(GOOD, "village kitchen") == "leaks the answer"
    assert role_prompts.rejection(GOOD, "soup") is None


def test_cut_roles_are_rejected() -> None:
    assert role_prompts.rejection(GOOD, ANSWER, cut=True) == "cut at the token limit"


def teacher(texts: dict[int, list[str]]):
    """A teacher that says, per attempt, one text per asked row."""
    asked = []

    def ask(requests: list, key: str, temperature: float, seed: int) -> list[Response]:
        attempt = len(asked)
        asked.append([request.messages[-1]["content"] for request in requests])
        return [Response(text, "stop", 1, 1, 0.0, 0.0) for text in texts[attempt][: len(requests)]]

    ask.asked = asked  # type: ignore[attr-defined]
    return ask


SETTINGS = {"from": "dialogues", "teacher": "base"}


def varied(i: int) -> str:
    return GOOD.removeprefix("You are") + f" You have {i} apprentices."


def test_rejected_rows_are_asked_again_and_every_attempt_is_a_row() -> None:
    settings = role_prompts.Settings.model_validate({**SETTINGS, "attempts": 2})
    ask = teacher({0: [varied(0), " short", varied(0)], 1: [varied(1), " short"]})
    made = role_prompts.rows(settings, read(dialogues(3)), ask)
    assert [len(asked) for asked in ask.asked] == [3, 2]
    assert [row["example_id"][15] for row in made.rows] == ["0", "1"]
    assert made.rows[1]["fields"]["role_prompt"] == "You are" + varied(1)
    assert [attempt["reason"] for attempt in made.attempts] == [
        None,
        "not 20 to 120 words",
        "repeats another row's role",
        None,
        "not 20 to 120 words",
    ]


def test_a_low_yield_stops_and_says_why() -> None:
    settings = role_prompts.Settings.model_validate({**SETTINGS, "attempts": 1})
    with pytest.raises(ImprintError, match=r"1 of 3 rows.*not 20 to 120 words \(2\)"):
        role_prompts.rows(settings, read(dialogues(3)), teacher({0: [varied(0), " no", " no"]}))


def test_n_takes_the_first_rows() -> None:
    settings = role_prompts.Settings.model_validate({**SETTINGS, "n": 1})
    ask = teacher({0: [varied(0)]})
    assert len(role_prompts.rows(settings, read(dialogues(5)), ask).rows) == 1
    assert len(ask.asked) == 1


def shuffle(rows: list[dict], seed: int = 0) -> list[dict]:
    settings = shuffled_roles.Settings.model_validate({"from": "dialogues", "seed": seed})
    return shuffled_roles.rows(settings, read(rows), None).rows


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(0, 100))
def test_no_row_keeps_its_role_and_none_is_lost(kinds: list[int], seed: int) -> None:
    rows = dialogues(len(kinds))
    for row, kind in zip(rows, kinds, strict=True):
        row["fields"]["role_prompt"] = f"You are {kind}."
    before = [row["fields"]["role_prompt"] for row in rows]
    if 2 * max(Counter(before).values()) > len(before):
        with pytest.raises(ImprintError, match="cannot be shuffled"):
            shuffle(rows, seed)
        return
    after = [row["fields"]["role_prompt"] for row in shuffle(rows, seed)]
    assert Counter(after) == Counter(before)
    assert all(a != b for a, b in zip(after, before, strict=True))


def test_a_shuffle_changes_nothing_but_the_roles() -> None:
    rows = dialogues(8)
    strip = [{key: value for key, value in row.items() if key != "fields"} for row in rows]
    assert [{k: v for k, v in row.items() if k != "fields"} for row in shuffle(rows)] == strip
    assert shuffle(rows) == shuffle(rows) != shuffle(rows, seed=1)


def test_rows_without_a_role_are_named() -> None:
    rows = dialogues(3)
    rows[1]["fields"] = {}
    with pytest.raises(ImprintError, match=rows[1]["example_id"]):
        shuffle(rows)


def test_an_outline_has_the_form_that_its_prior_prompt_trains_on() -> None:
    settings = outlines.Settings.model_validate({"from": "d", "sentences": 2, "words": 3})
    assert outlines.outlined("Cook it in less water. Chill it! Use a wide pan.", settings) == (
        "<plan>1. Cook it in 2. Chill it</plan>\n<answer>Cook it in less water. Chill it!</answer>"
    )
    source = dialogues(2)
    source[1]["messages"][1]["content"] = "Write </answer> at the end."
    made = outlines.rows(settings, Read({"d": source}), None)
    assert [row["example_id"] for row in made.rows] == [source[0]["example_id"]]
    assert [attempt["kept"] for attempt in made.attempts] == [True, False]
    shown = prior_prompt.target(made.rows[0], prior_prompt.Settings(style="plan"))
    assert shown[-1] == made.rows[0]["messages"][-1]


@given(st.text(min_size=1), st.integers(1, 4), st.integers(1, 6))
def test_outlines_are_well_formed_or_left_out(answer: str, sentences: int, words: int) -> None:
    settings = outlines.Settings.model_validate({"from": "d", "sentences": sentences, "words": words})
    source = dialogues(1)
    source[0]["messages"][1]["content"] = answer
    made = outlines.rows(settings, Read({"d": source}), None)
    assert all(well_formed(row["messages"][1]["content"], "plan") for row in made.rows)
    assert len(made.rows) == sum(attempt["kept"] for attempt in made.attempts)


def test_a_killed_synthesis_asks_its_teacher_only_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher's role for the last row is always rejected, so there is a second attempt for it."""
    dataset_rows.write(tmp_path / "dialogues.parquet", "dialogues", dialogues(6), "0")

    def says(prompt: Prompt) -> str:
        (number,) = re.findall(r"Question: Question (\d)", prompt.text)
        return " short" if number == "5" else varied(int(number))

    def make(killed_after: int | None = None, min_yield: float = 0.5) -> list[list[Any]]:
        """Runs the job; gives the teacher's batches."""
        engine = Scripted(says, batch_size=4, killed_after=killed_after)
        settings = {**SETTINGS, "attempts": 2, "seed": 3, "min_yield": min_yield}
        spec = asking.synthesis_spec(
            "role_prompts",
            settings,
            inputs=Named(datasets=["dialogues"]),
            teacher=asking.policy_spec(engine=engine.as_plugin(monkeypatch)),
        )
        with nullcontext() if killed_after is None else pytest.raises(RuntimeError, match="killed"):
            _job.run(
                spec=spec,
                datasets=[tmp_path / "dialogues.parquet"],
                runs=[],
                manifests=[asking.paper(tmp_path)],
                scores=[],
                code="{}",
                out=tmp_path / "made.parquet",
                attempts=tmp_path / "attempts.parquet",
                device="cpu",
            )
        return engine.batches

    assert [len(batch) for batch in make(killed_after=1)] == [4] and not (tmp_path / "made.parquet").exists()
    rest, again = make()
    assert (len(rest), len(again)) == (2, 1)
    assert again[0] == replace(rest[1], seed=seed_of(rest[1].text, 4)) != rest[1], "another seed for another attempt"
    assert (again[0].temperature, again[0].max_new_tokens, again[0].stop) == (0.8, 120, ("\n",))
    rows = dataset_rows.read(tmp_path / "made.parquet")
    assert [row["fields"]["role_prompt"] for row in rows] == [f"You are{varied(i)}" for i in range(5)]
    attempts = parquet.read(tmp_path / "attempts.parquet", "synthesis").to_pylist()
    assert [row["kept"] for row in attempts] == [True] * 5 + [False] * 2
    with pytest.raises(ImprintError, match="gave a usable role prompt for 5 of 6 rows"):
        make(min_yield=0.9)
    assert len(list((tmp_path / "made.work").glob("attempt*/*.parquet"))) == 3, "what the teacher said is kept"


def test_rows_keep_their_clusters(tmp_path: Path) -> None:
    """A row of a synthesised set depends on the same rows as the row that it was made from."""
    source = tmp_path / "dialogues.parquet"
    clusters = {row["example_id"]: f"topic {i % 2}" for i, row in enumerate(dialogues(6))}
    dataset_rows.write(source, "d", [{**row, "cluster": clusters[row["example_id"]]} for row in dialogues(6)], "0")
    for plugin in ("shuffled_roles", "outlines"):
        out = tmp_path / f"{plugin}.parquet"
        spec = _rearrange.Spec(
            dataset="made", plugin=plugin, settings={"from": "d"}, inputs=Named(datasets=["d"]), limit=None
        )
        _rearrange.run(
            spec=spec, datasets=[source], runs=[], scores=[], out=out, attempts=tmp_path / "attempts.parquet"
        )
        assert {row["example_id"]: row["cluster"] for row in dataset_rows.read(out)} == clusters
    settings = role_prompts.Settings.model_validate(SETTINGS)
    made = role_prompts.rows(settings, read(dataset_rows.read(source)), teacher({0: [varied(i) for i in range(6)]}))
    assert {row["example_id"]: row["cluster"] for row in made.rows} == clusters


def test_the_source_of_a_set_is_what_it_was_made_from(tmp_path: Path) -> None:
    source = tmp_path / "dialogues.parquet"
    dataset_rows.write(source, "dialogues", dialogues(6), "0")
    sums = []
    for number, settings in enumerate(({}, {}, {"seed": 7})):
        out = tmp_path / f"{number}.parquet"
        spec = _rearrange.Spec(
            dataset="made",
            plugin="shuffled_roles",
            settings={"from": "dialogues", **settings},
            inputs=Named(datasets=["dialogues"]),
            limit=None,
        )
        attempts = tmp_path / f"{number}.attempts.parquet"
        _rearrange.run(spec=spec, datasets=[source], runs=[], scores=[], out=out, attempts=attempts)
        sums.append(parquet.read(out, "datasets")["source_sha256"][0].as_py())
    assert sums[0] == sums[1] != sums[2]


def test_rows_that_an_eval_holds_are_left_out_and_counted(tmp_path: Path) -> None:
    """The eval's rows are read whole where a limit cuts the source, so what is left shares nothing with any of them."""

    def asked(number: int, before: str = "") -> dict[str, Any]:
        words = " ".join(f"w{number}x{i}" for i in range(12))
        return {"messages": [{"role": "user", "content": f"{before}{words}?"}]}

    dataset_rows.write(tmp_path / "train.parquet", "train", [asked(i, "Well: ") for i in range(6)], "0")
    dataset_rows.write(tmp_path / "test.parquet", "test", [asked(i) for i in (0, 1, 2, 3, 9)], "0")
    paths = [tmp_path / "train.parquet", tmp_path / "test.parquet"]
    held = {row["example_id"] for row in dataset_rows.read(paths[0])[:4]}
    for limit in (None, 4):
        out, attempts = tmp_path / f"{limit}.parquet", tmp_path / f"{limit}.attempts.parquet"
        spec = _rearrange.Spec(
            dataset="made",
            plugin="without",
            settings={"from": "train", "rows_of": ["test"]},
            inputs=Named(datasets=["train", "test"]),
            limit=limit,
        )
        _rearrange.run(spec=spec, datasets=paths, runs=[], scores=[], out=out, attempts=attempts)
        source = [row["example_id"] for row in dataset_rows.read(paths[0], limit)]
        assert [row["example_id"] for row in dataset_rows.read(out)] == [name for name in source if name not in held]
        told = parquet.read(attempts, "synthesis").to_pylist()
        assert [row["example_id"] for row in told] == source
        assert all(row["kept"] == (row["example_id"] not in held) == (row["reason"] is None) for row in told)
        assert {row["reason"] for row in told if not row["kept"]} == {"a row of test, or a near copy of one"}
    every = {"train": dataset_rows.read(paths[0])[:2], "test": dataset_rows.read(paths[1])}
    with pytest.raises(ImprintError, match="dataset 'train': test hold all of its 2 rows"):
        without.rows(without.Settings.model_validate({"from": "train", "rows_of": ["test"]}), Read(every), None)
