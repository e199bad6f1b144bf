"""What lets tables grow: texts as dictionaries, columns that are read alone, statistics that number texts, and a report
that reads texts when it shows them. All give what the plain way gives."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student

import fake_results as fake
from imprint.report import browser
from imprint.report.responses import LIGHT, InMemory, OnDisk
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.statistics import aggregate
from imprint.statistics.looks import Z

TABLES = fake.tables(24)
ARMS = {"base": ["quiz"], "tuned": ["quiz"]}
QUIZ = {"quiz": {"right": (True, 1), "cost": (False, -1)}}

# ---- reading


def test_coded_texts_and_single_columns_hold_what_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    parquet.write(path, "scores", TABLES["scores"].to_dicts())
    whole, coded = parquet.read(path, "scores"), parquet.read(path, "scores", coded=True)
    assert coded.cast(whole.schema) == whole and pa.types.is_dictionary(coded["metric"].type)
    some = parquet.read(path, "scores", ("value", "arm"))
    assert some == whole.select(["arm", "value"]), "in the order of the table"
    twice = parquet.concat([path, path], "scores", ("arm", "item_label"), coded=True)
    assert twice.cast(some.schema.remove(1).append(whole.schema.field("item_label"))).num_rows == 2 * len(whole)
    assert parquet.concat([], "scores", ("arm",), coded=True).schema.names == ["arm"]


@pytest.mark.parametrize(
    ("column", "content", "said"),
    [
        ("metric", pa.array([b"\xff\xfe"]), "the column 'metric' is not string"),
        ("status", pa.array([["scored"]]), "the column 'status' is not string"),
        ("metric", pa.array([None], pa.string()), "the column 'metric' is empty in 1 rows"),
        ("item_label", None, "has the columns arm, seed, .*, but a 'scores' table has"),
        ("arm", pa.array(["other"]), "holds rows of arm 'other' instead of 'base'"),
    ],
)
def test_coded_texts_are_checked_like_plain_ones(
    column: str, content: pa.Array | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "scores/base/seed0/quiz.parquet"
    parquet.write(path, "scores", [fake.score("base", "quiz", "0-0", "right", 1.0)])
    table = pq.ParquetFile(path).read()
    place = table.schema.get_field_index(column)
    pq.write_table(table.drop_columns(column) if content is None else table.set_column(place, column, content), path)
    for coded in (False, True):
        with pytest.raises(ImprintError, match=said):
            parquet.read(path, "scores", coded=coded)


# ---- statistics

runs = st.sampled_from([("base", 0), ("tuned", 0), ("tuned", 1)])
kept = st.fixed_dictionaries(
    {
        "run": runs,
        "example": st.integers(0, 5),
        "sample": st.integers(0, 1),
        "metric": st.sampled_from(["right", "cost"]),
        "item": st.one_of(st.none(), st.integers(0, 1)),
        "value": st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0])),
        "truncated": st.booleans(),
    }
)


def scores(drawn: list[dict[str, Any]]) -> pl.DataFrame:
    """Score rows with one key each."""
    rows = {}
    for each in drawn:
        (arm, seed), example = each["run"], f"{each['example']:02d}-0"
        more = {"seed": seed, "sample": each["sample"], "item": each["item"], "truncated": each["truncated"]}
        row = fake.score(arm, "quiz", example, each["metric"], each["value"], **more)
        rows[arm, seed, example, each["sample"], each["metric"], each["item"]] = row
    return fake.frame("scores", list(rows.values()))


def tables(frame: pl.DataFrame | pa.Table, examples: pl.DataFrame) -> tuple[list[Any], list[Any]]:
    table = aggregate.Table(frame, examples, ARMS, QUIZ, ["tuned"])
    return aggregate.summarize(table), aggregate.compare(table, {"tuned": ["base"]})


@given(st.lists(kept, max_size=60), st.randoms(use_true_random=False))
def test_neither_codes_nor_the_order_of_rows_change_a_number(drawn: list[Any], order: random.Random) -> None:
    frame = scores(drawn)
    examples = fake.examples(frame)
    expected = tables(frame, examples)
    places = list(range(len(frame)))
    order.shuffle(places)
    shuffled = frame[places].to_arrow().cast(parquet.empty("scores").schema)
    assert tables(shuffled.cast(parquet.empty("scores", coded=True).schema), examples) == expected


@given(st.lists(kept, max_size=60))
def test_summaries_are_plain_sums(drawn: list[Any]) -> None:
    """Counts, and the mean over the items that have a value in every row and seed."""
    frame = scores(drawn)
    for found in tables(frame, fake.examples(frame))[0]:
        rows = [row for row in frame.to_dicts() if (row["arm"], row["metric"]) == (found["arm"], found["metric"])]
        with_value = [row for row in rows if row["value"] is not None]
        assert (found["n_attempted"], found["n_scored"]) == (len(rows), len(with_value))
        assert found["n_error"] == len(rows) - len(with_value)
        assert found["n_truncated"] == sum(row["truncated"] for row in with_value)
        assert found["n_examples"] == len({row["example_id"] for row in rows})
        of_metric = [row for row in frame.to_dicts() if row["metric"] == found["metric"]]
        divided = {row["example_id"] for row in of_metric if row["item"] is not None}
        cells: dict[Any, dict[int, list[float | None]]] = defaultdict(lambda: defaultdict(list))
        lost = {(row["seed"], row["example_id"]) for row in rows if row["value"] is None and row["item"] is None}
        for row in rows:
            if row["item"] is not None or row["example_id"] not in divided:
                failed = (row["seed"], row["example_id"]) in lost
                cells[row["example_id"], row["item"]][row["seed"]].append(None if failed else row["value"])
        seeds = {row["seed"] for row in rows}
        means = [
            sum(sum(values) / len(values) for values in of_seeds.values()) / len(seeds)  # type: ignore[arg-type]
            for of_seeds in cells.values()
            if of_seeds.keys() == seeds and all(None not in values for values in of_seeds.values())
        ]
        assert found["mean"] == (pytest.approx(sum(means) / len(means)) if means else None)


SCORED = aggregate.Table(TABLES["scores"], fake.examples(TABLES["scores"]), fake.SETUP, fake.METRICS, fake.FITTED)


@given(st.floats(1, 1e6), st.floats(0, 8))
def test_tails_are_those_of_scipys_distributions(df: float, t: float) -> None:
    measured = SCORED.contrast("plain_text", "nats_per_token", "instruct", "base")
    assert measured and not measured.score
    moved = replace(measured, df=df, difference=t * measured.se)
    assert moved.critical(Z) == float(student.isf(norm.sf(Z), df))
    assert moved.statistic(0.0) == pytest.approx(float(norm.isf(student.sf(abs(t), df))), rel=1e-9, abs=1e-12)


# ---- the report


def on_disk(folder: Path, whole: dict[str, pl.DataFrame]) -> OnDisk:
    """The responses as files of runs; every run's prompts stand in a file of their own."""
    paths: dict[str, list[Path]] = {"generations": [], "prompts": []}
    for (arm, seed, name), rows in whole["generations"].partition_by("arm", "seed", "eval", as_dict=True).items():
        of_run = {"generations": rows, "prompts": whole["prompts"].join(rows, "prompt_sha256", "semi")}
        for table, part in of_run.items():
            path = folder / f"{table}/{arm}/seed{seed}/{name}.parquet"
            parquet.write(path, table, part.to_dicts())
            paths[table].append(path)
    return OnDisk(**paths)


