"""The browser of responses: which examples it holds, that their texts stay text, and that it works in a real browser
from a file."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
from html import unescape
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fake_results as fake
from imprint.report import SCRIPTS, browser, items, page
from imprint.report.facts import Eval
from imprint.report.responses import InMemory
from imprint.runtime.plugins import Plug
from imprint.scores import ifeval

RESOURCES = Path(__file__).parents[1] / "resources"
TABLES = fake.tables(24)
Tables = dict[str, pl.DataFrame]


def only(*names: str, **more: Any) -> list[dict[str, Any]]:
    """The facts of some evals, with some of them replaced."""
    return [{**vars(item), **more} for item in fake.facts().evals if item.name in names]


def collect(tables: Tables, name: str, budget: int = browser.BUDGET, **more: Any) -> dict[str, Any]:
    return browser.collect(tables, fake.facts(evals=only(name), **more), budget)


def unpack(packed: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def example(data: dict[str, Any], name: str, example_id: str) -> tuple[dict[str, Any], list[str]]:
    """An example that the page holds, and the texts of its block."""
    ev = data["evals"][name]
    number, place = divmod(unpack(ev["index"])["ids"].index(example_id), data["block"])
    block = unpack(ev["blocks"][number])
    return block["items"][place], block["texts"]


def render(tables: Tables) -> str:
    """A page whose browser holds the eval `sums` alone, since the others are private."""
    evals = [{**vars(item), "private": item.name != "sums"} for item in fake.facts().evals]
    facts = fake.facts(evals=evals)
    data = browser.collect(tables, facts, browser.BUDGET)
    return page.render(RESOURCES / "report.html.jinja", tables, {}, facts, fake.PROVENANCE, data)


def sums(n: int, responses: dict[str, str] | None = None, tokens: int = 12) -> Tables:
    """Tables of the eval `sums` for two arms: of every ten examples, `instruct` wins one and loses one against `base`.
    `responses`: arm -> the response to every example."""
    rows = []
    for i in range(n):
        rows.append(fake.score("base", "sums", fake.example("sums", i), "correct", float(i % 10 != 0)))
        rows.append(fake.score("instruct", "sums", fake.example("sums", i), "correct", float(i % 10 != 1)))
    scores = fake.frame("scores", rows)
    generations, prompts = fake.generations(scores)
    response = pl.col("arm").replace_strict(responses) if responses else pl.col("response")
    generations = generations.with_columns(response.alias("response"), response_tokens=pl.lit(tokens, pl.Int64))
    datasets = fake.frame(
        "datasets",
        [
            {
                "dataset": "sums",
                "example_id": fake.example("sums", i),
                "messages": [{"role": "user", "content": f"What is {i} and {i}?"}],
                "reference": json.dumps({"answer": str(2 * i)}),
                "fields": "{}",
                "strata": json.dumps({"kind": "even:sums" if i % 2 == 0 else "odd"}),
                "cluster": str(i),
            }
            for i in range(n)
        ],
    )
    return {**TABLES, "scores": scores, "generations": generations, "prompts": prompts, "datasets": datasets}


def sampled(n: int) -> tuple[Tables, Any]:
    """Tables and facts of the eval `sums` without scores, which only `base` was asked: one response was cut."""
    tables = sums(n)
    cut = pl.when(pl.col("example_id") == fake.example("sums", 1)).then(pl.lit("length")).otherwise("finish_reason")
    tables["generations"] = tables["generations"].filter(pl.col("arm") == "base").with_columns(finish_reason=cut)
    for name in ("scores", "summary"):
        tables[name] = tables[name].filter(pl.col("eval") != "sums")
    evals = [
        {**vars(item), "private": item.name != "sums", **({"score": None} if item.name == "sums" else {})}
        for item in fake.facts().evals
    ]
    return tables, fake.facts(evals=evals)


# ---- which examples


def test_an_eval_that_only_samples_is_shown_without_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "BLOCK", 4)
    tables, facts = sampled(10)
    data = browser.collect(tables, facts, browser.BUDGET)
    ev = data["evals"]["sums"]
    assert (ev["metric"], ev["n"], ev["discordant"], len(ev["blocks"])) == (None, 10, 0, 3)
    assert set(map(tuple, ev["totals"].values())) == {(0, 0, 0)} and browser.holds_differences(data)
    index = unpack(ev["index"])
    base, instruct = (index["arms"][data["arms"].index(arm)] for arm in ("base", "instruct"))
    assert sorted(base["marks"]) == [""] * 9 + ["truncated"] and set(base["values"]) == {None}
    assert base["tokens"] == [12] * 10 and set(instruct["marks"]) == {None}
    item, texts = example(data, "sums", fake.example("sums", 3))
    side = item["sides"][str(data["arms"].index("base"))]
    assert texts[item["question"]] == "What is 3 and 3?" and side["values"] == []
    assert texts[side["responses"][0]["text"]].startswith("base answers")


def test_every_example_that_differs_comes_first_then_the_others() -> None:
    tables = sums(450)
    data = collect(tables, "sums")
    ev = data["evals"]["sums"]
    ids = unpack(ev["index"])["ids"]
    differing = {fake.example("sums", i) for i in range(450) if i % 10 in (0, 1)}
    assert (ev["n"], ev["discordant"], len(ev["blocks"])) == (450, 90, 3)
    assert set(ids[:90]) == differing and len(set(ids)) == 450
    assert ev["totals"]["0-2"] == [45, 45, 360]
    assert collect(tables, "sums") == data, "a rerun takes the same examples"


def test_only_pairs_that_are_compared_make_an_example_certain() -> None:
    tables = {**sums(40), "answers": TABLES["answers"].clear()}
    alone = [{**vars(arm), "control": []} for arm in fake.facts().arms]
    assert collect(tables, "sums")["evals"]["sums"]["discordant"] == 8
    assert collect(tables, "sums", arms=alone)["evals"]["sums"]["discordant"] == 0
    asked = TABLES["answers"].head(1).with_columns(arm=pl.lit("base"), control=pl.lit("instruct"), eval=pl.lit("sums"))
    data = collect({**tables, "answers": asked}, "sums", arms=alone)
    assert data["evals"]["sums"]["discordant"] == 8, "the arms of a question are compared"


def index_size(tables: Tables, name: str) -> int:
    """Characters of the packed index of one block."""
    facts = fake.facts()
    (ev,) = (each for each in facts.evals if each.name == name)
    collected = browser._Eval(tables, facts, ev, responses := InMemory(tables))
    next(browser._packed_blocks([(collected, 0)], responses))
    return collected.index_size


def test_a_page_keeps_its_budget_and_says_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "BLOCK", 10)
    whole = collect(sums(100), "sums")["evals"]["sums"]
    assert len(whole["blocks"]) == 10
    cut = collect(sums(100), "sums", sum(map(len, whole["blocks"][:3])) + 3 * index_size(sums(100), "sums"))
    cut = cut["evals"]["sums"]
    assert cut["blocks"] == whole["blocks"][:3]
    assert cut["n"] == 100 and len(unpack(cut["index"])["ids"]) == 30
    assert unpack(collect(sums(100), "sums", 0)["evals"]["sums"]["index"])["ids"] == []


def test_differences_of_all_evals_come_before_the_rest_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "BLOCK", 4)
    facts = fake.facts()
    whole = browser.collect(TABLES, facts, browser.BUDGET)["evals"]
    certain = {name: -(-ev["discordant"] // 4) for name, ev in whole.items()}
    needed = sum(len(block) for name, ev in whole.items() for block in ev["blocks"][: certain[name]])
    needed += sum(index_size(TABLES, name) * n for name, n in certain.items())
    enough, short = browser.collect(TABLES, facts, needed), browser.collect(TABLES, facts, needed - 1)
    assert browser.holds_differences(enough) and not browser.holds_differences(short)
    cut = enough["evals"]
    assert {name: len(ev["blocks"]) for name, ev in cut.items()} == certain
    assert any(len(whole[name]["blocks"]) > n for name, n in certain.items())


def test_an_outcome_is_of_the_mean_and_open_where_a_value_is_missing() -> None:
    tables = sums(10)
    other = tables["scores"].with_columns(seed=pl.lit(1, pl.Int64))
    values = pl.when(pl.col("arm") == "instruct").then(0.0).otherwise("value")
    last = pl.col("example_id") == fake.example("sums", 9)
    other = other.with_columns(value=pl.when(last).then(None).otherwise(values))
    data = collect({**tables, "scores": pl.concat([tables["scores"], other])}, "sums")
    index = unpack(data["evals"]["sums"]["index"])
    of = {id_: (index["arms"][0]["values"][i], index["arms"][2]["values"][i]) for i, id_ in enumerate(index["ids"])}
    assert of[fake.example("sums", 0)] == (0.0, 0.5) and of[fake.example("sums", 2)] == (1.0, 0.5)
    assert of[fake.example("sums", 9)] == (None, None)
    assert index["arms"][1]["values"] == [None] * 10 and index["arms"][1]["marks"] == [None] * 10
    assert data["evals"]["sums"]["totals"]["0-2"] == [8, 1, 0]


def test_outcomes_follow_the_direction_and_forgive_rounding() -> None:
    left, right = np.array([1.0, 0.0, 0.3, np.nan]), np.array([0.0, 1.0, 0.1 + 0.2, 1.0])
    assert browser.outcomes(left, right, 1)[:3].tolist() == [1, -1, 0]
    assert browser.outcomes(left, right, -1)[:3].tolist() == [-1, 1, 0]
    assert np.isnan(browser.outcomes(left, right, 1)[3])


# ---- what is shown of an example


def test_what_a_context_strips_is_shown_apart() -> None:
    role = "[Role] You count.\n[Answer] 42"
    arms = [
        {**vars(arm), "contexts": [Plug(name="self_role")] if arm.name == "instruct" else []}
        for arm in fake.facts().arms
    ]
    tables = sums(10, {"base": role, "instruct": role})
    item, texts = example(collect(tables, "sums", arms=arms), "sums", fake.example("sums", 0))
    stripped, whole = item["sides"]["2"]["responses"][0], item["sides"]["0"]["responses"][0]
    assert (texts[stripped["before"]], texts[stripped["text"]]) == ("[Role] You count.\n[Answer] ", "42")
    assert texts[whole["text"]] == role and "before" not in whole


@given(st.text(), st.text(), st.text())
def test_the_parts_of_a_response_make_up_the_response(role: str, answer: str, more: str) -> None:
    response = f"<plan>{role}</plan><answer>{answer}</answer>{more}"
    plug = Plug(name="prior_prompt", settings={"style": "plan"})
    before, scored, after = items._parts(response, [plug])
    assert before + scored + after == response or before == response
    assert items._parts(response, []) == ("", response, "")


def test_a_verdict_on_an_instruction_says_what_was_asked_for() -> None:
    reference = {
        "instruction_id_list": ["length_constraints:number_words", "keywords:forbidden_words", "punctuation:no_comma"],
        "kwargs": [
            {"relation": "at least", "num_words": 30, "letter": None},
            {"forbidden_words": ["oak", "elm"]},
            {},
        ],
    }
    words = ["relation at least, num words 30", "forbidden words oak, elm", ""]
    assert ifeval.required({"reference": reference}) == words
    scored = TABLES["scores"].filter((pl.col("eval") == "ifeval_format") & (pl.col("item") == 1))
    example_id = scored["example_id"][0]
    row = {
        "dataset": "ifeval_format",
        "example_id": example_id,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Go!"}],
        "reference": json.dumps(reference),
        "strata": "{}",
    }
    evals = only("ifeval_format", scorer=Plug(name="ifeval"))
    data = browser.collect(
        {**TABLES, "datasets": fake.frame("datasets", [row])}, fake.facts(evals=evals), browser.BUDGET
    )
    item, texts = example(data, "ifeval_format", example_id)
    assert [texts[place] for place in item["required"]] == words and texts[item["question"]] == "Go!"
    values = item["sides"]["0"]["values"]
    assert {place for _, place, *_ in values if place is not None} >= {0, 1}


def test_a_failed_instruction_says_where_the_response_breaks_it() -> None:
    """In the units of the page's texts, in which one character may be two."""
    scores = TABLES["scores"].filter((pl.col("eval") == "ifeval_format") & (pl.col("item") == 0))
    failed = scores.filter((pl.col("value") == 0) & (pl.col("metric") == "instruction_strict")).row(0, named=True)
    example_id, arm = failed["example_id"], failed["arm"]
    of_example = (pl.col("eval") == "ifeval_format") & (pl.col("example_id") == example_id)
    generations = TABLES["generations"].with_columns(
        response=pl.when(of_example).then(pl.lit("\U0001f600 An oak, an ELM")).otherwise("response")
    )
    reference = {
        "instruction_id_list": ["keywords:forbidden_words"] * 3,
        "kwargs": [{"forbidden_words": ["oak", "elm"]}] * 3,
    }
    row = {"dataset": "ifeval_format", "example_id": example_id, "messages": [], "reference": json.dumps(reference)}
    tables = {**TABLES, "generations": generations, "datasets": fake.frame("datasets", [{**row, "strata": "{}"}])}
    data = browser.collect(tables, fake.facts(evals=only("ifeval_format", scorer=Plug(name="ifeval"))), browser.BUDGET)
    item, _ = example(data, "ifeval_format", example_id)
    side = item["sides"][str(fake.ARMS.index(arm))]
    assert side["faults"] == [[6, 9], [14, 17]]
    passed = [other for other in item["sides"].values() if all(value[3] for value in other["values"])]
    assert all("faults" not in other for other in passed)


