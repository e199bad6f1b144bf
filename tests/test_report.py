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
from imprint.config import loading
from imprint.dag.experiment import Experiment
from imprint.dag.report_facts import facts_of
from imprint.report import browser, numbers, page, write
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError

TEMPLATE = Path(__file__).parents[1] / "resources" / "report.html.jinja"
CHARTS = {"Scores": ("<svg class='imprint-chart'></svg>", "<p>n = 3</p>"), "Training loss": (None, "<p>none</p>")}
TABLES = fake.tables(24)


def render(tables: dict[str, pl.DataFrame] | None = None, **more: Any) -> str:
    return drawn(fake.facts(**more), tables or TABLES)


def drawn(facts: Any, tables: dict[str, pl.DataFrame] = TABLES, charts: dict[str, Any] = CHARTS) -> str:
    """The page with all that its tables hold."""
    return page.render(TEMPLATE, tables, charts, facts, fake.PROVENANCE, browser.collect(tables, facts, browser.BUDGET))


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
    assert html.count("</script>") == 4
    data, copied, *scripts = Page(html).scripts
    assert "<" not in data + copied and "&" not in data + copied
    assert all("textContent" in script for script in scripts)
    assert "base &lt;i&gt;in words&lt;/i&gt;" in html


def test_says_verdicts_counts_licences_and_versions(html: str) -> None:
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    for said in (
        "self_prompt is 0.042 higher than instruct in prompt_strict",
        "self_prompt against base",
        "kept",
        "Take three seeds or more",
        "undecided",
        "won / lost / tied",
        "95% interval, marginal",
    ):
        assert said in text
    for said in (
        "Apache-2.0",
        "torch 2.13.0",
        "attempted = scored + error",
        "leak",
        "Without rows, and so not drawn:",
        "seed 0",
    ):
        assert said in text
    assert "limit:" not in text
    assert "limit: 32" in re.sub(r"<[^>]+>", "", render(limit=32))


def test_leaks_are_counted_and_listed(html: str) -> None:
    assert "no example of an eval is also in a training set of this config" in html
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


def test_the_transductive_stamp_goes_by_arm_and_eval() -> None:
    """It stands where rows are shared: not on other evals of the arm, and also on an arm that is made from it."""
    made = {"instruct": ["instruct"], "self_prompt": ["instruct"]}
    arms = [{**vars(arm), "transductive": made.get(arm.name, [])} for arm in fake.facts().arms]
    pair = {"arm": "instruct", "dataset": "dialogues", "n_train": 9, "n_eval": 9, "n_near": 0}
    pairs = [{**pair, "eval": "sums", "n_shared": 2}, {**pair, "eval": "household", "n_shared": 0}]
    tables = {**TABLES, "contamination": fake.frame("contamination", pairs)}
    text = render(tables, arms=arms)
    section = text[text.index('<table class="matrix">') : text.index("</table>", text.index('<table class="matrix">'))]
    stamped = [row.count("adapted on the eval") for row in section.split("<tr>")[2:]]
    assert dict(zip(fake.ARMS, stamped, strict=True)) == {
        **dict.fromkeys(fake.ARMS, 0), **dict.fromkeys(("instruct", "self_prompt"), 1),
    }  # fmt: skip
    cells = next(row for row in section.split("<tr>")[2:] if "#made-instruct" in row).split("<td")[1:]
    assert ["adapted" in cell for cell in cells] == [name == "sums" for name in fake.EVALS]
    assert "adapted on the eval" not in render(arms=arms)
    assert "adapted on the eval" not in render(tables)


def test_says_what_scored_an_eval() -> None:
    named = pl.when(pl.col("eval") == "sums").then(pl.lit("code 1, isolated by namespaces")).otherwise("eval_version")
    text = render({**TABLES, "scores": TABLES["scores"].with_columns(eval_version=named)})
    assert "<td>code 1, isolated by namespaces</td>" in text


