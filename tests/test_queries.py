"""The database of a small experiment: its view of responses, what its arms and evals are, the queries of docs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import fake_results as fake
from conftest import ROOT
from imprint.config import loading, strict_yaml
from imprint.dag import described
from imprint.runtime import parquet
from imprint.tables import database, dataset_rows

N = 24
PAGE = (ROOT / "docs/queries.md").read_text(encoding="utf-8")
QUERIES = dict(re.findall(r"(?ms)^## (\d+\. .+?)$.*?^```sql\n(.*?)^```", PAGE))
ASKS = {ev: "loglikelihood" if ev in ("household", "plain_text") else "generate" for ev in fake.EVALS}
FIT = '{"context":[],"method":"sft","settings":{"data":"dialogues","learning_rate":0.001}}'
PART = "The part that is scored."


def described_arms() -> list[database.Arm]:
    return [
        database.Arm(
            arm=arm,
            what=arm,
            parent="base" if arm in fake.FITTED else None,
            model="smollm2",
            method="sft" if arm in fake.FITTED else None,
            fit=FIT if arm in fake.FITTED else None,
            apply="{}",
            runs=None,
            control=fake.CONTROLS.get(arm, []),
            transductive=False,
        )
        for arm in fake.ARMS
    ]


def described_evals() -> list[database.Eval]:
    rows = []
    for name in fake.EVALS:
        ((metric, direction),) = [(m, way) for m, (primary, way) in fake.METRICS[name].items() if primary]
        rows.append(
            database.Eval(
                eval=name,
                dataset=f"rows_of_{name}",
                responses=name,
                score=name,
                asks=ASKS[name],
                primary_metric=metric,
                direction=direction,
                retention=name == "plain_text",
                settings="{}",
            )
        )
    return rows


def picked(scores: pl.DataFrame) -> pl.DataFrame:
    """Verdicts on the choice of an option: the second of three, unless the arm failed."""
    rows = scores.filter((pl.col("metric") == "accuracy") & pl.col("value").is_not_null()).to_dicts()
    places = [
        {**row, "metric": "picked", "item": place, "value": float(place == 1)} for row in rows for place in range(3)
    ]
    return fake.frame("scores", places)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """Made-up tables with all that a run has: choices, a dataset for each eval, and parts that are scored."""
    made = fake.tables(N)
    scores = pl.concat([made["scores"], picked(made["scores"])])
    datasets = []
    for ev in fake.EVALS:
        for i in range(N):
            turns = [("user", "An earlier question."), ("assistant", "Yes."), ("user", f"Question {i} of {ev}?")]
            messages = [{"role": role, "content": content} for role, content in turns]
            row = {"dataset": f"rows_of_{ev}", "example_id": fake.example(ev, i), "messages": messages}
            row |= {"reference": f'"{i}"', "fields": "{}", "strata": "{}", "source_sha256": ""}
            datasets.append({**row, "cluster": dataset_rows.cluster(str(row["example_id"]))})
    written = made["generations"].filter((pl.col("arm") == "self_prompt") & (pl.col("eval") == "ifeval_format"))
    parts = written.select("arm", "seed", "eval", "example_id", "sample", text=pl.lit(PART))
    return {**made, "scores": scores, "datasets": fake.frame("datasets", datasets), "scored_texts": parts}


@pytest.fixture(scope="module")
def db(
    tables: dict[str, pl.DataFrame], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Prompts are in two files, as they are where two arms are asked the same."""
    folder = tmp_path_factory.mktemp("tables")
    files: dict[str, Path | list[Path]] = {}
    for name, table in tables.items():
        files[name] = folder / f"{name}.parquet"
        parquet.write(folder / f"{name}.parquet", name, table.to_arrow())
    files["prompts"] = [folder / "prompts.parquet", folder / "again.parquet"]
    parquet.write(folder / "again.parquet", "prompts", tables["prompts"].to_arrow())
    path = folder / "imprint.duckdb"
    database.run(database.Spec(arms=described_arms(), evals=described_evals()), path, files)
    with duckdb.connect(str(path), read_only=True) as connection:
        yield connection


