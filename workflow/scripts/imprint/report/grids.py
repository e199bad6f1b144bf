"""The tables of the page that a reader can copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imprint.report.copies import Grid
from imprint.report.facts import Spec
from imprint.report.matrix import Cell, Column


def of_answers(answers: Sequence[dict[str, Any]]) -> Grid:
    """A row for each answer."""
    keys = ("question", "arm", "control", "eval", "metric", "verdict", "difference")
    numbers = ("ci_low", "ci_high", "n_pairs", "n_seeds", "smallest", "margin")
    return Grid(
        [*keys, "low", "high", "n", "seeds", "smallest", "margin", "asks"],
        [[row[key] for key in (*keys, *numbers, "asks")] for row in answers],
    )


def of_matrix(columns: Sequence[Column], cells: Mapping[tuple[str, str], Cell], facts: Spec) -> Grid:
    """A row for each arm, a column for each eval; cells are means."""
    return Grid(
        ["arm", *(f"{column.name} {column.metric}" for column in columns)],
        [
            [arm.name, *(cell.summary["mean"] if (cell := cells.get((arm.name, c.name))) else None for c in columns)]
            for arm in facts.arms
            if any((arm.name, column.name) in cells for column in columns)
        ],
    )


def of_comparisons(comparisons: Sequence[dict[str, Any]]) -> Grid:
    """A row for each comparison, of primary and secondary metrics."""
    keys = ("arm", "control", "eval", "metric", "difference")
    numbers = ("ci_low", "ci_high", "n_pairs", "n_seeds", "wins", "losses", "ties")
    return Grid(
        [*keys, "low", "high", "n", "seeds", "won", "lost", "tied"],
        [[row[key] for key in (*keys, *numbers)] for row in comparisons],
    )
