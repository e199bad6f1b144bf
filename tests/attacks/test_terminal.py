"""Text that a terminal would obey, in names, paths, messages and models' words; and a question that make would run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pico
import security
from conftest import ROOT
from imprint import ask, prune, resume, score
from imprint.dag.experiment import Experiment
from imprint.engines import Response
from imprint.models import sources
from imprint.policies import conversation
from imprint.report import verdicts
from imprint.runtime import parquet, schemas
from imprint.runtime.errors import ImprintError, shown
from imprint.training import checkpoints

TITLE = "\x1b]0;owned\x07"  # sets the window's title
RED, BACK, WIPED = "\x1b[31m", "\u202egnp.exe", "\x9b2J"
FORGED = f"{TITLE}{RED}{BACK}{WIPED}\r"


def obeyed(text: str) -> set[str]:
    """The characters of a text that a terminal does something else with than to show them."""
    kinds = ("Cc", "Cs", "Zl", "Zp")
    directions = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return {
        c
        for c in text
        if (unicodedata.category(c) in kinds or unicodedata.bidirectional(c) in directions) and c not in "\n\t"
    }


@given(st.text(st.characters(), max_size=40) | st.text("\x1b\x9b\u202e\u2028\ud800\x7f\r\na\\", max_size=12))
def test_what_is_shown_is_never_obeyed_and_words_stay(text: str) -> None:
    assert not obeyed(shown(text)) and not obeyed(str(ImprintError(text)))
    assert shown(shown(text)) == shown(text), "a message that is put into another one is written once"
    if not obeyed(text) and not set(text) & set("\u061c\u200e\u200f"):
        assert shown(text) == text


@pytest.fixture
def told(capfd: pytest.CaptureFixture) -> Any:
    """What was printed since the last call."""

    def read() -> str:
        captured = capfd.readouterr()
        return str(captured.out + captured.err)

    return read


def stopped(call: Any, *given: Any) -> str:
    with pytest.raises(SystemExit) as end:
        call(*given)
    return str(end.value)


def test_a_config_and_a_command_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    said = stopped(ask.main, ["--", f"base{FORGED}", "?"])
    assert not obeyed(said) and r"base\x1b]0;owned\x07\x1b[31m\u202egnp.exe\x9b2J\r" in said
    config = project / "config/config.yaml"
    config.write_text(config.read_text() + '\n"\\e]0;owned\\a\\u202e": 1\n')
    for argv in ("-n", "-n --configfile config/config.yaml"):
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *argv.split()], capture_output=True, text=True, check=False
        )
        assert done.returncode and not obeyed(done.stdout + done.stderr) and r"\x1b]0;owned\x07\u202e" in done.stderr
    assert not obeyed(stopped(prune.main, []))
    security.seen(
        "escape sequences in a config or a command line",
        "the message shows them as `\\x1b` and the like; the terminal obeys none",
    )


def test_a_chat_template_that_raises_them(tmp_path: Path) -> None:
    folder = pico.make(tmp_path / "pico")
    (folder / "chat_template.jinja").write_text(f"{{{{ raise_exception('{FORGED}') }}}}")
    with pytest.raises(ImprintError, match="does not render a question") as error:
        sources.fetch({"path": "pico"}, tmp_path / "models/pico", tmp_path)
    assert not obeyed(str(error.value)) and r"\x1b]0;owned" in str(error.value)
    security.seen(
        "escape sequences in the error of a model's chat template", "shown as `\\x1b` and the like, not obeyed"
    )


def test_what_a_model_says(project: Path, monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(ask, "Experiment", _Built)
    (project / "there").touch()
    answers = [Response(f"Yes{FORGED}\n\tno", "length", 1, 1, 0.0, 0.0)]
    monkeypatch.setattr(conversation, "ask", lambda *given: answers)
    ask.main(["base", "?"])
    said = told()
    assert "Yes\\x1b]0;owned\\x07" in said and "\n\tno\n" in said and not obeyed(said)
    answers[0] = Response(None, None, None, None, None, 0.0, f"KeyError: {FORGED}")
    assert not obeyed(stopped(ask.main, ["base", "?"]))
    security.seen("escape sequences in a model's answer to `make ask`", "shown as `\\x1b` and the like, not obeyed")


class _Built(Experiment):
    """An experiment whose weights are there."""

    def chain(self, arm: str, seed: int) -> list[str]:
        return ["there"]


def test_names_of_files(project: Path, monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    monkeypatch.chdir(project)
    for number, name in enumerate((f"old{FORGED}", "x\n   9.9 MiB  resources/models/kept", "\udcff")):
        (project / f"results/arms/gone/seed{number}" / name).mkdir(parents=True)
    prune.main([])
    said = told()
    assert not obeyed(said) and "old\\x1b]0;owned" in said and "\\udcff" in said
    assert said.count("\n") == 4, "an entry is a line, whatever it is called"
    fit = project / FORGED
    (fit / "checkpoint-2").mkdir(parents=True)
    assert checkpoints.last(fit) is None
    assert "checkpoint-2 was not finished" in (said := told()) and not obeyed(said)
    security.seen(
        "escape sequences, new lines and bytes that are no text in file names that `make prune` lists",
        "a line an entry, with escapes for what a terminal would obey",
    )


def test_scores_stay_json(tmp_path: Path, told: Any) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"key": f"é{FORGED}", "response": FORGED, "reference": {"answer": "1"}}
    path.write_text(json.dumps(row), encoding="utf-8")
    score.main(["numeric", str(path)])
    said = told()
    assert not obeyed(said) and "é" in said and json.loads(said)["key"] == row["key"]
    assert not obeyed(stopped(score.main, ["numeric", str(tmp_path / FORGED)]))
    security.seen(
        "escape sequences in the rows that `imprint.score` reads", "its output is the same JSON, with them as `\\u001b`"
    )


def test_processes_and_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    monkeypatch.chdir(tmp_path)
    ended: list[int] = []
    monkeypatch.setattr(resume, "belonging", lambda runs, lock: [] if ended else [1234567])
    monkeypatch.setattr(resume.processes, "started", lambda pid: None if ended else 1)
    monkeypatch.setattr(resume.processes, "command", lambda pid: f"python snakemake {FORGED}")
    monkeypatch.setattr(resume.processes, "send", lambda pid, number, still: ended.append(pid) or True)
    resume.end_processes([], tmp_path)
    assert "python snakemake" in (said := told()) and not obeyed(said) and ended == [1234567]
    blank = dict.fromkeys(schemas.SCHEMAS["answers"].names)
    row = {**blank, "arm": FORGED, "control": "c", "eval": "e", "metric": "m", "asks": FORGED, "n_pairs": 8}
    row["verdict"] = FORGED
    parquet.write(tmp_path / "tables/answers.parquet", "answers", [row])
    assert not obeyed(verdicts.text(str(tmp_path))) and "owned" in verdicts.text(str(tmp_path))
    security.seen(
        "escape sequences in command lines that `make resume` ends, and in the tables behind the verdicts",
        "shown as `\\x1b` and the like, not obeyed",
    )


@pytest.mark.parametrize("through", ["the command line", "the environment"])
def test_make_runs_nothing_of_a_question(tmp_path: Path, through: str) -> None:
    arm, question = (f"$(shell touch {tmp_path}/{name})${{HOME}} $(file >{tmp_path}/{name}) $@ %" for name in "aq")
    given = {"ARM": arm, "Q": question}
    words = [f"{name}={value}" for name, value in given.items()] if through == "the command line" else []
    done = subprocess.run(
        ["make", "--silent", "-o", ".venv/made", "ask", "BIN=tests/echo", *words],
        cwd=ROOT,
        env={**os.environ, **({} if words else given)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith(f"--\n{arm}\n{question}\n")
    assert not list(tmp_path.iterdir())
    security.seen("`$(shell ...)` in the arm or the question of `make ask`", "handed over as text; make runs nothing")
