"""A row is known by its content, whatever file, name or annotation it comes with."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import one_fit
from imprint.config import loading
from imprint.dag import leakage
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.methods import sft
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs
from imprint.tables import contamination, dataset_rows


def row(*turns: str, reference: object = None, **fields: str) -> dict:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return {"messages": messages, "reference": reference, "fields": fields}


def test_case_punctuation_and_annotations_do_not_hide_a_row() -> None:
    train = [row("How do tides   work?", "By gravity.", role_prompt="You are a sailor.")]
    assert contamination.shared(train, [row("how do tides work")])
    assert not contamination.shared(train, [row("how do winds work")])


def test_a_later_turn_counts_but_a_stock_phrase_does_not() -> None:
    train = [
        row("Tell me about the moon.", "It is far.", "Go on.", "It is grey.", "And how do tides work then?", "Well.")
    ]
    assert contamination.shared(train, [row("And how do tides work then?")])
    assert not contamination.shared(train, [row("Tell me about Mars, please.", "Red.", "Go on.")])


@pytest.mark.parametrize("reference", [None, {}, {"options": None}, {"options": 5}, {"options": [1]}])
def test_odd_references_are_left_to_the_scores(reference: dict | None) -> None:
    assert contamination.keys({"messages": [], "reference": reference}) in (set(), {"1"})


def test_plain_text_is_known_by_itself() -> None:
    passage = {"messages": [], "reference": {"options": ["The sea was calm that night."]}}
    assert contamination.shared([passage], [passage])
    assert contamination.shared([row("The sea was calm that night")], [passage])


def test_the_job_stops_or_writes_the_table(tmp_path: Path) -> None:
    for name, rows in {"train": [row("One two three four?", "1")], "test": [row("One two, three four")]}.items():
        dataset_rows.write(tmp_path / f"{name}.parquet", name, rows, "0")
    train, held_out = (str(tmp_path / f"{name}.parquet") for name in ("train", "test"))
    strict, allowed = (
        contamination.Pair(
            arm="a1", dataset="train", train=train, transductive=transductive, eval="e1", held_out=held_out
        )
        for transductive in (False, True)
    )
    out = tmp_path / "out.parquet"
    with pytest.raises(ImprintError, match=r"arms\.a1.*'train'.*1 row.*'e1'"):
        contamination.run(contamination.Spec(pairs=[strict]), out)
    assert not out.exists()
    contamination.run(contamination.Spec(pairs=[allowed]), out)
    assert parquet.read(out, "contamination").to_pylist()[0]["n_shared"] == 1


def test_a_fit_on_the_runs_of_an_eval_trains_on_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    made = loading.parse(one_fit())
    leakage.check(made)
    monkeypatch.setattr(sft, "inputs", lambda settings: Inputs(runs=(("base", "general"),)))
    with pytest.raises(ImprintError, match=r"arms\.tuned: trains on 'general', which shares 64 row"):
        leakage.check(made)
    assert ("tuned", "general") in Experiment(made).trainings
    (pair,) = all_jobs(Experiment(made))["check_leakage"].spec(()).pairs
    assert (pair.arm, pair.dataset, pair.eval, pair.transductive) == ("tuned", "general", "general", False)