def test_evals_of_held_out_types_are_told_apart() -> None:
    told = [{**vars(item), "distribution": "held-out types" * (item.name == "sums")} for item in fake.facts().evals]
    text = render(evals=told)
    assert text.count("held-out types") > 5
    assert "held-out types" not in render() and 'household <span class="soft">(' not in text


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
    shown = re.findall(r'<h2 id="([^"]+)"', text)
    assert shown == ["charts", "numbers", "made"], "a part without rows is left out"
    assert "No question was asked" in text
    assert not {"Costs", "Synthesis", "What it took"} & set(re.findall(r"<(?:summary|h3)>([^<:]+)", text))


def test_missing_tables_and_wrong_facts_are_errors() -> None:
    with pytest.raises(ImprintError, match="needs the table"):
        page.render(TEMPLATE, {"summary": TABLES["summary"]}, CHARTS, fake.facts(), fake.PROVENANCE, {})
    with pytest.raises(ValidationError, match="limit"):
        render(limit="32")
    with pytest.raises(ValidationError, match="colour"):
        render(colour="red")


def test_numbers_are_written_for_readers() -> None:
    assert numbers.number(-0.1234) == "\N{MINUS SIGN}0.123"
    assert (numbers.number(None), numbers.number(1234.56)) == ("\N{EN DASH}", "1,234.560")
    assert [numbers.signed(value) for value in (0.5, -0.0001, 0.0, None)] == ["+0.500", "0.000", "0.000", "\N{EN DASH}"]
    assert [numbers.duration(s) for s in (3.21, 125, 7384)] == ["3.2 s", "2 min 5 s", "2 h 3 min"]


def test_rows_are_in_the_order_of_the_config() -> None:
    shuffled = {
        **TABLES,
        **{n: TABLES[n].sample(fraction=1.0, shuffle=True, seed=1) for n in ("summary", "comparisons")},
    }
    table = re.search(r'<table class="matrix">.*?</table>', render(shuffled), re.S)
    assert table and re.findall(r'<th scope="row"><a href="#made-(\w+)">', table[0]) == fake.ARMS
    assert re.findall(r'<th scope="col" class="n">(\w+)<span', table[0]) == list(fake.EVALS)


def test_the_matrix_says_its_marks_in_words(html: str) -> None:
    table = re.search(r'<table class="matrix">.*?</table>', html, re.S)
    assert table
    row = next(row for row in table[0].split("<tr>") if "#made-self_prompt&" in row or '#made-self_prompt"' in row)
    assert '<span class="open" title="not told apart from instruct: +0.042 (' in row, "by the first control alone"
    assert 'href="#browse?eval=ifeval_format&amp;a=self_prompt&amp;b=instruct&amp;show=all"' in row
    base = next(row for row in table[0].split("<tr>") if '#made-base"' in row)
    assert "heard" not in base, "an arm without a control has no mark"


def test_shares_far_from_the_controls_are_marked() -> None:
    cut = pl.when((pl.col("arm") == "self_prompt") & (pl.col("eval") == "ifeval_format")).then(20).otherwise(0)
    text = render({**TABLES, "summary": TABLES["summary"].with_columns(n_truncated=cut.cast(pl.Int64))})
    assert '<span class="stamp">cut: 83% against 0%.</span>' in text
    assert text.count('<span class="small framed">cut 83%</span>') == 1
    text = render({**TABLES, "summary": TABLES["summary"].with_columns(n_truncated=pl.lit(20, pl.Int64))})
    assert "cut: 83% against 83%." in text and '"stamp">cut' not in text and 'framed">cut' not in text


def test_tokens_stand_beside_what_was_gained(html: str) -> None:
    rows = re.search(r'<table class="took">.*?</table>', html, re.S)
    assert rows
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in rows[0].split("<tr>")[2:]]
    assert cells[0] == ["base", "\N{EN DASH}", "30,720", "12.0", "12.0"]
    assert cells[2] == ["instruct", "7,680", "30,720", "12.0", "12.0"]
    assert "tokens in evals" not in render({**TABLES, "costs": TABLES["costs"].clear()})


def test_an_arm_is_told_where_it_is_first_named() -> None:
    arms = [{**vars(arm), "what": f"what {arm.name} is"} for arm in fake.facts().arms]
    answers = re.search(r'<ol class="answers">.*?</ol>', render(arms=arms), re.S)
    assert answers
    assert re.findall(r"what (\w+) is", answers[0]) == ["instruct", "self_prompt", "base", "role_play"]