def test_options_come_with_their_likelihoods_and_the_right_one() -> None:
    example_id = fake.example("household", 0)
    row = {"dataset": "household", "example_id": example_id, "messages": [], "reference": '{"answer": 1}'}
    tables = {**TABLES, "datasets": fake.frame("datasets", [{**row, "strata": "{}"}])}
    data = collect(tables, "household")
    item, _ = example(data, "household", example_id)
    assert [response["logprob"] for response in item["sides"]["0"]["responses"]] == [-9.5, -10.5, -11.5]
    assert unpack(data["evals"]["household"]["index"])["arms"][0]["tokens"] == [None] * 24
    assert item["right"] == 1 and data["evals"]["household"]["binary"] == ["accuracy"]
    item, _ = example(data, "household", fake.example("household", 1))
    assert not {"right", "question", "reference"} & item.keys(), "the table datasets does not hold this example"


def dialogues() -> Tables:
    """The tables with dialogues in the eval `sums`: of `instruct` two turns and a state; of `base` ten draws, and a
    text that was made of them."""
    kept, rows = [], []
    prompt = TABLES["prompts"]["prompt_sha256"][0]
    for row in TABLES["generations"].to_dicts():
        if row["eval"] == "sums" and row["arm"] == "instruct":
            rows.append({**row, "final": False, "response": f"{fake.HOSTILE} Which sum?"})
            rows.append({**row, "turn": 1, "state": json.dumps({"asked_in": 0, "said": fake.HOSTILE})})
        elif row["eval"] == "sums" and row["arm"] == "base":
            rows += [{**row, "final": False, "response": f"draw {i}", "prompt_sha256": prompt} for i in range(10)]
            whole = {"prompt_sha256": None, "prompt_tokens": None, "response_tokens": None, "response": "all draws"}
            rows.append({**row, **whole, "turn": 1})
        else:
            kept.append(row)
    return {**TABLES, "generations": fake.frame("generations", [*kept, *rows])}


