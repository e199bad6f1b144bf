"""Rules that answer COAT's questions of states without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from imprint.analyses import _job, coat_rules
from imprint.datasets import coat
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named

PATHS = {path.name: path for path in (ROOT / "resources/bundled/coat").iterdir()}


def analysed(tmp_path: Path, **datasets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `coat_rules` on datasets, as the job writes them."""
    paths = [tmp_path / f"{name}.parquet" for name in datasets]
    for path, rows in zip(paths, datasets.values(), strict=True):
        dataset_rows.write(path, path.stem, rows, "0")
    settings = {"datasets": list(datasets)}
    inputs = [(0, Named(datasets=list(datasets)))]
    spec = _job.Spec(analysis="rules", plugin="coat_rules", settings=settings, inputs=inputs, limit=None)
    _job.run(spec, paths, [], tmp_path / "rules.parquet")
    return parquet.read(tmp_path / "rules.parquet", "analyses").to_pylist()


def state(use: str, condition: str, temperature: str = "RoomTemp") -> dict[str, str]:
    return {
        **{"object_name": "Mug", "mass": "light", "material": "Metal"},
        **{"temperature": temperature, "already_in_use": use, "condition": condition},
    }


def test_a_rule_takes_the_least_and_shares_ties(tmp_path: Path) -> None:
    states = [
        state("reversible-using", "clean"),
        state("free", "dirty"),
        state("free", "clean", "Hot"),
        state("free", "clean"),
    ]
    row = {
        "messages": [{"role": "user", "content": "Which?"}],
        "reference": {"options": ["a", "b", "c", "d"], "answer": 2},
        "fields": {"states": states, "penalties": [[80, 0], [50, 0], [0, 20], [100, 0]]},
    }
    rules = coat_rules.costs(row)
    assert rules["free_and_clean"] == [1, 1, 0, 0]
    assert rules["fewest_state_penalties"] == [80, 50, 0, 0]
    assert rules["least_time"] == [80, 50, 0, 100] and rules["best_material"] == [0, 0, 20, 0]
    accuracies = {each["arm"]: each["value"] for each in analysed(tmp_path, one=[row])}
    assert accuracies == {"free_and_clean": 0.5, "fewest_state_penalties": 0.5, "least_time": 1, "best_material": 0}
    assert coat_rules.credit([0, 0, 0, 0], 1) == 0.25


def test_the_table_has_every_rule_and_chance(tmp_path: Path) -> None:
    ideal = list(coat.rows(coat.Settings(task="1", options=4, n=80), PATHS))
    best = list(coat.rows(coat.Settings(task="2", variation="v9", items="published", n=60), PATHS))
    without = [{**row, "fields": {"states": row["fields"]["states"]}} for row in ideal]
    rows = analysed(tmp_path, ideal=ideal, best=best, without=without)
    assert {(row["other"], row["null"]) for row in rows} == {("ideal", 0.25), ("best", 1 / 3), ("without", 0.25)}
    rules = {name: {row["arm"] for row in rows if row["other"] == name} for name in ("ideal", "best", "without")}
    assert rules["ideal"] == rules["best"] == {*coat_rules.OF_STATES, *coat_rules.OF_PENALTIES}
    assert rules["without"] == set(coat_rules.OF_STATES)
    assert all(0 <= row["value"] <= 1 and row["quantity"] == "accuracy" for row in rows)
    # An ideal configuration costs no time, so this rule is right unless a wrong one costs none either.
    assert next(row["value"] for row in rows if (row["arm"], row["other"]) == ("least_time", "ideal")) > 0.5


def test_a_dataset_without_states_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="dataset 'objects' has questions whose choices have no states"):
        analysed(tmp_path, objects=list(coat.rows(coat.Settings(task="u", options=2, n=4), PATHS)))
