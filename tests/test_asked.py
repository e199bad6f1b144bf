"""The version of an experiment, by which its looks are counted."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import one_fit
from imprint.config import loading
from imprint.dag import asked

QUESTION = {"asks": "Does training help at all?", "arm": "tuned", "control": "base", "eval": "drawn"}


def config(**changes: Any) -> Any:
    """An experiment on generated requests; `changes`: dotted path in the config -> value."""
    raw = one_fit()
    raw["datasets"]["drawn"] = {"generated": "ifeval_format", "n": 20, "instructions": "train", "part": "test"}
    raw["evals"]["drawn"] = {"dataset": "drawn", "score": "ifeval"}
    raw["questions"] = {"helps": dict(QUESTION)}
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = raw
        for name in parents:
            part = part[name]
        part[last] = value
    return loading.parse(raw)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seeds", [0, 1, 2]),
        ("limit", 8),
        ("datasets__drawn__n", 40),
        ("questions__helps__asks", "Is it any better than before?"),
        ("arms__base__evals", ["drawn"]),
        ("arms__tuned__control", ["base"]),
        ("arms__tuned__resources", {"mem_mb": 4000}),
        ("evals__general__retention", True),
        ("final_seeds", 5),
        ("title", "Another title"),
    ],
)
def test_amounts_and_words_leave_the_version_alone(path: str, value: Any) -> None:
    assert asked.version(config(**{path: value})) == asked.version(config())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("datasets__drawn__seed", 1),
        ("evals__drawn__max_new_tokens", 32),
        ("arms__tuned__fit__epochs", 0.5),
        ("arms__tuned__apply", {"context": "self_role"}),
        ("questions__helps__kind", "equivalence"),
        ("questions__helps__over", "instruction"),
    ],
)
def test_what_decides_an_answer_makes_another_version(path: str, value: Any) -> None:
    changes = {path: value, **({"questions__helps__margin": 0.1} if value == "equivalence" else {})}
    assert asked.version(config(**changes)) != asked.version(config())


@pytest.mark.parametrize("change", [{"temperature": 0.7}, {"max_new_tokens": 32}, {"samples": 8}])
def test_so_does_how_the_runs_that_a_fit_reads_are_asked(change: dict[str, Any]) -> None:
    best = {"method": "best_of_n", "run": {"arm": "base", "eval": "draws"}, "score": "ifeval.instruction_strict"}
    practice = {"generated": "ifeval_format", "n": 8, "instructions": "train"}
    draws = {"dataset": "practice", "samples": 4, "temperature": 1.0, "arms": ["base"]}

    def version(**more: Any) -> str:
        return asked.version(config(datasets__practice=practice, evals__draws={**draws, **more}, arms__tuned__fit=best))

    assert version(**change) != version()


def test_so_does_the_log_of_an_arm() -> None:
    def version(**runs: Any) -> str:
        theirs = {"import": "lm_eval", "evals": {"drawn": "tests/logs/samples_tiny_sums.jsonl"}, **runs}
        return asked.version(config(arms__theirs={"runs": theirs}, questions__helps__arm="theirs"))

    assert version(take={"prompt_strict": "acc"}) != version()
