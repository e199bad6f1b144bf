"""What `make run ARM=...` and `make run QUESTION=...` ask snakemake for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from conftest import one_fit
from imprint import targets
from imprint.config import loading

ASKED = {
    "seeds": [3, 4],
    "datasets": {
        "words": {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"},
        "practice": {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "train"},
        "accepted": {"synth": "accepted", "arm": "base", "eval": "draws", "dataset": "practice", "score": "ifeval"},
    },
    "evals": {
        "words": {"dataset": "words", "score": ["ifeval", "word"]},
        "draws": {"dataset": "practice", "arms": ["base"]},
    },
    "arms": {"best": {"parent": "base", "fit": {"method": "sft", "data": "accepted"}, "evals": ["words"]}},
    "questions": {
        "helps": {
            "asks": "Does it help here?", "arm": "best", "control": "tuned", "eval": "words_word",
            "check": {"eval": "words", "control": "base"},
        },
        "learns": {
            "asks": "Does it help here?", "arm": "tuned", "control": "base", "eval": "general",
            "check": {"curve": "reward"},
        },
    },
}  # fmt: skip


def printed(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(loading.merge(one_fit(), ASKED)), encoding="utf-8")
    targets.main(["--configfile", str(path), *arguments])
    return capsys.readouterr().out.split()


def scores(arm: str, ev: str, *seeds: int) -> list[str]:
    return [f"results/scores/{arm}/seed{seed}/{ev}.parquet" for seed in seeds]


def test_an_arm_is_its_weights_and_its_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = [f"results/arms/best/seed{seed}/manifest.json" for seed in (3, 4)]
    assert printed(tmp_path, capsys, "--arm=best", "--question=") == [
        *weights, *scores("best", "words", 3, 4), *scores("best", "words_word", 3, 4),
    ]  # fmt: skip


def test_of_an_eval_that_only_samples_there_are_responses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(printed(tmp_path, capsys, "--arm=base")) == {
        *scores("base", "general", 0), *scores("base", "words", 0), *scores("base", "words_word", 0),
        "results/generations/base/seed0/draws.parquet",
    }  # fmt: skip


def test_a_question_is_what_it_compares_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(printed(tmp_path, capsys, "--question=helps")) == {
        *scores("best", "words_word", 3, 4), *scores("tuned", "words_word", 3, 4),
        *scores("best", "words", 3, 4), *scores("base", "words", 0),
    }  # fmt: skip
    assert set(printed(tmp_path, capsys, "--question=learns")) == {
        *scores("tuned", "general", 3, 4), *scores("base", "general", 0),
        *(f"results/arms/tuned/seed{seed}/manifest.json" for seed in (3, 4)),
    }  # fmt: skip


def test_a_limited_run_has_targets_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limited = printed(tmp_path, capsys, "--config", "limit=8", "--arm=best")
    assert [path.replace("limit8/", "") for path in limited] == printed(tmp_path, capsys, "--arm=best")
    assert all(path.startswith("results/limit8/") for path in limited)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to run is named; write `make run ARM=NAME` or `make run QUESTION=NAME`"),
        (["--arm=bset"], "ARM: no arm named 'bset'; did you mean 'best'?"),
        (["--question=help"], "QUESTION: no question named 'help'; did you mean 'helps'?"),
        (["--arm=\x1b[2J"], r"ARM: no arm named '\x1b[2J'"),
    ],
)
def test_what_is_not_there_is_told(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        printed(tmp_path, capsys, *arguments)
    assert said in str(end.value)
