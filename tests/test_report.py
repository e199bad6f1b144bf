"""The report: what it says, that model text stays text, and that it works in a real browser from a file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

import fake_results as fake
from imprint.report import page
from imprint.runtime.errors import ImprintError

TEMPLATE = Path(__file__).parents[1] / "resources" / "report.html.jinja"
CHARTS = {"Scores": ("<svg class='imprint-chart'></svg>", "<p>n = 3</p>"), "Training loss": (None, "<p>none</p>")}
TABLES = fake.tables(24)


def render(tables: dict[str, pl.DataFrame] | None = None, **more: Any) -> str:
    return page.render(TEMPLATE, tables or TABLES, CHARTS, fake.facts(**more), fake.PROVENANCE)


class Page(HTMLParser):
    """Tags, attributes and scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and data.strip():
            self.scripts.append(data)


@pytest.fixture(scope="module")
def html() -> str:
    return render()


def test_one_file_without_addresses(html: str) -> None:
    page = Page(html)
    assert not {"img", "link", "iframe", "object", "embed"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "srcset", "action", "data", "xlink:href")]
    assert all(value and value.startswith("#") for name, value in page.attributes if name == "href")
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML|document\.write|eval\(", html)
    assert "default-src 'none'" in html


def test_hostile_text_cannot_leave_the_data(html: str) -> None:
    assert html.count("</script>") == 2
    data, script = Page(html).scripts
    assert "<" not in data and "&" not in data
    assert "textContent" in script
    assert "base &lt;i&gt;in words&lt;/i&gt;" in html


def test_says_verdicts_counts_licences_and_versions(html: str) -> None:
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    for said in (
        "self_prompt against base",
        "kept",
        "Take three seeds or more",
        "undecided",
        "won / lost / tied",
        "95% interval, marginal",
    ):
        assert said in text
    for said in ("Apache-2.0", "torch 2.13.0", "attempted = scored + error", "leak", "Nothing to show", "seed 0"):
        assert said in text
    assert "limit:" not in text
    assert "limit: 32" in re.sub(r"<[^>]+>", "", render(limit=32))


def test_leaks_are_counted_and_listed(html: str) -> None:
    assert "no example of an eval is also in a training set" in html
    pairs = TABLES["contamination"].with_columns(n_shared=pl.lit(1), n_near=pl.lit(59))
    arm, ev = fake.ARMS[2], next(iter(fake.EVALS))
    names = {"arm": arm, "dataset": "dialogues", "eval": ev}
    rows = [
        {**names, "example_id": f"e{i}-0", "train_example_id": f"t{i}-0", "overlap": 1 - i / 100, "equal": i == 0}
        for i in range(60)
    ]
    leaks = {"contamination": pairs, "contamination_rows": fake.frame("contamination_rows", rows)}
    text = " ".join(re.sub(r"<[^>]+>", " ", render({**TABLES, **leaks})).split())
    assert "some examples of an eval are also in a training set" in text
    assert f"{arm} dialogues {ev} e0-0 t0-0 equal {arm} dialogues {ev} e1-0 t1-0 0.990" in text
    assert "e49-0 t49-0 0.510 These are the first 50 of 60." in text and "e50-0" not in text


def test_every_summary_row_is_there(html: str) -> None:
    table = html[html.index('<table class="dense">') :]
    table = table[: table.index("</table>")]
    assert table.count("<tr><td>") == len(TABLES["summary"])


def test_same_tables_same_bytes(html: str) -> None:
    assert render() == html


def test_transductive_arms_are_stamped() -> None:
    arms = [{**vars(arm), "transductive": arm.name == "instruct"} for arm in fake.facts().arms]
    assert "adapted on the eval" in render(arms=arms)
    assert "adapted on the eval" not in render()


def test_says_what_scored_an_eval() -> None:
    named = pl.when(pl.col("eval") == "sums").then(pl.lit("code 1, isolated by namespaces")).otherwise("eval_version")
    text = render({**TABLES, "scores": TABLES["scores"].with_columns(eval_version=named)})
    assert "<td>code 1, isolated by namespaces</td>" in text


def test_evals_of_held_out_types_are_told_apart() -> None:
    told = [{**vars(item), "distribution": "held-out types" * (item.name == "sums")} for item in fake.facts().evals]
    text = render(evals=told)
    assert text.count('sums <span class="soft">(held-out types)</span>') > 5
    assert "(held-out types)" not in render() and 'household <span class="soft">(' not in text


def test_examples_that_may_not_be_spread_are_left_out() -> None:
    whole = render()
    text = render(evals=[{**vars(item), "private": item.name == "sums"} for item in fake.facts().evals])
    evals, others = (json.loads(Page(page).scripts[0])["evals"] for page in (whole, text))
    assert set(evals) - set(others) == {"sums"}
    assert all(others[name] == evals[name] for name in others), "the other evals' examples stay"
    assert "Nothing of sums is shown here" in text and "Nothing of" not in whole


def test_empty_tables_still_make_a_report() -> None:
    empty = {name: table.clear() for name, table in TABLES.items()}
    text = render(empty)
    assert "nothing is compared" in text and "No arm was trained" in text and "side by side</h2>" not in text


def test_missing_tables_and_wrong_facts_are_errors() -> None:
    with pytest.raises(ImprintError, match="needs the table"):
        render({"summary": TABLES["summary"]})
    with pytest.raises(ValidationError, match="limit"):
        render(limit="32")
    with pytest.raises(ValidationError, match="colour"):
        render(colour="red")


def test_numbers_are_written_for_readers() -> None:
    assert page.number(-0.1234) == "\N{MINUS SIGN}0.123"
    assert (page.number(None), page.number(1234.56), page.signed(0.5)) == ("\N{EN DASH}", "1,234.6", "+0.500")
    assert [page.duration(s) for s in (3.21, 125, 7384)] == ["3.2 s", "2 min 5 s", "2 h 3 min"]


# ---- in a real browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium")
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


def chromium(folder: Path, address: str, *flags: str) -> str:
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", *flags]
    done = subprocess.run([*command, address], capture_output=True, text=True, timeout=120, env={**os.environ})
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_chromium
@pytest.mark.parametrize(("scheme", "dark"), [(0, True), (1, False)])
def test_screenshot_follows_the_colour_scheme(tmp_path: Path, html: str, scheme: int, dark: bool) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    path, shot = tmp_path / "report.html", tmp_path / "shot.png"
    path.write_text(html)
    flags = (f"--screenshot={shot}", "--window-size=400,900", f"--blink-settings=preferredColorScheme={scheme}")
    chromium(tmp_path, path.as_uri(), *flags)
    with image.open(shot) as picture:
        assert picture.size == (400, 900)
        corner = sum(picture.convert("RGB").getpixel((2, 2))) / 3
        greys = picture.convert("L").histogram()
    assert (corner < 60) == dark
    assert sum(greys[:60]) > 500 and sum(greys[200:]) > 500  # page and ink both