@pytest.mark.parametrize("at_once", [0, 5_000, 10**9])
def test_a_page_from_files_is_the_page_from_memory(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "AT_ONCE", at_once)
    monkeypatch.setattr(browser, "BLOCK", 7)
    other = TABLES["generations"].with_columns(seed=pl.lit(1, pl.Int64), response=pl.lit("of another seed"))
    first, composed = pl.col("example_id") == fake.example("sums", 0), pl.lit(None, pl.String)
    generations = pl.concat([TABLES["generations"], other]).with_columns(
        prompt_sha256=pl.when(first).then(composed).otherwise("prompt_sha256"), state=pl.lit('{"turns": 1}')
    )
    whole = {**TABLES, "generations": generations}
    responses = on_disk(tmp_path, whole)
    expected = browser.collect(whole, fake.facts(), browser.BUDGET)
    parquet.write(tmp_path / "scores.parquet", "scores", TABLES["scores"].to_dicts())
    coded = pl.DataFrame(pl.from_arrow(parquet.read(tmp_path / "scores.parquet", "scores", coded=True)))
    light = {name: frame for name, frame in whole.items() if name not in ("generations", "prompts")}
    assert browser.collect({**light, "scores": coded}, fake.facts(), browser.BUDGET, responses) == expected
    assert sum(len(ev["blocks"]) for ev in expected["evals"].values()) == 16


def test_responses_on_disk_hold_no_texts(tmp_path: Path) -> None:
    responses, memory = on_disk(tmp_path, TABLES), InMemory(TABLES)
    assert set(responses.rows.columns) == {*LIGHT, "size", "file", "row"}
    assert responses.rows["size"].sum() == memory.rows["size"].sum()
    some = responses.rows.sample(20, seed=0)
    keys = ("arm", "eval", "example_id", "sample")
    texts = responses.with_texts(some).select(pl.col(keys).cast(pl.String), "response", "prompt")
    plain = memory.with_texts(memory.rows).select(pl.col(keys).cast(pl.String), "response", "prompt")
    assert (
        texts.rows()
        == some.select(pl.col(keys).cast(pl.String)).join(plain, keys, "left", maintain_order="left").rows()
    )


def test_a_broken_file_of_responses_is_named(tmp_path: Path) -> None:
    on_disk(tmp_path, TABLES)
    path = tmp_path / "generations/base/seed0/sums.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(ImprintError, match=r"sums\.parquet is not a readable Parquet file"):
        OnDisk([path], [])


def test_an_experiment_that_asks_nothing_has_no_responses() -> None:
    """As one that only looks into its models."""
    nothing = OnDisk([], [])
    assert nothing.rows.is_empty() and set(LIGHT) <= set(nothing.rows.columns)
    assert nothing.with_texts(nothing.rows).is_empty()
