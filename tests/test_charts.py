"""Charts: well-formed SVG that takes its ink from the page, reaches for nothing, and comes out the same twice."""

from __future__ import annotations

import html
import re
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest

import fake_results as fake
from imprint.charts import Eval, _drawing, _job, frontier
from imprint.runtime import parquet, plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import canonical

NAMES = [
    "answers",
    "scores",
    "differences",
    "pairs",
    "frontier",
    "instruction_types",
    "loss_curves",
    "coefficients",
    "vector_similarity",
    "layers",
    "gates",
    "projections",
]
CAPTIONS = Path(__file__).parents[1] / "resources" / "captions"
TABLES = fake.tables(20)


@pytest.fixture(scope="module")
def pictures() -> dict[str, str]:
    return {name: _drawing.svg(plugins.load("charts", name).chart(TABLES, fake.ARMS, fake.EVALS)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_svg_stands_alone(pictures: dict[str, str], name: str) -> None:
    text = pictures[name]
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("class") == "imprint-chart" and root.get("viewBox")
    assert "currentColor" in text and _drawing.INK not in text and "prefers-color-scheme:dark" in text
    addresses = set(re.findall(r"https?://[^\"' <]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"<script|<image|Gradient|xlink:href", text)
    assert all(address.startswith("#browse?eval=") for address in re.findall(r'href="([^"]*)"', text))
    inks = set(re.findall(r'(?:fill|stroke)="(#[0-9a-fA-F]{3,6}|black|white)"', text))
    outcomes = {colour for colour, _ in _drawing.OUTCOMES.values()}
    assert not outcomes & set(_drawing.COLOURS), "a colour has one meaning"
    # Another ink might vanish on one of the two themes.
    assert inks <= {*_drawing.COLOURS, *outcomes, "#111111", "#FFFFFF"}


@pytest.mark.parametrize("name", NAMES)
def test_svg_is_deterministic(pictures: dict[str, str], name: str) -> None:
    module = plugins.load("charts", name)
    only = {table: TABLES[table] for table in module.TABLES}
    assert _drawing.svg(module.chart(only, fake.ARMS, fake.EVALS)) == pictures[name]


def test_ids_do_not_collide_in_one_page(pictures: dict[str, str]) -> None:
    ids = [i for text in pictures.values() for i in set(re.findall(r'\bid="([^"]+)"', text))]
    assert len(ids) == len(set(ids))
    for text in pictures.values():
        assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(re.findall(r'\bid="([^"]+)"', text))


def test_labels_name_the_arms_and_evals(pictures: dict[str, str]) -> None:
    for name in ("scores", "differences"):
        words = "".join(ElementTree.fromstring(pictures[name]).itertext())
        assert all(eval_name in words for eval_name in fake.EVALS)
        assert all(arm in words for arm in fake.ARMS)


@pytest.mark.parametrize("name", NAMES)
def test_empty_tables_give_no_chart(name: str) -> None:
    module = plugins.load("charts", name)
    empty = {table: TABLES[table].clear() for table in module.TABLES}
    assert module.chart(empty, fake.ARMS, fake.EVALS) is None
    assert _drawing.caption(CAPTIONS / f"{name}.md", module.facts(empty))


def test_arms_without_values_keep_their_row() -> None:
    failed = pl.col("arm") == "instruct"
    columns = [pl.when(failed).then(None).otherwise(pl.col(c)).alias(c) for c in ("mean", "ci_low", "ci_high")]
    picture = _drawing.svg(
        plugins.load("charts", "scores").chart(
            {**TABLES, "summary": TABLES["summary"].with_columns(columns)}, fake.ARMS, fake.EVALS
        )
    )
    assert picture.count(">instruct<") == len(fake.EVALS)


def test_a_diverged_run_and_several_seeds_are_drawn() -> None:
    more = TABLES["curves"].with_columns(seed=pl.lit(1, pl.Int64), value=pl.col("value") + 0.1)
    broken = more.with_columns(value=pl.when(pl.col("step") > 20).then(float("nan")).otherwise(pl.col("value")))
    table = {"curves": pl.concat([TABLES["curves"], broken])}
    assert "seed" in _drawing.svg(plugins.load("charts", "loss_curves").chart(table, fake.ARMS, fake.EVALS))


def test_a_loss_per_pair_has_an_axis_of_its_own() -> None:
    curves = TABLES["curves"]
    arm = curves["arm"][0]
    pairs = curves.filter(pl.col("arm") == arm).with_columns(quantity=pl.lit("reward_margin"))
    chart = plugins.load("charts", "loss_curves").chart
    per_pair, per_token = "loss (nats per pair of answers)", "loss (nats per token)"
    both = _drawing.svg(chart({"curves": pl.concat([curves, pairs])}, fake.ARMS, fake.EVALS))
    assert both.count(f">{per_pair}<") == both.count(f">{per_token}<") == 1
    assert per_pair not in _drawing.svg(chart({"curves": curves}, fake.ARMS, fake.EVALS))
    alone = _drawing.svg(chart({"curves": pl.concat([curves, pairs])}, [arm], fake.EVALS))
    assert per_pair in alone and per_token not in alone


@pytest.mark.parametrize("name", NAMES)
def test_captions_state_n_interval_and_test(name: str) -> None:
    module = plugins.load("charts", name)
    text = _drawing.caption(CAPTIONS / f"{name}.md", module.facts(TABLES))
    assert text.startswith("<p>") and "{{" not in text
    assert re.search(r"\d", text) and "interval" in text and re.search("test|verdict", text)


def test_every_figure_tells_held_out_types_apart() -> None:
    told = {**fake.EVALS, "ifeval_format": Eval("held-out instruction types", tuple(fake.TYPES))}
    for name in ("scores", "differences", "instruction_types"):
        text = _drawing.svg(plugins.load("charts", name).chart(TABLES, fake.ARMS, told))
        assert text.count(">ifeval_format: held-out instruction types<") == 1, name
        assert ": held-out" not in _drawing.svg(plugins.load("charts", name).chart(TABLES, fake.ARMS, fake.EVALS))
    some = {**fake.EVALS, "ifeval_format": Eval("2 of 6 instruction types held out", tuple(fake.TYPES[:2]))}
    text = _drawing.svg(plugins.load("charts", "instruction_types").chart(TABLES, fake.ARMS, some))
    labels = re.findall(r">(\w+:\w+) \((held out, )?n=\d+\)<", text)
    assert labels == [(kind, "") for kind in fake.TYPES[2:]] + [(kind, "held out, ") for kind in fake.TYPES[:2]]


def test_the_plot_job_reads_tables_and_writes_a_picture_and_a_caption(tmp_path: Path) -> None:
    parquet.write(tmp_path / "a.parquet", "scores", TABLES["scores"].to_arrow())
    told = Eval("held-out instruction types", tuple(fake.TYPES))
    spec = _job.Spec(
        chart="instruction_types",
        tables={"scores": [str(tmp_path / "a.parquet")]},
        arms=fake.ARMS,
        evals=[(name, told if name == "ifeval_format" else Eval()) for name in fake.EVALS],
    )
    for form in (spec, _job.Spec.model_validate_json(canonical(spec.model_dump(mode="json")))):
        _job.run(form, CAPTIONS / "instruction_types.md", tmp_path / "a.svg", tmp_path / "a.md")
        assert ">ifeval_format: held-out instruction types<" in (tmp_path / "a.svg").read_text()
        assert (tmp_path / "a.md").read_text().startswith("<p>")
    parquet.write(tmp_path / "a.parquet", "scores", [])
    _job.run(spec, CAPTIONS / "instruction_types.md", tmp_path / "a.svg", tmp_path / "a.md")
    assert (tmp_path / "a.svg").read_text() == "", "nothing to show"


def test_captions_escape_and_refuse_unknown_facts(tmp_path: Path) -> None:
    path = tmp_path / "caption.md"
    path.write_text("n = {{ n }}\n\nsecond")
    assert _drawing.caption(path, {"n": "<b>"}) == "<p>n = &lt;b&gt;</p><p>second</p>"
    with pytest.raises(ImprintError, match="cannot be filled in"):
        _drawing.caption(path, {})


def test_56_arms_look_different() -> None:
    scales = _drawing.arm_colour([str(i) for i in range(56)])
    pairs = set(zip(scales["color"].range, scales["shape"].range, strict=True))
    assert len(pairs) == 56


def test_marks_say_their_numbers_and_lead_to_their_items() -> None:
    row = TABLES["comparisons"].filter(pl.col("primary")).row(0, named=True)
    said = f"{row['arm']} minus {row['control']} on {row['eval']}, {row['metric']}: "
    address = f"#browse?eval={row['eval']}&amp;a={row['arm']}&amp;b={row['control']}&amp;show=all"
    for name in ("differences", "pairs"):
        text = _drawing.svg(plugins.load("charts", name).chart(TABLES, fake.ARMS, fake.EVALS))
        assert re.search(
            rf'<a href="{re.escape(address)}"><\w+ aria-label="{re.escape(said)}[^"]*n = \d+; won \d+', text
        )


def test_seeds_are_dots_beside_their_mean() -> None:
    more = (
        TABLES["scores"]
        .filter(pl.col("arm").is_in(fake.ARMS[2:]))
        .with_columns(seed=pl.lit(1, pl.Int64), value=pl.col("value") / 2)
    )
    tables = {**TABLES, "scores": pl.concat([TABLES["scores"], more])}
    rows = more.filter(metric="correct", arm="instruct").drop_nulls("value")
    dots = re.findall(r"instruct, seed 1: (\d\.\d+)", _svg("scores", tables))
    assert f"{rows['value'].mean():.3f}" in dots and len(dots) == len(fake.EVALS)
    assert "seed" not in _svg("scores", TABLES), "a single run has no dot of its own"
    pair = "instruct \N{MINUS SIGN} base"
    base = TABLES["scores"].filter(metric="correct", arm="base").select("example_id", pl.col("value").alias("base"))
    gap = (both := rows.join(base.drop_nulls(), on="example_id"))["value"].mean() - both["base"].mean()
    assert f"{pair}, seed 1: {gap:+.3f}".replace("-", "\N{MINUS SIGN}") in _svg("differences", tables).replace(
        "-", "\N{MINUS SIGN}"
    ), "a control with one seed stands against every seed"


def _svg(name: str, tables: dict[str, pl.DataFrame]) -> str:
    return _drawing.svg(plugins.load("charts", name).chart(tables, fake.ARMS, fake.EVALS))


def test_a_pair_has_two_cells_of_opposite_sign() -> None:
    text = _svg("pairs", {"pairs": TABLES["pairs"].filter(eval="household")})
    cells = dict(re.findall(r'aria-label="(\w+ minus \w+) on [^:]+: (\S+) ', text))
    assert len(cells) == len(fake.ARMS) * (len(fake.ARMS) - 1)
    for pair, value in cells.items():
        arm, control = pair.split(" minus ")
        assert {value[0], cells[f"{control} minus {arm}"][0]} in ({"+", "\N{MINUS SIGN}"}, {"0"}), pair


def test_questions_of_all_units_stand_in_one_picture_in_their_order() -> None:
    text = _svg("answers", TABLES)
    labels = re.findall(r">(\d \w+)<", text)
    assert labels == [f"{i} {name}" for i, name in enumerate(TABLES["answers"]["question"], 1)]
    untested = TABLES["answers"].with_columns(
        **{key: pl.lit(None, pl.Float64) for key in ("difference", "ci_low", "ci_high", "smallest")},
        verdict=pl.lit("not tested"),
    )
    assert _svg("answers", {"answers": untested}).count(">not tested ") == len(untested), "no question is left out"


def said(name: str, tables: dict[str, pl.DataFrame] = TABLES) -> set[str]:
    """The labels of the marks of a chart."""
    picture = _drawing.svg(plugins.load("charts", name).chart(tables, fake.ARMS, fake.EVALS))
    return set(re.findall(r'aria-label="([^"]*)"', picture))


def test_layers_marks_the_least_mean_and_leaves_out_what_is_not_finite() -> None:
    # The seeds have their least losses at the layers 3 and 4, and equal means there.
    assert f"{fake.ARMS[3]}, layer 3: 2.056 nats per token, mean, the least" in said("layers")
    assert f"{fake.ARMS[3]}, layer 4: 2.000 nats per token, one seed" in said("layers")
    broken = TABLES["curves"].with_columns(
        value=pl.when(pl.col("step") == 3).then(float("nan")).otherwise(pl.col("value"))
    )
    least = [label for label in said("layers", {"curves": broken}) if label.endswith("the least")]
    assert len(least) == 2 and all("layer 4" in label for label in least)


def test_gates_are_means_over_seeds_in_the_order_of_heads() -> None:
    labels = said("gates")
    assert (
        f"{fake.ARMS[4]}, layer 3, head 11: gate 0.91" in labels
        and f"{fake.ARMS[3]}, layer 0, head 0: gate 0.03" in labels
    )
    picture = _drawing.svg(plugins.load("charts", "gates").chart(TABLES, fake.ARMS, fake.EVALS))
    heads = re.findall(r'text-anchor="end"[^>]*>(\d+)<', picture)
    assert heads[:12] == [str(head) for head in range(12)], "9 comes before 10"
    assert "22 of 48 above 0.5" in picture


def test_projections_show_each_role_and_what_an_axis_of_permuted_levels_reaches() -> None:
    labels = said("projections")
    assert "role 5, level 5: 1.25" in labels
    for line in ("held-out roles, layer 5: 0.50", "permuted levels, mean size, layer 5: 0.30"):
        assert line in labels
    assert {"permuted levels, 95% point, layer 0: 0.50", "words of the descriptions, layer 3: 0.80"} <= labels


def test_the_names_of_a_frontier_cover_nothing() -> None:
    """Five arms at one place, and one at the right end with a name that is long."""
    ends = {"kept_low": -0.1, "kept_high": 0.1, "gain_low": 0.9, "gain_high": 1.1}
    at_one = [{"arm": f"arm_{number}", "kept": 0.0, "gain": 1.0, **ends} for number in range(5)]
    right = {"arm": "an_arm_with_a_long_name", "kept": 0.1, "gain": 0.0, **ends}
    placed = frontier._named([*at_one, right])
    first = [(mark["dx"] > 0, mark["dy"]) for mark in placed[:5]]
    assert len(set(first)) == 5, "each name has a place of its own"
    assert placed[5]["dx"] < 0, "it would leave the picture on the right"


def test_a_difference_of_nothing_has_its_mark() -> None:
    """Plain text is read without a prompt, so an arm that is only prompted differs from its base on no example."""
    same = {"arm": "a", "control": "b", "eval": "e", "metric": "m", "direction": 1, "difference": 0.0, "primary": True}
    table = pl.DataFrame([{**same, "ci_low": None, "ci_high": None}])
    (row,) = frontier._against_first_control(table)
    row |= {"n_pairs": 4, "n_seeds": 1, "wins": 0, "losses": 0, "ties": 4}
    mark = frontier._mark(row, row)
    assert (mark["kept_low"], mark["kept"], mark["kept_high"]) == (0.0, 0.0, 0.0)


def test_a_frontier_is_drawn_so_that_up_and_right_are_better() -> None:
    """Nats a token are better if they are lower, so the worst of them lies to the left."""
    rows = {(row["eval"], row["arm"]): row for row in frontier._against_first_control(TABLES["comparisons"])}
    gain, loss = rows["sums", "instruct"], rows["plain_text", "instruct"]
    mark = frontier._mark(gain, loss)
    assert (mark["gain"], mark["kept"]) == (gain["difference"], -loss["difference"])
    assert mark["kept_low"] == -loss["ci_high"] < mark["kept"] < mark["kept_high"] == -loss["ci_low"]
    picture = _drawing.svg(frontier.chart(TABLES, fake.ARMS, fake.EVALS))
    gaining = [name for name, ev in fake.EVALS.items() if not ev.retention]
    assert all(f">{name}<" in picture for name in gaining) and picture.count(">self_prompt<") == len(gaining)
    pairs = set(
        re.findall(r'aria-label="(\w+) minus (\w+) on (\w+), [^"]*What should be kept: \w+ minus \w+ on', picture)
    )
    first = {(arm, controls[0], ev) for arm, controls in fake.CONTROLS.items() for ev in gaining}
    assert pairs == first, "each against its first control"
    controls = {control for _, control, _ in first}
    assert ("0 is each arm's first control" if len(controls) > 1 else f"0 is {controls.pop()}") in html.unescape(
        picture
    )
    assert frontier.chart(TABLES, fake.ARMS, dict.fromkeys(fake.EVALS, Eval())) is None, "nothing is to be kept"