def test_dialogues_of_several_turns_come_with_their_turns_and_state() -> None:
    item, texts = example(collect(dialogues(), "sums"), "sums", fake.example("sums", 0))
    base, instruct, single = (item["sides"][position] for position in "023")
    assert [texts[r["text"]] for r in instruct["others"]] == [f"{fake.HOSTILE} Which sum?"]
    assert "left_out" not in instruct and len(instruct["responses"]) == 1
    assert json.loads(texts[instruct["state"]])["asked_in"] == 0
    assert [texts[r["text"]] for r in base["others"]] == [f"draw {i}" for i in range(8)] and base["left_out"] == 2
    assert [texts[r["text"]] for r in base["responses"]] == ["all draws"] and base["responses"][0]["composed"]
    assert texts[base["prompt"]] == TABLES["prompts"]["prompt"][0], "the prompt of the first draw"
    assert "state" not in base
    assert not {"others", "left_out", "state"} & single.keys() and "composed" not in single["responses"][0]


@given(st.text(st.characters()))
def test_any_text_survives_packing(text: str) -> None:
    assert unpack(browser.packed([text, "\ud800 alone", "\0"])) == [text, "\ud800 alone", "\0"]


def test_long_texts_are_cut_and_equal_ones_are_held_once() -> None:
    texts = items.Texts()
    assert [texts.place(text) for text in ("a", None, "a", "b" * 1_000_000)] == [0, 1, 0, 2]
    cut = list(texts.places)[2]
    assert cut.startswith("b" * items.LONGEST) and len(cut) < items.LONGEST + 100 and "[cut here" in cut


