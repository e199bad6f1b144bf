"""Odd configs, rows and files: each comes to one message that says what was found, where, and what to do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import security
from conftest import one_fit
from imprint import config, start, strict_yaml
from imprint.errors import ImprintError

LONG = int("f" * 5000, 16)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [LONG]}, r"^seeds\[0\]: found a whole number of 20,000 bits"),
        ({"limit": LONG}, "^limit: found a whole number"),
        ({"arms": {"base": {"resources": {"mem_mb": LONG}}}}, "^arms.base.resources.mem_mb: found a whole number"),
        ({"models": {LONG: {}}}, "^a key of models: found a whole number"),
        ({"datasets": LONG}, "^datasets: found a whole number"),
        ({"arms": {"tuned": {"fit": LONG}}}, "^arms.tuned.fit: found a whole number"),
        ({"engine": {"batch_size": 1e23}}, "^engine.batch_size: found 1e"),
        ({"arms": {"tuned": {"fit": {"batch_size": 1e23}}}}, "^arms.tuned.fit.batch_size: found 1e"),
        ({"arms": {"base": {"resources": {"mem_mb": "(-1)**0.5"}}}}, r"mem_mb: found '\(-1\)\*\*0.5'; write a number"),
        ({"seeds": list(range(20_000))}, "^seeds: found .* at most 1000 items"),
    ],
)
def test_odd_numbers(change: dict, said: str) -> None:
    with pytest.raises(ImprintError, match=said):
        config.parse(config.merge(one_fit(), change))
    security.seen(
        "numbers of thousands of digits, `1e23`, `mem_mb: (-1)**0.5`, 20,000 seeds", "refused: where, and what to write"
    )


def test_a_long_number_of_the_command_line_stays_text() -> None:
    assert start.typed(["9" * 5000]) == ["9" * 5000]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [" + "0," * 3_000_000 + "0]", "larger than 1 MiB"),
        ("a: " + "x" * 100_000_000, "larger than 1 MiB"),
        ("a: [" + "0," * 500_000 + "0]", "over 100,000 values"),
        (
            "".join(f"k{arm}: {{parent: base, control: [base]}}\n" for arm in range(20_000)),
            "write a smaller experiment",
        ),
    ],
    ids=["list", "scalar", "list below the size", "arms"],
)
def test_a_file_that_is_no_config_is_refused_at_once(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(ImprintError, match=said):
        strict_yaml.load(tmp_path / "config.yaml")
    assert time.process_time() - began < 20
    security.seen(
        "a config of 3 million items, 100 MB of text, 20,000 arms", "refused in seconds: too large, or too many values"
    )
