"""Does B beat A, on logs: which rows are compared, what the answer is, and what is written."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

import logs
from conftest import ROOT
from imprint import compare
from imprint.config import loading
from imprint.config.arms import Arm
from imprint.imports import lm_eval, table
from imprint.logs import matching, sides, verdict
from imprint.report import gating
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.statistics.intervals import tango
from imprint.statistics.looks import Z


def values(n: int, rate: float, seed: int) -> dict[str, float | None]:
    draw = random.Random(seed)
    return {f"How much is {i} and {i}?": float(draw.random() < rate) for i in range(n)}


def answers(a: object, b: object, metric: str | None = None, **fields: str) -> tuple[list[dict[str, Any]], list[str]]:
    both = sides.both(str(a), str(b), fields)
    out = verdict.compared(*both, metric)
    return out.tables["answers"].to_dicts(), out.notes


def test_the_answer_is_that_of_the_pairs_whatever_the_order(tmp_path: Path) -> None:
    left, right = values(300, 0.4, 1), values(300, 0.6, 2)
    a = logs.of_values(tmp_path / "a.jsonl", left)
    b = logs.of_values(tmp_path / "b.jsonl", dict(random.Random(3).sample(sorted(right.items()), 300)))
    ((row,), notes) = answers(a, b)
    wins = sum(right[key] > left[key] for key in left)  # type: ignore[operator]
    losses = sum(right[key] < left[key] for key in left)  # type: ignore[operator]
    assert (row["wins"], row["losses"], row["n_pairs"], row["verdict"]) == (wins, losses, 300, "better")
    assert row["difference"] == pytest.approx((wins - losses) / 300)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tango(wins, losses, 300, Z), abs=0.003)
    assert (row["arm"], row["control"], row["scope"], row["n_seeds"]) == ("b", "a", "method", 0) and notes == []


def test_the_words_of_a_question_count(tmp_path: Path) -> None:
    a = logs.of_values(tmp_path / "a.jsonl", {f"What is {i}?": 1.0 for i in range(8)})
    b = logs.of_values(tmp_path / "b.jsonl", {f"  what IS\n{i} ": 1.0 for i in range(8)})
    ((row,), _) = answers(a, b)
    assert row["n_pairs"] == 8


def test_what_only_one_side_has_is_named(tmp_path: Path) -> None:
    a = logs.of_values(tmp_path / "a.jsonl", values(20, 0.5, 1))
    b = logs.of_values(tmp_path / "b.jsonl", {**values(16, 0.5, 2), "Who are you?": 1.0})
    ((row,), notes) = answers(a, b)
    assert (row["n_pairs"], row["n_missing"]) == (16, 5)
    assert notes[0].startswith("b: only a has 4 of the examples: 'How much is 16 and 16?'")
    assert notes[1] == "b: only b has 1 of the examples: 'Who are you?'"


def test_logs_of_other_questions_are_refused(tmp_path: Path) -> None:
    a = logs.of_values(tmp_path / "a.jsonl", {f"a{i}": 1.0 for i in range(9)})
    b = logs.of_values(tmp_path / "b.jsonl", {f"b{i}": 1.0 for i in range(9)} | {"a1": 1.0})
    with pytest.raises(ImprintError, match="1 examples of a and b have the same question, of 9 and 10") as caught:
        answers(a, b)
    assert "a: 'a0'" in str(caught.value) and "b: 'b0'" in str(caught.value)


def test_rows_of_one_question_are_one_cluster_and_stay_apart(tmp_path: Path) -> None:
    """Two passages with one question: the docs tell them apart, in whichever order they come."""
    docs = [{"question": f"Is it true? {i // 2}", "passage": f"p{i}"} for i in range(20)]

    def log(name: str, order: int) -> Path:
        lines = [logs.line("x", doc=doc, acc=float(i % 2)) for i, doc in enumerate(docs)]
        return logs.write(tmp_path / name, lines[::order])

    ((row,), _) = answers(log("a.jsonl", 1), log("b.jsonl", -1))
    assert (row["n_pairs"], row["ties"], row["difference"]) == (10, 10, 0.0)
    left, right = (
        matching.matched([lm_eval.read(tmp_path / name, lm_eval.Settings()).samples])[0]
        for name in ("a.jsonl", "b.jsonl")
    )
    assert left["example_id"].n_unique() == 20 and left["cluster"].n_unique() == 10
    assert left["example_id"].to_list() == right["example_id"].to_list()[::-1]


def test_doubles_that_nothing_tells_apart_are_numbered(tmp_path: Path) -> None:
    path = logs.write(tmp_path / "a.jsonl", [logs.line("same", acc=1.0)] * 3)
    (samples,) = matching.matched([lm_eval.read(path, lm_eval.Settings()).samples])
    assert [each.rsplit("-")[-1] for each in samples["example_id"]] == ["0", "1", "2"]
    assert samples["cluster"].n_unique() == 1


def test_a_field_names_the_clusters(tmp_path: Path) -> None:
    def log(name: str, topic: int) -> Path:
        docs = [{"question": f"q{i}", "topic": f"t{i % topic}"} for i in range(24)]
        return logs.write(
            tmp_path / name, [logs.line("x", doc=doc, acc=float(i % 3 == 0)) for i, doc in enumerate(docs)]
        )

    ((row,), _) = answers(log("a.jsonl", 6), log("b.jsonl", 6), cluster="topic")
    assert row["n_pairs"] == 6
    with pytest.raises(ImprintError, match="write one cluster for each example"):
        answers(log("a.jsonl", 6), log("b.jsonl", 5), cluster="topic")


def test_runs_with_commas_are_seeds(tmp_path: Path) -> None:
    def runs(side: str, rate: float) -> str:
        paths = [
            logs.of_values(tmp_path / f"{side}{i}" / "samples_t.jsonl", values(200, rate, 10 * i + len(side)))
            for i in range(3)
        ]
        return ",".join(str(path.parent) for path in paths)

    ((row,), _) = answers(runs("base", 0.4), runs("tuned", 0.7))
    assert (row["n_seeds"], row["scope"], row["verdict"], row["eval"]) == (3, "method", "better", "t")
    ((row,), _) = answers(tmp_path / "base0", runs("tuned", 0.7))
    assert row["n_seeds"] == 3, "a single run stands against all"


def test_two_logs_of_one_eval_in_a_folder_are_refused(tmp_path: Path) -> None:
    for day in "12":
        logs.of_values(tmp_path / "m" / f"samples_t_2026-01-0{day}T00-00-00.0.jsonl", {"a": 1.0})
    with pytest.raises(ImprintError, match="are both logs of 't'"):
        answers(tmp_path / "m", tmp_path / "m/samples_t_2026-01-01T00-00-00.0.jsonl")


def test_evals_of_folders_are_one_family(tmp_path: Path) -> None:
    for side, rate in (("a", 0.4), ("b", 0.6)):
        for name in ("t", "u", "only_" + side):
            logs.of_values(tmp_path / side / f"samples_{name}.jsonl", values(200, rate, len(name) + ord(side)))
    together, notes = answers(tmp_path / "a", tmp_path / "b")
    (alone,), _ = answers(tmp_path / "a/samples_t.jsonl", tmp_path / "b/samples_t.jsonl")
    assert [row["eval"] for row in together] == ["t", "u"]
    assert together[0]["ci_high"] - together[0]["ci_low"] > alone["ci_high"] - alone["ci_low"]
    assert notes == ["only_a: only a has it, so it is left out", "only_b: only b has it, so it is left out"]


def test_metrics_have_directions_and_may_be_chosen(tmp_path: Path) -> None:
    def log(name: str, shift: float) -> Path:
        lines = [logs.line(f"q{i}", acc=float(i % 2), perplexity=i % 5 + shift + i / 1000) for i in range(40)]
        return logs.write(tmp_path / name, lines)

    a, b = log("a.jsonl", 0.0), log("b.jsonl", -0.5)
    assert answers(a, b)[0][0]["metric"] == "acc"
    ((row,), _) = answers(a, b, "perplexity")
    assert (row["direction"], row["difference"], row["wins"]) == (-1, -0.5, 40)
    with pytest.raises(ImprintError, match="do not share f1; they have acc, perplexity"):
        answers(a, b, "f1")


def test_values_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    left = values(20, 0.5, 1)
    a = logs.of_values(tmp_path / "a.jsonl", left)
    b = logs.of_values(tmp_path / "b.jsonl", {**left, "How much is 3 and 3?": float("nan")})
    ((row,), notes) = answers(a, b)
    assert (row["n_pairs"], row["n_missing"]) == (19, 1)
    assert notes == ["b: 1 values of acc are missing or no finite numbers, so their pairs are left out"]


def test_a_side_is_not_compared_with_itself(tmp_path: Path) -> None:
    path = logs.of_values(tmp_path / "a.jsonl", {"q": 1.0})
    with pytest.raises(ImprintError, match="is compared with itself"):
        answers(path, path)
    with pytest.raises(ImprintError, match="no such file or folder"):
        answers(path, tmp_path / "b.jsonl")


# The command

EVIL = "<script>alert(1)</script>\u202e\x1b[31m | `x`"


@pytest.fixture
def logs_of_two(tmp_path: Path) -> tuple[str, str]:
    paths = [
        logs.write(
            tmp_path / f"{side}.jsonl",
            [logs.line(f"{EVIL} {i}", f"{EVIL} {side}", acc=float((i + ord(side)) % 3 == 0)) for i in range(30)],
        )
        for side in "ab"
    ]
    return str(paths[0]), str(paths[1])


def test_it_prints_a_table_and_writes_a_page_that_obeys_no_log(
    logs_of_two: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "out.html"
    compare.main([*logs_of_two, "--report", str(report)])
    out = capsys.readouterr().out
    assert re.search(r"eval +metric +A +B +B - A +interval +n +verdict\nb +acc", out) and f"Report: {report}" in out
    assert "\x1b" not in out and "\u202e" not in out
    html = report.read_text(encoding="utf-8")
    assert "<script>alert" not in html and "Does b beat a on b?" in html
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])  # type: ignore[index]
    blocks = [json.loads(gzip.decompress(base64.b64decode(block))) for block in data["evals"]["b"]["blocks"]]
    assert any("alert(1)" in text for block in blocks for text in block["texts"]), "responses are shown as they are"
    compare.main([*logs_of_two, "--report", str(report)])  # its own report may be written again


def test_no_other_file_is_overwritten(logs_of_two: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    with pytest.raises(SystemExit, match=r"is no report of imprint\.compare"):
        compare.main([*logs_of_two, "--report", str(tmp_path / "mine.html")])
    assert (tmp_path / "mine.html").read_text() == "<p>mine</p>"
    compare.main([*logs_of_two, "--report", str(tmp_path / "mine.html"), "--force"])
    with pytest.raises(SystemExit, match="is a folder"):
        compare.main([*logs_of_two, "--report", str(tmp_path)])


def test_the_tour_needs_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    (command,) = re.findall(r"-m imprint\.compare (.*) --report tour\.html", makefile)
    words = [str(ROOT / word) if word.startswith("resources/") else word for word in command.split()]
    compare.main([*words, "--report", str(tmp_path / "tour.html")])
    assert re.search(r"forms +prompt_strict .* better\n", capsys.readouterr().out)


def test_options_are_shown_as_responses() -> None:
    tour = ROOT / "resources/bundled/tour"
    out = verdict.compared(*sides.both(str(tour / "base"), str(tour / "both"), {}))
    shown = out.tables["generations"].filter(pl.col("eval") == "general", pl.col("arm") == "base")
    assert shown.height == 4 * shown["example_id"].n_unique() and shown["logprob_sum"].null_count() == 0


# The manual

MANUAL = (ROOT / "docs/foreign.md").read_text(encoding="utf-8")


def test_the_manuals_first_command_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = re.findall(r"python -m imprint\.compare (.*)", MANUAL)
    words = [str(ROOT / word) if word.startswith("resources/") else word for word in command.split()]
    compare.main([*words, "--report", str(tmp_path / "compare.html")])
    assert "A is base, B is both. Each side is one run:" in capsys.readouterr().out


def test_the_manuals_yaml_is_what_the_code_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, example = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", MANUAL, re.S))
    assert gating.Policy.model_validate(policy).undecided == "fail"
    assert set(policy["better"] + policy["kept"]) <= loading.load([ROOT / "config/config.yaml"]).questions.keys()
    assert Arm.model_validate(example["arms"]["theirs"]).runs


def test_the_manual_names_each_reader_and_every_column() -> None:
    for name in plugins.names("imports"):
        assert f"| `{name}` |" in MANUAL
    for column in (*table.TEXTS, *table.NUMBERS, "truncated"):
        assert f"`{column}`" in MANUAL and f"`{column}`" in str(table.__doc__)