def test_a_reference_that_is_a_text_is_shown_as_it_is() -> None:
    texts = items.Texts()
    row = {"question": None, "reference": '"\\ud800 <b>"'}
    ev = Eval(name="sums", dataset="sums", score="sums", asks="generate")
    assert items._item(ev, row, texts) == {"sides": {}, "reference": 0} and list(texts.places) == ["\ud800 <b>"]


def test_no_script_turns_text_into_code_or_markup() -> None:
    script = "".join((RESOURCES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|Function\(|fetch\(|import\(", script
    )


# ---- in a real browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium")
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PAIR = "eval=sums&a=instruct&b=base"


def opened(folder: Path, html: str, state: str = "", script: str = "") -> str:
    """The page after it was opened from a file, as HTML. `script` runs in the page: it may await `settled()`, and note
    texts in the list `seen`, which end in the attribute data-seen. The page's own policy would rightly refuse the
    script, so only with a script the page has no policy."""
    if script:
        html = re.sub(r"<meta http-equiv[^>]*>", "", html)
        html = html.replace("</body>", f"<script>{DRIVER.replace('SCRIPT', script)}</script></body>")
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=8000"]
    address = f"{path.as_uri()}{state}"
    done = subprocess.run(
        [*command, "--dump-dom", address], capture_output=True, encoding="utf-8", timeout=120, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


DRIVER = """
const seen = [], settled = () => new Promise((done) => setTimeout(done, 400));
const press = (key, on = document.body) => on.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const enter = (id, value, kind = "change") => {
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event(kind));
};
const count = () => seen.push(document.getElementById("count").textContent);
const lines = () => document.querySelectorAll("#list .row").length;
addEventListener("load", async () => {
  await settled();
  try { SCRIPT } catch (error) { seen.push(String(error)); }
  document.body.dataset.seen = JSON.stringify(seen);
});
"""


def noted(dom: str) -> list[Any]:
    found = re.search(r'data-seen="([^"]*)"', dom)
    assert found, "the script did not end"
    return list(json.loads(unescape(found[1])))


def status(dom: str) -> str:
    found = re.search(r'id="count"[^>]*>([^<]*)<', dom)
    assert found
    return unescape(found[1])


def words(dom: str, start: str = 'id="view"') -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", dom[dom.index(start) : dom.index("<dialog")])).split())


@pytest.fixture(scope="module")
def html() -> str:
    return render(sums(400))


@needs_chromium
@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("", "these two arms share no example of this eval"),
        (f"#browse?{PAIR}", "1 of 400 · instruct "),
        (f"#browse?{PAIR}&show=won&i={fake.example('sums', 20)}", " of 40 · instruct won by correct, 1 against 0"),
        ("#browse?eval=sums&a=base&b=base", "choose two different arms"),
        ("#browse?eval=sums&a=base&b=self_prompt", "these two arms share no example of this eval"),
        (f"#browse?{PAIR}&i=none&show=tied", "example none is not in this list; 1 of 320"),
        ("#browse?eval=other&a=nobody&b=base", "this page holds no nobody"),
        (f"#browse?{PAIR}&q=is:odd", "is:odd is no mark"),
        (f"#browse?{PAIR}&q=nowhere", "no such example"),
    ],
)
def test_the_address_chooses(tmp_path: Path, html: str, state: str, said: str) -> None:
    assert said in status(opened(tmp_path, html, state))


@needs_chromium
def test_an_address_shows_its_example_under_the_policy(tmp_path: Path, html: str) -> None:
    dom = opened(tmp_path, html, f"#browse?{PAIR}&i={fake.example('sums', 7)}")
    assert "default-src 'none'" in dom
    shown = words(dom)
    for said in (f"example {fake.example('sums', 7)} · kind: odd", "What is 7 and 7?", '"answer": "14"', "instruct:"):
        assert said in shown
    selected = re.findall(r'aria-selected="true"[^>]*>(.*?)</div>', dom)
    assert len(selected) == 1 and "What is 7 and 7?" in selected[0], "the list is scrolled to it"
    assert 0 < dom.count('class="row"') < 60, "only lines that can be seen are in the document"
    assert "All 400 examples of this eval are here." in dom


@needs_chromium
def test_a_page_without_room_says_how_much_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "BUDGET", 30_000)
    tables = sums(1500)
    held = len(collect(tables, "sums", browser.BUDGET)["evals"]["sums"]["blocks"]) * 200
    assert 0 < held < 1500
    dom = opened(tmp_path, render(tables), f"#browse?{PAIR}")
    assert f"{held} of 1500 examples of this eval are here" in dom
    monkeypatch.setattr(browser, "BUDGET", 0)
    empty = opened(tmp_path, render(tables), f"#browse?{PAIR}")
    assert "0 of 1500 examples of this eval are here: 0 of the 300 in which" in empty


@needs_chromium
@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("a=base&b=instruct", "1 of 10 · not scored: this eval only samples"),
        ("a=instruct&b=base&q=is:truncated", "1 of 1 · not scored"),
        ("a=instruct&b=self_prompt", "this eval was put to base; choose one of them"),
    ],
)
def test_responses_without_scores_are_shown(tmp_path: Path, pair: str, said: str) -> None:
    tables, facts = sampled(10)
    data = browser.collect(tables, facts, browser.BUDGET)
    html = page.render(RESOURCES / "report.html.jinja", tables, {}, facts, fake.PROVENANCE, data)
    dom = opened(tmp_path, html, f"#browse?eval=sums&{pair}")
    assert status(dom).startswith(said)
    assert ("base answers" in words(dom)) == ("choose" not in said)


