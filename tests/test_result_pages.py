"""The tables of docs/results hold the figures of the files beside them, and every experiment that has such a page
asks what the page answers."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import result_pages
from conftest import ROOT
from imprint.config import loading

PAGES = sorted(path.parent for path in (ROOT / "docs/results").glob("*/answers.csv"))


@pytest.mark.parametrize("folder", PAGES, ids=lambda folder: folder.name)
def test_a_page_has_the_tables_of_its_files(folder: Path) -> None:
    text = folder.with_suffix(".md").read_text(encoding="utf-8")
    for line in result_pages.lines(folder):
        assert line in text.splitlines(), line


@pytest.mark.parametrize("folder", PAGES, ids=lambda folder: folder.name)
def test_a_page_answers_the_questions_of_its_config(folder: Path) -> None:
    (config,) = (ROOT / "config").rglob(f"{folder.name}.yaml")
    questions = loading.load([config]).questions
    answers = pl.read_csv(folder / "answers.csv")
    assert [(name, asked.asks) for name, asked in questions.items() for _ in asked.evals] == answers.select(
        "question", "asks"
    ).rows()


KEPT = [folder for folder in PAGES if (folder / "kept.csv").is_file()]


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_page_has_the_shares_of_its_file(folder: Path) -> None:
    text = folder.with_suffix(".md").read_text(encoding="utf-8")
    for line in result_pages.shares(folder):
        assert line in text.splitlines(), line


def test_there_are_pages() -> None:
    assert PAGES and KEPT
