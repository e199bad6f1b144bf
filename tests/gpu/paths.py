"""Fits of every kind and answers of every kind on one device, on a pico model, each in a folder of its own.

    python tests/gpu/paths.py DEVICE DTYPE FOLDER

A process to a device: trainers hold on to the first one that they see.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "workflow/scripts")]

import torch  # noqa: E402

import pico_arms  # noqa: E402
import test_atlas  # noqa: E402
import test_grpo  # noqa: E402
import test_sft  # noqa: E402
from imprint.engines import Candidates, Prompt  # noqa: E402
from imprint.engines.transformers import Engine  # noqa: E402
from imprint.methods import atlas, grpo, sft  # noqa: E402
from imprint.models import chains  # noqa: E402
from imprint.runtime.identity import write_json  # noqa: E402

TEXTS = ["Hello", "What is the sum of two and two?", "x", "Write a poem of the sea and you are in it" * 5, "You are"]


def fits(root: Path, arms: dict[str, list[Path]]) -> dict[str, Callable[[Path], tuple[Any, Any]]]:
    """Name -> (method, job) for an output folder."""
    lora = {"rank": 4}
    return {
        "sft": lambda out: (sft, test_sft.job(root, out)),
        "sft_lora": lambda out: (sft, test_sft.job(root, out, lora=lora)),
        "sft_checkpointing": lambda out: (sft, test_sft.job(root, out, gradient_checkpointing=True)),
        "grpo": lambda out: (grpo, test_grpo.job(root, out)),
        "grpo_lora": lambda out: (grpo, test_grpo.job(root, out, lora=lora)),
        "grpo_checkpointing": lambda out: (grpo, test_grpo.job(root, out, gradient_checkpointing=True)),
        "grpo_kl_top_p": lambda out: (grpo, test_grpo.job(root, out, beta=0.1, top_p=0.9)),
        "atlas": lambda out: (atlas, test_atlas.job(([root], arms), out)),
        "atlas_partitions": lambda out: (atlas, test_atlas.job(([root], arms), out, partitions=3)),
        "atlas_on_a_fit": lambda out: (atlas, test_atlas.job((arms["a"], arms), out)),
    }


def answers(root: Path, device: str, dtype: str) -> dict[str, list[Any]]:
    """Greedy and sampled texts, and likelihoods of options, with the log-probability of each."""
    engine = Engine(*chains.load([root], dtype, device), 4)
    rendered = [engine.render([{"role": "user", "content": text}]).text for text in TEXTS]
    ways: dict[str, dict[str, Any]] = {
        "greedy": {},
        "sampled": {"temperature": 1.0},
        "top_p": {"temperature": 0.7, "top_p": 0.8},
    }
    found: dict[str, list[Any]] = {}
    for name, how in ways.items():
        asked = [Prompt(text, 32, seed=i, **how) for i, text in enumerate(rendered)]
        found[name] = [(one.text, one.logprob_sum) for one in engine.generate(asked)]
    scored = engine.loglikelihood([Candidates(text, (" yes", " no, never", " perhaps")) for text in rendered])
    found["options"] = [(one.text, one.logprob_sum) for row in scored for one in row]
    return found


def main(device: str, dtype: str, folder: Path) -> None:
    torch.set_num_threads(1)
    root = pico_arms.root(folder / "pico")
    arms = {
        "a": pico_arms.full(root, folder / "a", 1),
        "b": pico_arms.full(root, folder / "b", 2),
        "low": pico_arms.lora(root, folder / "low", 3),
    }
    for name, make in fits(root, arms).items():
        method, job = make(folder / name)
        try:
            method.fit(replace(job, device=device, dtype=dtype))
        except Exception:  # the other fits are looked at all the same
            (folder / name / "error.txt").write_text(traceback.format_exc())
    write_json(folder / "answers.json", answers(root, device, dtype))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
