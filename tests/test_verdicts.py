"""The lines at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imprint.report import verdicts
from imprint.runtime import parquet, schemas

ROW: dict[str, Any] = {
    **dict.fromkeys(schemas.SCHEMAS["answers"].names),
    **{"question": "q1", "asks": "Does the role help?", "kind": "gain", "arm": "role", "control": "base", "eval": "e1"},
    **{"metric": "accuracy", "margin": 0.0, "direction": 1, "n_pairs": 64, "n_missing": 0, "n_seeds": 3},
    **{"verdict": "better", "scope": "method", "difference": 0.25, "ci_low": 0.125, "ci_high": 0.375, "smallest": 0.18},
    **{"share": 1.0, "looks_before": 0, "may_decide": True, "other_versions": 0},
}


def written(folder: Path, *rows: dict[str, Any]) -> str:
    parquet.write(folder / "tables/answers.parquet", "answers", list(rows))
    return verdicts.text(str(folder))


def test_every_question_has_its_answer(tmp_path: Path) -> None:
    assert written(tmp_path, ROW).splitlines()[1:3] == [
        "  Does the role help?",
        "    Better. On e1, role is 0.250 higher than base in accuracy (simultaneous 95% interval +0.125 to "
        "+0.375; n = 64, 3 seeds; differences from 0.18 on would have been seen with 80% power).",
    ]


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({"verdict": "no data", "difference": None}, "No data. On e1, no example has a score of both role and base."),
        ({"verdict": "not tested", "difference": None}, "Not tested. The check does not show that"),
        (
            {"verdict": "undecided", "examples_needed": 1900, "seeds_needed": 5},
            "1,900 examples or 5 seeds would settle it",
        ),
        ({"verdict": "undecided", "scope": "weights", "n_seeds": 1}, "Take three seeds or more"),
        (
            {"verdict": "undecided", "scope": "weights", "n_seeds": 0, "examples_needed": 900},
            "n = 64; differences from 0.18 on would have been seen with 80% power). This is about these weights alone: "
            "an arm has a single training run. If the difference stays, a plan of 900 examples would settle it.",
        ),
        ({"verdict": "higher", "scope": "weights", "seed_sd": 0.0571}, "if training runs spread by at most 0.057"),
        ({"verdict": "kept", "kind": "retention", "margin": 0.05}, "Kept. On e1, role is 0.250 higher than base"),
        ({"verdict": "kept", "kind": "retention", "margin": 0.05}, "; margin 0.05; margins from 0.18 on would have"),
        ({"difference": -0.25, "direction": -1}, "0.250 lower than base in accuracy, where lower is better ("),
        ({"difference": 0.0}, "role is equal to base in accuracy"),
        ({"difference": -0.0004}, "role is within 0.0005 of base in accuracy"),
        ({"over": "instruction"}, "n = 64 values of instruction, 3 seeds"),
        ({"ci_low": None, "ci_high": None, "smallest": None}, "higher than base in accuracy (n = 64, 3 seeds)."),
        ({"n_missing": 6, "worst_low": 0.1, "worst_high": 0.3}, "6 left out; had all of them gone one way, the"),
        ({"share": 0.25, "ci_low": None, "ci_high": None}, "an early look at 25% of the planned data, too early"),
        ({"share": 0.5}, "an early look at 50% of the planned data, judged by an early boundary"),
        ({"looks_before": 2}, "There were 2 earlier looks at fewer data, which the interval accounts for."),
        ({"may_decide": False, "ci_low": None, "ci_high": None}, "The error of 5% was spent when"),
        ({"other_versions": 1}, "1 other version of this experiment were looked at; no interval accounts for that"),
    ],
)
def test_what_an_answer_says(tmp_path: Path, changes: dict[str, Any], sentences: str) -> None:
    assert sentences in written(tmp_path, {**ROW, **changes})


def test_a_config_without_questions_says_so(tmp_path: Path) -> None:
    assert "asks no question" in written(tmp_path)


def test_a_run_to_an_earlier_file_has_nothing_to_say(tmp_path: Path) -> None:
    assert verdicts.text(str(tmp_path)) == ""
