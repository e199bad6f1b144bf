"""A row is known by its content, whatever file, name or annotation it comes with."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import one_fit
from imprint import config, leakage, tables
from imprint.errors import ImprintError
from imprint.experiment import Experiment
from imprint.methods import Inputs, sft


def row(*turns: str, reference: object = None, **fields: str) -> dict:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return {"messages": messages, "reference": reference, "fields": fields}


def test_case_punctuation_and_annotations_do_not_hide_a_row() -> None:
    train = [row("How do tides   work?", "By gravity.", role_prompt="You are a sailor.")]
    assert leakage.shared(train, [row("how do tides work")])
    assert not leakage.shared(train, [row("how do winds work")])


def test_a_later_turn_counts_but_a_stock_phrase_does_not() -> None:
    train = [
        row("Tell me about the moon.", "It is far.", "Go on.", "It is grey.", "And how do tides work then?", "Well.")
    ]
    assert leakage.shared(train, [row("And how do tides work then?")])
    assert not leakage.shared(train, [row("Tell me about Mars, please.", "Red.", "Go on.")])


@pytest.mark.parametrize("reference", [None, {}, {"options": None}, {"options": 5}, {"options": [1]}])
def test_odd_references_are_left_to_the_scores(reference: dict | None) -> None:
    assert leakage.keys({"messages": [], "reference": reference}) in (set(), {"1"})


def test_plain_text_is_known_by_itself() -> None:
    passage = {"messages": [], "reference": {"options": ["The sea was calm that night."]}}
    assert leakage.shared([passage], [passage])
    assert leakage.shared([row("The sea was calm that night")], [passage])


def test_the_job_stops_or_writes_the_table(tmp_path: Path) -> None:
    for name, rows in {"train": [row("One two three four?", "1")], "test": [row("One two, three four")]}.items():
        tables.write_dataset(tmp_path / f"{name}.parquet", name, rows, "0")
    pair = {
        "arm": "a1",
        "dataset": "train",
        "eval": "e1",
        "train": str(tmp_path / "train.parquet"),
        "held_out": str(tmp_path / "test.parquet"),
    }
    out = tmp_path / "out.parquet"
    with pytest.raises(ImprintError, match=r"arms\.a1.*'train'.*1 row.*'e1'"):
        leakage.run([{**pair, "transductive": False}], out)
    assert not out.exists()
    leakage.run([{**pair, "transductive": True}], out)
    assert tables.read(out, "contamination").to_pylist()[0]["n_shared"] == 1


def test_a_fit_on_the_runs_of_an_eval_trains_on_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    made = config.parse(one_fit())
    leakage.check(made)
    monkeypatch.setattr(sft, "inputs", lambda settings: Inputs(runs=(("base", "general"),)))
    with pytest.raises(ImprintError, match=r"arms\.tuned: trains on 'general', which shares 64 row"):
        leakage.check(made)
    assert ("tuned", "general", False) in Experiment(made).trainings()