@needs_chromium
def test_keys_buttons_and_links_move_through_the_examples(tmp_path: Path, html: str) -> None:
    target = f"#browse?{PAIR}&show=lost&i={fake.example('sums', 1)}"
    script = f"""
      press("j"); await settled(); count();
      press("j"); press("k"); press("k"); await settled(); count();
      press("k"); document.getElementById("next").click(); await settled(); count();
      press("End", document.getElementById("list")); await settled(); count();
      press("j", document.getElementById("search")); await settled(); count();
      enter("show", "tied"); await settled(); count(); seen.push(location.hash);
      press("/"); seen.push(document.activeElement.id);
      press("?"); seen.push(document.getElementById("help").open);
      document.getElementById("help").close();
      location.hash = "{target}"; await settled(); count();
      press("d"); await settled(); seen.push(document.querySelectorAll("#view mark").length > 0);
      seen.push(Math.abs(document.getElementById("browse").getBoundingClientRect().top) < 200);
    """
    second, first, again, last, still, tied, address, focus, help_, linked, marks, scrolled = noted(
        opened(tmp_path, html, f"#browse?{PAIR}", script)
    )
    assert [text.split(" · ")[0] for text in (second, first, again, last, still)] == [
        *("2 of 400", "1 of 400", "2 of 400", "400 of 400", "400 of 400")
    ]
    assert "tied by correct" in tied and "show=tied" in address and address.startswith("#browse?eval=sums")
    assert focus == "search" and help_ is True
    assert " of 40 · instruct lost by correct" in linked and marks is True and scrolled is True


