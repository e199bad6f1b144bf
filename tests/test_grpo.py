"""GRPO on a pico model: that it is TRL's, that a kill changes nothing, and what it keeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import pico
from imprint import bounded, checkpoints, model_files, models, plugins, tables
from imprint.contexts import plain, prior_prompt
from imprint.errors import ImprintError
from imprint.identity import file_sha256, write_json
from imprint.methods import Context, Fit, grpo
from imprint.rewards import Reward

WORDS = ["the", "sea", "two red birds", "a house by the river", "rain", "my old friend", "bread"]


def rows(n: int = 6) -> list[dict[str, Any]]:
    """Prompts of different lengths with one or two constraints that a random model sometimes meets."""
    made = []
    for i in range(n):
        ids = ["punctuation:no_comma", "keywords:letter_frequency"]
        kwargs: list[dict[str, Any]] = [{}, {"letter": "abcdefg"[i % 7], "let_frequency": 2, "let_relation": "at least"}]
        made.append(
            {
                "messages": [{"role": "user", "content": f"Write about {WORDS[i % 7]}."}],
                "reference": {"instruction_id_list": ids, "kwargs": kwargs, "prompt": ""},
                "fields": {},
                "strata": {},
            }
        )
    names = tables.example_ids(row["messages"] for row in made)
    return [{**row, "example_id": name} for row, name in zip(made, names, strict=True)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a pico model."""
    folder = pico.make(tmp_path_factory.mktemp("models") / "pico")
    template = model_files.template_sha256(model_files.load_tokenizer(folder))
    write_json(folder / "manifest.json", {"kind": "model", "fingerprint": "0", "template_sha256": template})
    return folder / "manifest.json"


def job(root: Path, out: Path, context: Any = None, dataset: Any = None, seed: int = 0, **settings: Any) -> Fit:
    defaults = {
        "data": "d",
        "reward": "ifeval.instruction_strict",
        "steps": 4,
        "prompts_per_step": 2,
        "group_size": 4,
        "completion_tokens": 24,
        "learning_rate": 1e-2,
    }
    (out / "work").mkdir(parents=True, exist_ok=True)
    return Fit(
        arm="tuned",
        seed=seed,
        settings=grpo.Settings(**{**defaults, **settings}),
        context=context or Context(plain, plain.Settings()),
        manifests=[root],
        folder=out / "work",
        out=out,
        threads=1,
        dtype="float32",
        datasets={"d": rows() if dataset is None else dataset},
    )


def weights(fit: Fit) -> str:
    (file,) = (fit.out / "weights").glob("*.safetensors")
    return file_sha256(file)


def curve(fit: Fit, quantity: str) -> list[float]:
    table = tables.read(fit.out / "curves.parquet", "curves").to_pylist()
    return [row["value"] for row in table if row["quantity"] == quantity]


def test_a_fit_learns_and_keeps_what_it_drew(root: Path, tmp_path: Path) -> None:
    fit = job(root, tmp_path, steps=6)
    made = grpo.fit(fit)
    assert made["kind"] == "full" and made["metrics"]["completions"] == 48
    drawn = tables.read(tmp_path / "rollouts.parquet", "rollouts").to_pylist()
    assert len(drawn) == 48 and [row["step"] for row in drawn] == [1 + i // 8 for i in range(48)]
    for start in range(0, 48, 4):
        group = drawn[start : start + 4]
        assert len({row["example_id"] for row in group}) == 1 and len({row["prompt"] for row in group}) == 1
        assert [row["sample"] for row in group] == [0, 1, 2, 3]
        assert abs(sum(row["advantage"] for row in group)) < 1e-4
        if len({row["reward"] for row in group}) == 1:
            assert all(row["advantage"] == 0 for row in group)
    by_step = [sum(row["reward"] for row in drawn[8 * i : 8 * i + 8]) / 8 for i in range(6)]
    assert curve(fit, "reward") == pytest.approx(by_step)
    assert curve(fit, "reward/ifeval.instruction_strict") == pytest.approx(by_step)
    lengths = [sum(row["response_tokens"] for row in drawn[8 * i : 8 * i + 8]) / 8 for i in range(6)]
    assert curve(fit, "length") == pytest.approx(lengths)
    assert {len(curve(fit, name)) for name in ("loss", "entropy", "zero_variance_share", "unjudged_share")} == {6}
    assert {row["finish_reason"] for row in drawn} <= {"stop", "length"}
    # The kept rewards are what the score says of the kept responses.
    reference = {row["example_id"]: row for row in rows()}
    (reward,) = (Reward(term) for term in fit.settings.reward)
    for row in drawn[:8]:
        assert dict(row["rewards"])["ifeval.instruction_strict"] == reward.value(
            reference[row["example_id"]], row["response"]
        )