def test_an_experiment_says_whose_words_it_uses() -> None:
    said = "The words are Imprint's: prompts, roles, styles"
    assert said in render() and said not in render(models=[]), "a comparison of logs has no words of ours"


def test_from_an_arm_to_what_made_it(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"fingerprint": "f" * 8, "weights": {"m": "a" * 64}, "data": {"d": "b" * 64}}))
    job = {"stage": "train", "seed": 0, "name": "train instruct.seed0", "log": "logs/train/instruct.seed0.log"}
    fit = {"seed": 0, "manifest": str(manifest)}
    arms = [
        {**vars(arm), **({"fits": [fit], "jobs": [job], "settings": '{"fit":1}'} if arm.name == "instruct" else {})}
        for arm in fake.facts().arms
    ]
    spec = write.with_manifests(fake.facts(arms=arms))
    text = drawn(spec)
    made = re.search(r'<details id="made-instruct">.*?</details>', text, re.S)
    assert made
    for said in ("a" * 64, "b" * 64, "f" * 8, "{&#34;fit&#34;:1}", job["name"], job["log"], "1 min 2 s"):
        assert str(said) in made[0], said


def test_a_chart_can_be_passed_by_keyboard(html: str) -> None:
    skipped = re.findall(r'class="skip" href="#([^"]+)"', html)
    assert skipped and all(html.count(f'id="{target}" tabindex="-1"') == 1 for target in skipped)


def test_title_and_words_open_the_page() -> None:
    text = render(title="<i>Roles</i>", about="Two & two.")
    assert "<h1>&lt;i&gt;Roles&lt;/i&gt;</h1>" in text and "Two &amp; two." in text
    assert 'class="about"' not in render()


def test_facts_of_a_config_say_its_arms_in_a_line_and_name_their_jobs() -> None:
    assert facts_of(Experiment(loading.load([Path("config/config.yaml")]))).title.startswith("What do roles, rewards")
    facts = facts_of(Experiment(loading.load([Path("tests/real.yaml")])))
    arms = {arm.name: arm for arm in facts.arms}
    assert (facts.title, facts.about) == ("Imprint report", "")
    assert arms["base"].what == "the model smollm2" and not arms["base"].fits
    assert arms["self_prompt"].what == "base, made by sft on dialogues under self_role; asked under self_role"
    assert arms["ipe_plan"].what == "base; asked under prior_prompt plan"
    assert arms["composed"].what == "base, made by atlas from instruct, self_prompt and ppe_plan on dialogues"
    assert [fit.manifest for fit in arms["composed"].fits] == ["results/arms/composed/seed0/manifest.json"]
    assert arms["instruct"].settings == "fit: method sft, data dialogues, epochs 0.3125, batch_size 4, max_length 256"
    assert arms["ipe_plan"].settings == 'apply: context [{"name":"prior_prompt","settings":{"style":"plan"}}]'
    assert [(job.name, job.log) for job in arms["ipe_plan"].jobs] == [
        (f"{stage} ipe_plan.seed0.constraints_seen", f"logs/{stage}/ipe_plan.seed0.constraints_seen.log")
        for stage in ("generate", "score")
    ]
    assert arms["instruct"].jobs[0].log == "logs/train/instruct.seed0.log"


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


def probed(folder: Path, html: str, script: str, *flags: str) -> str:
    """What a script writes into the page's `data-seen`."""
    path = folder / "report.html"
    # The page's own policy would rightly refuse this script.
    ending = f"<script>(async () => {{ {script} }})()</script></body>"
    path.write_text(re.sub(r"<meta http-equiv[^>]*>", "", html).replace("</body>", ending))
    found = re.search(r'data-seen="([^"]*)"', chromium(folder, path.as_uri(), "--dump-dom", *flags))
    assert found
    return found[1]