@needs_chromium
def test_searches_and_filters(tmp_path: Path) -> None:
    tables = sums(40, {"base": "The Oak stands.", "instruct": "No tree here, <b>none</b>."})
    first = pl.col("example_id") == fake.example("sums", 0)
    generations = tables["generations"].with_columns(
        response=pl.when(first).then(pl.lit("An elm: two words")).otherwise("response"),
        response_tokens=pl.when(first).then(300).otherwise("response_tokens"),
    )
    scores = tables["scores"].with_columns(
        truncated=first,
        status=pl.when(pl.col("example_id") == fake.example("sums", 3)).then(pl.lit("unparsed")).otherwise("status"),
    )
    script = """
      for (const query of ["oak", "OAK tree", '"two words"', "elm:", "tokens>299", "tokens<=12", "is:truncated",
        "is:unparsed", "type:odd", "kind:even:sums", "kind:odd tokens>299", "what is 7", "<b>none</b>", ""]) {
        enter("search", query, "input"); await settled();
        seen.push((/ of ([0-9]+) ·/.exec(document.getElementById("count").textContent) ?? [0, "0"])[1]);
      }
    """
    dom = opened(
        tmp_path,
        render({**tables, "generations": generations, "scores": scores}),
        f"#browse?{PAIR}",
        script,
    )
    assert list(map(int, noted(dom))) == [39, 39, 1, 1, 1, 39, 1, 1, 20, 20, 0, 4, 39, 40]