def test_there_are_ten_queries() -> None:
    assert [name.split(".")[0] for name in QUERIES] == [str(i) for i in range(1, 11)]
    assert PAGE.count("```sql") == 10


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_of_the_page_has_an_answer(name: str, db: duckdb.DuckDBPyConnection) -> None:
    answer = db.sql(QUERIES[name]).pl()
    assert len(answer), "no row"
    empty = [column for column in answer.columns if answer[column].null_count() == len(answer)]
    assert not empty, f"nothing in {empty}"


def test_the_queries_say_what_the_tables_hold(db: duckdb.DuckDBPyConnection, tables: dict[str, pl.DataFrame]) -> None:
    def asked(number: int) -> list[tuple[Any, ...]]:
        (query,) = [text for name, text in QUERIES.items() if name.startswith(f"{number}.")]
        return db.execute(query).fetchall()

    assert [row[0] for row in asked(1)] == fake.FITTED and asked(1)[0][1:5] == ("base", "sft", "dialogues", "0.001")
    assert len(asked(2)) == len(fake.ARMS) * len(fake.EVALS)
    assert len(asked(3)) == len(fake.QUESTIONS)
    strict = tables["scores"].filter((pl.col("eval") == "ifeval_format") & (pl.col("metric") == "prompt_strict"))
    values = strict.pivot("arm", index="example_id", values="value")
    right = values.filter((pl.col("self_prompt") == 1) & (pl.col("base") == 0))["example_id"].to_list()
    numbers = {fake.example("ifeval_format", i): i for i in range(N)}
    won = asked(4)
    assert sorted(row[1] for row in won) == sorted(f'"{numbers[example]}"' for example in right) and right
    assert {row[2] for row in won} == {PART} and all("base answers" in row[3] or "<b>" in row[3] for row in won)
    hard = {(row[0], row[1]) for row in asked(5)}
    best = values.select("example_id", pl.max_horizontal(fake.ARMS).alias("best")).filter(pl.col("best") == 0)
    assert {example for ev, example in hard if ev == "ifeval_format"} == set(best["example_id"])
    shares = {(arm, ev): (count, failed) for arm, ev, count, _, failed, _ in asked(6)}
    assert shares["role_play", "sums"] == (N, pytest.approx(2 / N)) and shares["base", "sums"] == (N, 0)
    assert len(asked(7)) == N and {row[2] for row in asked(7)} == {PART}
    assert {row[1] for row in asked(8)} <= set(fake.TYPES)
    assert sum(row[4] for row in asked(9)) == tables["costs"]["tokens"].sum()
    assert all(first > last and steps == 55 for *_, first, last, steps in asked(10))


def test_a_response_is_one_row_and_has_the_value_of_the_primary_metric(
    db: duckdb.DuckDBPyConnection, tables: dict[str, pl.DataFrame]
) -> None:
    rows = db.sql("from responses").pl()
    assert len(rows) == len(fake.ARMS) * len(fake.EVALS) * N
    assert rows.select("arm", "seed", "eval", "example_id", "sample").is_duplicated().sum() == 0
    assert rows["question"].str.contains("^Question ").all() and rows["reference"].null_count() == 0
    primary = {row.eval: row.primary_metric for row in described_evals()}
    for (ev,), part in rows.group_by("eval"):
        expected = tables["scores"].filter((pl.col("eval") == ev) & (pl.col("metric") == primary[str(ev)]))
        both = part.join(expected, ["arm", "seed", "eval", "example_id", "sample"], suffix="_expected")
        assert len(both) == len(part) and both["value"].equals(both["value_expected"], null_equal=True)
        assert (both["status"] == both["status_expected"]).all()
    sums = rows.filter(pl.col("eval") == "sums")
    assert sums["prompt"].str.contains("of sums, with").all() and (sums["scored_answer"] == sums["response"]).all()
    options = rows.filter((pl.col("eval") == "household") & pl.col("value").is_not_null())
    assert set(options["response"]) == {"a brick"}, "the option that was picked"
    texts = rows.filter(pl.col("eval") == "plain_text")
    assert texts["response"].null_count() == len(texts), "nothing is chosen among the texts of one row"