def test_responses_without_room_have_a_page_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {}
    for name, rows in {**TABLES, "datasets": pl.DataFrame()}.items():
        tables[name] = [tmp_path / f"{name}.parquet"]
        parquet.write(tables[name][0], name, rows.to_dicts())
    out, beside = tmp_path / "report.html", tmp_path / "report.responses.html"
    facts = fake.facts()
    write.run(facts, TEMPLATE, tables, {}, out)
    assert not beside.exists() and beside.name not in out.read_text()
    monkeypatch.setattr(browser, "BUDGET", 0)
    write.run(facts, TEMPLATE, tables, {}, out)
    assert f'href="{beside.name}"' in out.read_text() and 'href="report.html"' in beside.read_text()
    monkeypatch.undo()
    write.run(facts, TEMPLATE, tables, {}, out)
    assert not beside.exists(), "a page that is not needed any more is no trap"


PICTURE = (
    "<svg class='imprint-chart' width='2000'><a href='#browse?eval=sums'><path aria-label='exactly &lt;b&gt;' "
    "d='M0,0h9v9Z'/></a></svg>"
)


@needs_chromium
def test_nothing_is_wider_than_a_phone(tmp_path: Path) -> None:
    html = drawn(fake.facts(), charts={"answers": (PICTURE, "<p>n</p>")})
    script = """
    for (const each of document.querySelectorAll("details")) each.open = true;
    const frame = document.createElement("iframe"); // a window of the browser itself is never this narrow
    frame.width = 390;
    frame.srcdoc = "<!doctype html>" + document.documentElement.outerHTML.replaceAll("<script", "<template");
    document.body.append(frame);
    await new Promise((done) => { frame.onload = done; });
    const root = frame.contentDocument.documentElement;
    document.body.dataset.seen = `${root.clientWidth} ${root.scrollWidth}`;
    """
    shown, needed = map(int, probed(tmp_path, html, script).split())
    assert 350 < shown <= 390 and needed <= shown


@needs_chromium
def test_a_mark_says_its_numbers_when_it_has_the_focus(tmp_path: Path) -> None:
    html = drawn(fake.facts(), charts={"answers": (PICTURE, "<p>n</p>")})
    script = """
    const tip = document.querySelector(".tip"), mark = document.querySelector(".imprint-chart a");
    const seen = [tip.hidden];
    mark.focus(); seen.push(tip.hidden, tip.textContent);
    mark.blur(); seen.push(tip.hidden);
    mark.firstChild.dispatchEvent(new PointerEvent("pointerover", {bubbles: true})); seen.push(tip.hidden);
    document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"})); seen.push(tip.hidden);
    document.body.dataset.seen = seen.join("|");
    """
    assert probed(tmp_path, html, script) == "true|false|exactly &lt;b&gt;|true|false|true"


@needs_chromium
@pytest.mark.parametrize("clipboard", [True, False])
def test_a_table_is_copied_or_selected(tmp_path: Path, html: str, clipboard: bool) -> None:
    script = f"""
    let copied = "";
    const writeText = async (text) => {{ if (!{json.dumps(clipboard)}) throw new Error(); copied = text; }};
    Object.defineProperty(navigator, "clipboard", {{value: {{writeText}}}});
    const place = document.querySelector('[data-copy="matrix"]');
    [...place.querySelectorAll("button")].find((button) => button.textContent === "CSV").click();
    await new Promise((done) => setTimeout(done, 50));
    const box = place.querySelector("textarea");
    const text = box ? box.value.slice(box.selectionStart, box.selectionEnd) : copied;
    document.body.dataset.seen = `${{box ? "selected" : "copied"}} ${{text.slice(0, 30)}}`;
    """
    start = "copied" if clipboard else "selected"
    assert probed(tmp_path, html, script) == f"{start} arm,ifeval_format prompt_stric"


@needs_chromium
def test_details_open_for_their_address_and_for_paper(tmp_path: Path, html: str) -> None:
    script = """
    const closed = () => document.querySelectorAll("details:not([open])").length;
    const before = closed();
    location.hash = "#made-instruct";
    await new Promise((done) => setTimeout(done, 50));
    const opened = document.getElementById("made-instruct").open;
    dispatchEvent(new Event("beforeprint")); const printed = closed();
    dispatchEvent(new Event("afterprint"));
    document.body.dataset.seen = [before > 5, opened, printed, before - closed()].join(" ");
    """
    assert probed(tmp_path, html, script) == "true true 0 1"