def hostile() -> Tables:
    responses = {
        "base": f"{fake.HOSTILE} \N{RIGHT-TO-LEFT OVERRIDE}\N{RIGHT-TO-LEFT MARK}gnorw",
        "instruct": f"nul \0 {'long' * 250_000}",
    }
    return sums(10, responses)


@needs_chromium
def test_hostile_responses_are_shown_as_text(tmp_path: Path) -> None:
    dom = opened(tmp_path, render(hostile()), f"#browse?{PAIR}&q=gnorw&i={fake.example('sums', 0)}")
    assert "&lt;/script&gt;&lt;img src=x" in dom and not re.search(r"<img|<b>bold", dom)
    assert "<title>Imprint: does a self-written role help?</title>" in dom
    assert "gnorw" in words(dom) and "[cut here after 6000 characters" in words(dom)


@needs_chromium
def test_hostile_names_and_lone_surrogates_break_nothing(tmp_path: Path) -> None:
    tables = hostile()
    reference = pl.lit(json.dumps({"answer": "\ud800", "__proto__": fake.HOSTILE}))
    strata = pl.lit(json.dumps({"__proto__": "\ud800", "constructor": fake.HOSTILE, "hostile": "yes"}))
    tables["datasets"] = tables["datasets"].with_columns(reference=reference, strata=strata)
    html = render(tables)
    html.encode("utf-8")
    # Chromium cannot dump a page that shows a lone surrogate, so the script takes the example away again.
    script = """
      const view = document.getElementById("view");
      seen.push(view.textContent.includes("\\ud800"), view.querySelectorAll("img, b").length, {}.hostile === undefined);
      enter("search", "hostile:yes", "input"); await settled(); count();
      view.replaceChildren();
    """
    shown, elements, clean, found = noted(opened(tmp_path, html, f"#browse?{PAIR}", script))
    assert shown is True and elements == 0 and clean is True
    assert found.startswith("1 of 10 · ")


