"""Where a run finds itself: without git, in a locale that is not UTF-8, in a folder with an odd name."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import mini
import security
import workflow
from conftest import ROOT
from imprint.runtime import parquet, schemas
from imprint.tables import database

TEXT = {"read_text", "write_text", "open", "fdopen", "run", "Popen", "check_output"}
"""Calls that read or write text, unless they say that they do not."""
OTHERS = {
    "os.open",
    "archive.open",
    "plug.open",
    "environment.open",
    "method.open",
    "spec.method.open",
    "spec.reader.open",
}
"""Calls of the same names that open no text: of a descriptor, of a part of a wheel, of a plug-in."""


def guesses(call: ast.Call) -> bool:
    """Whether a call reads or writes text in an encoding that it does not name."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = {keyword.arg for keyword in call.keywords}
    if name not in TEXT or "encoding" in given or ast.unparse(call.func) in OTHERS:
        return False
    if name in ("run", "Popen", "check_output"):
        return "text" in given
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return name.endswith("text") or not any("b" in mode for mode in modes)


def test_every_text_is_read_and_written_as_utf_8() -> None:
    for path in sorted((ROOT / "workflow").rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        assert not [f"{path}:{n.lineno}" for n in nodes if isinstance(n, ast.Call) and guesses(n)]


def without_git(folder: Path) -> str:
    """A PATH on which everything is but git."""
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for tool in Path(place).iterdir() if Path(place).is_dir() else ():
            if not tool.name.startswith("git") and not (folder / tool.name).exists():
                (folder / tool.name).symlink_to(tool)
    return str(folder)


@pytest.mark.workflow
@pytest.mark.slow
def test_no_git_no_utf_8_and_an_odd_folder(tmp_path: Path) -> None:
    project = mini.make(tmp_path / "what?\\ [1]")
    workflow.edit(project, lambda config: config["arms"]["instruct"]["fit"].update(epochs=1))
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": without_git(tmp_path / "bin")}
    done = subprocess.run(
        workflow.command(), cwd=project, env={**workflow.environment(), **plain}, capture_output=True, timeout=600
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    report = (project / "results/report.html").read_text(encoding="utf-8")
    assert "commit unknown" in report and "–" in report
    copy = tmp_path / "imprint.duckdb"  # DuckDB itself opens no file whose path holds a backslash
    shutil.copyfile(project / "results/imprint.duckdb", copy)
    with duckdb.connect(str(copy), read_only=True) as db:
        assert db.execute("select count(*) from scores").fetchone() != (0,)
        assert db.execute("select count(*) from verdicts").fetchone() != (0,)
    security.seen(
        "no git on PATH; `LC_ALL=C` without Python's UTF-8 mode; a project folder with `?` and a backslash",
        "the run ends as anywhere; the report says that the commit is unknown",
    )


def test_the_views_of_a_database_read_its_own_rows_alone(tmp_path: Path) -> None:
    def rows(folder: str, arm: str) -> dict[str, Path]:
        paths = {name: tmp_path / folder / f"{name}.parquet" for name in ("summary", "answers", "prompts")}
        for name, path in paths.items():
            parquet.write(path, name, pa.Table.from_pylist([], schema=schemas.SCHEMAS[name]))
        prompt = {"prompt_sha256": arm, "prompt": arm, "template_sha256": ""}
        parquet.write(paths["prompts"], "prompts", [prompt])
        return paths

    rows("run_2", "another checkout's")
    database.run(database.Spec(arms=[], evals=[]), tmp_path / "imprint.duckdb", rows("run_?", "ours"))
    with duckdb.connect(str(tmp_path / "imprint.duckdb"), read_only=True) as db:
        assert db.execute("select prompt from prompts").fetchall() == [("ours",)]
    security.seen(
        "a project folder whose name is a pattern (`run_?`) that another checkout's name (`run_2`) fits",
        "the database's views read its own files alone",
    )