def test_an_eval_that_scores_the_responses_of_another_has_rows_of_its_own(
    tables: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    evals = {row.eval: row for row in described_evals()}
    second = evals["ifeval_format"].model_copy(update={"eval": "again"})
    only_samples = evals["sums"].model_copy(update={"score": "", "primary_metric": "", "direction": 0})
    again = tables["scores"].filter(pl.col("eval") == "ifeval_format").with_columns(eval=pl.lit("again"))
    scores = pl.concat([tables["scores"].filter(pl.col("eval") != "sums"), again.with_columns(value=pl.lit(0.25))])
    files: dict[str, Path | list[Path]] = {}
    for name, table in {**tables, "scores": scores}.items():
        files[name] = tmp_path / f"{name}.parquet"
        parquet.write(tmp_path / f"{name}.parquet", name, table.to_arrow())
    spec = database.Spec(arms=described_arms(), evals=[*(evals | {"sums": only_samples}).values(), second])
    database.run(spec, tmp_path / "x.duckdb", files)
    with duckdb.connect(str(tmp_path / "x.duckdb"), read_only=True) as connection:
        rows = connection.sql("select * from responses").pl()
    first, other = (
        rows.filter(pl.col("eval") == name).sort("arm", "example_id") for name in ("ifeval_format", "again")
    )
    assert first["response"].equals(other["response"]) and len(first)
    assert set(other["value"].drop_nulls()) == {0.25}
    drawn = rows.filter(pl.col("eval") == "sums")
    assert len(drawn) and drawn["value"].null_count() == len(drawn)


def test_no_key_is_null(db: duckdb.DuckDBPyConnection) -> None:
    keys = {
        "scores": ("arm", "seed", "eval", "example_id", "sample", "metric", "item"),
        "costs": ("arm", "seed", "stage", "eval"),
        "coefficients": ("arm", "seed", "vector", "layer", "kind", "block", "part"),
        "analyses": ("analysis", "seed", "arm", "other", "layer", "kind", "quantity"),
        "generations": ("arm", "seed", "eval", "example_id", "sample", "turn"),
        "curves": ("arm", "seed", "step", "quantity"),
        "summary": ("arm", "eval", "metric"),
    }
    for table, columns in keys.items():
        (rows,) = db.execute(f"select count(*) from {table}").fetchone() or (0,)
        (joined,) = db.execute(
            f"select count(*) from {table} a semi join {table} b using ({', '.join(columns)})"
        ).fetchone() or (0,)
        assert rows == joined > 0, table
    assert db.execute("select count(*) from scores where item = -1").fetchone() != (0,)
    assert db.execute("select count(*) from costs where eval = '' and stage = 'train'").fetchone() == (3,)


def test_a_view_holds_no_rows_of_its_own(db: duckdb.DuckDBPyConnection) -> None:
    """So the examples of a gated dataset are in its own file alone."""
    kinds = dict(db.execute("select table_name, table_type from information_schema.tables").fetchall())
    views = {name for name, kind in kinds.items() if kind == "VIEW"}
    assert views == {*database.FILES, "verdicts", "responses"} - {"judgements"}, "there are no judgements here"


def test_the_arms_and_evals_of_a_config_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    raw = strict_yaml.load(ROOT / "tests/pico.yaml")
    spec = described.spec(loading.parse({**raw, "models": {"pico": {"hub": "a/b", "revision": "0" * 40}}}))
    arms = {row.arm: row for row in spec.arms}
    assert list(arms) == ["base", "instruct", "shuffled"]
    assert (arms["base"].model, arms["base"].parent, arms["base"].fit) == ("pico", None, None)
    fitted = arms["shuffled"]
    assert (fitted.model, fitted.parent, fitted.method, fitted.control) == ("pico", "base", "sft", ["instruct"])
    assert fitted.fit and '"data":"dialogues_shuffled"' in fitted.fit and '"name":"self_role"' in fitted.fit
    assert '"name":"self_role"' in fitted.apply and "dialogues_shuffled" in fitted.what
    evals = {row.eval: row for row in spec.evals}
    general, constraints = evals["general"], evals["constraints"]
    assert (general.asks, general.primary_metric, general.direction) == ("loglikelihood", "accuracy", 1)
    assert (constraints.score, constraints.dataset, constraints.retention) == ("ifeval", "constraints", False)
    assert '"max_new_tokens":24' in constraints.settings