@needs_chromium
def test_the_tokens_of_the_answer_stand_beside_all_tokens(tmp_path: Path) -> None:
    tables = sums(4)
    of_answer = pl.when(pl.col("arm") == "instruct").then(7).otherwise("answer_tokens")
    tables["generations"] = tables["generations"].with_columns(answer_tokens=of_answer.cast(pl.Int64))
    shown = words(opened(tmp_path, render(tables), f"#browse?{PAIR}"))
    assert "instruct: response (12 tokens, 7 of them in the answer, ended by: stop)" in shown
    assert "base: response (12 tokens, ended by: stop)" in shown


@needs_chromium
def test_turns_and_state_of_a_dialogue_are_shown_as_text(tmp_path: Path) -> None:
    dom = opened(tmp_path, render(dialogues()), f"#browse?{PAIR}")
    shown = words(dom)
    for said in ("instruct: 1 other response of this dialogue", "Which sum?", "instruct: how the dialogue ended"):
        assert said in shown
    for said in ("base: 10 other responses of this dialogue", "draw 7", "2 more; the tables hold all of them"):
        assert said in shown
    assert "base: response (made of the responses above)" in shown and "all draws" in shown
    assert shown.count("base: prompt of response") == 1, "ten draws have one prompt"
    assert "<img" not in dom


@needs_chromium
def test_word_differences_are_those_of_a_longest_common_subsequence(tmp_path: Path, html: str) -> None:
    script = """
      const plain = (list, common) => list.map((word) => word.trim()).filter((_, i) => common[i]);
      const letters = (seed) => Array.from({length: 12}, (_, i) => "abc"[(seed * (i + 3) * 7919 >> 3) % 3]);
      const longest = (a, b) => !a.length || !b.length ? 0 : a[0] === b[0] ? 1 + longest(a.slice(1), b.slice(1))
        : Math.max(longest(a.slice(1), b), longest(a, b.slice(1)));
      let wrong = 0;
      for (let seed = 1; seed < 40; seed += 1) {
        const [a, b] = [letters(seed).slice(0, seed % 9), letters(seed * 31 + 7).slice(0, 9)];
        const [left, right] = commonWords(a, b);
        const kept = plain(a, left), other = plain(b, right);
        if (kept.join() !== other.join() || kept.length !== longest(a, b)) wrong += 1;
      }
      seen.push(wrong, commonWords(Array(3000).fill("a "), Array(3000).fill("b ")) === null,
        wordsOf("  one two\\n\\nthree ").join("|"), wordsOf("").length);
    """
    assert noted(opened(tmp_path, html, "", script)) == [0, True, "  |one |two\n\n|three ", 0]


def test_pairs_have_totals_in_both_directions(html: str) -> None:
    data = collect(sums(20), "sums")
    positions = range(len(fake.ARMS))
    assert set(data["evals"]["sums"]["totals"]) == {f"{i}-{j}" for i, j in combinations(positions, 2)}
