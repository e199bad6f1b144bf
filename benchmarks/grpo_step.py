"""CPU time of a GRPO step of 16 completions of 96 tokens: ours against TRL's own trainer on the same rows.

    python benchmarks/grpo_step.py MANIFEST          (resources/models/smollm2-.../manifest.json)

Both sides take every setting from `imprint.methods.grpo.arguments`, where each flag of TRL is named, so the number
format (the one that `dtype: auto` stands for on this processor), LoRA and gradient checkpointing (off; --checkpointing:
on) are alike. Neither side's completions may end early, so both draw and train on 16 x 96 tokens. Ours computes no
gradient for groups of equal rewards. So that no side has such groups, the rewards that are timed are the place of a
completion in its group. The sides take turns, a process each; a process takes one step to warm up and then measures
STEPS. Before that, a step in fp32 whose draws are coupled compares completions, rewards, loss and gradient.

The last printed line is one JSON object with the figures, the limit and `holds`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "workflow/scripts"), str(ROOT / "tests")]

from imprint.models import chains  # noqa: E402
from imprint.runtime import frame  # noqa: E402

LIMIT = 0.75  # our share of TRL's CPU time
STEPS = 1


def job(manifest: Path, folder: Path, dtype: str, tokens: int, steps: int, checkpointing: bool) -> Any:
    """4 prompts of IFEval's format x 4 completions, trained fully."""
    import fitting
    from imprint.datasets import ifeval_format

    rows = list(ifeval_format.rows(ifeval_format.Settings(n=4 * (STEPS + 1), instructions="train", per_prompt=3), {}))
    fit = fitting.job(
        "grpo",
        [manifest],
        folder,
        arm="benchmark",
        datasets={"d": fitting.named(rows)},
        data="d",
        reward="ifeval.instruction_strict",
        steps=steps,
        prompts_per_step=4,
        group_size=4,
        completion_tokens=tokens,
        gradient_checkpointing=checkpointing,
    )
    return replace(fit, dtype=dtype)


def trainer(side: str, fit: Any) -> Any:
    """A trainer of one side whose completions end at the greatest length only."""
    import datasets

    import grpo_peer
    from imprint.methods import _prompts, grpo
    from imprint.training import fits
    from imprint.training.grpo_trainer import Sampler, Trainer
    from imprint.training.rewards import Reward

    fits.begin(fit)
    model, tokenizer = chains.load(fit.manifests, "float32", "cpu")
    sampler = Sampler(fit)
    rewards = [Reward(term, fit.contexts) for term in fit.settings.reward]
    rows, stop, _ = _prompts.prompts(fit, sampler.policy, rewards)
    if side == "trl":
        del sampler, model
        made = grpo_peer.peer(fit, rows)
        made.generation_config.eos_token_id = made.generation_kwargs["eos_token_id"] = [-1]
        made.eos_token_ids = [-1]
        return made
    sampler.engine.ends = set()
    return Trainer(
        fit,
        sampler,
        stop,
        model=model,
        args=grpo.arguments(fit, len(rewards)),
        reward_funcs=rewards,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def watched(made: Any) -> list[dict[str, float]]:
    """Train; CPU and wall seconds of every step."""
    from transformers import TrainerCallback

    seconds: list[dict[str, float]] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = (time.process_time(), time.perf_counter())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            now = (time.process_time(), time.perf_counter())
            seconds.append({"cpu": now[0] - self.start[0], "wall": now[1] - self.start[1]})

    made.add_callback(Clock())
    made.train()
    return seconds


def spread(made: Any) -> None:
    """Let a trainer judge as before, and then take other rewards, which differ in each group: 0, 1, 2, 3."""
    calculate = made._calculate_rewards

    def rewards(*arguments: Any) -> Any:
        terms = calculate(*arguments)
        places = (terms.new_ones(len(terms)).cumsum(0) - 1) % made.num_generations
        return places[:, None].expand_as(terms).clone()

    made._calculate_rewards = rewards


def measure(side: str, manifest: Path, checkpointing: bool) -> None:
    """Print the seconds of each step after the first, the lengths drawn, and the number format."""
    dtype = chains.dtype_of("auto", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(side, job(manifest, Path(folder), dtype, 96, STEPS + 1, checkpointing))
        spread(made)
        seconds = watched(made)[1:]
        logged = [entry for entry in made.state.log_history if "loss" in entry]
        found = {
            "lengths": [entry["completions/mean_length"] for entry in logged],
            "equal": [entry["frac_reward_zero_std"] for entry in logged[1:]],
        }
        print("\n" + json.dumps({"dtype": dtype, "steps": seconds, **found}))


def compare(manifest: Path, checkpointing: bool) -> dict[str, Any]:
    """One coupled step of 24 tokens in fp32 on each side."""
    import grpo_peer

    found: dict[str, Any] = {}
    for side in ("ours", "trl"):
        with tempfile.TemporaryDirectory() as folder:
            fit = job(manifest, Path(folder), "float32", 24, 1, checkpointing)
            made = trainer(side, fit)
            kept: dict[str, Any] = {}
            calculate = type(made)._calculate_rewards

            def watching(
                inputs: Any,
                prompts: Any,
                texts: Any,
                ids: Any,
                made: Any = made,
                kept: Any = kept,
                calculate: Any = calculate,
            ) -> Any:
                kept["rewards"] = calculate(made, inputs, prompts, texts, ids)
                kept["ids"] = ids
                return kept["rewards"]

            made._calculate_rewards = watching
            with grpo_peer.coupled(fit, made):
                made.train()
            (entry,) = (entry for entry in made.state.log_history if "loss" in entry)
            found[side] = {**kept, **{key: entry[key] for key in ("loss", "grad_norm", "entropy")}}
    ours, trl = found["ours"], found["trl"]
    return {
        "completions_equal": sum(a == b for a, b in zip(ours["ids"], trl["ids"], strict=True)),
        "completions": len(ours["ids"]),
        "rewards_equal": bool((ours["rewards"] == trl["rewards"]).all()),
        "loss_difference": abs(ours["loss"] - trl["loss"]),
        "grad_norm": [ours["grad_norm"], trl["grad_norm"]],
        "entropy": [ours["entropy"], trl["entropy"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path, help="manifest.json of a fetched model")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing on both sides")
    parser.add_argument("--side", choices=("ours", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--compare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    frame.prepare(1)
    if options.side:
        return measure(options.side, options.manifest, options.checkpointing)
    if options.compare:
        print("\n" + json.dumps(compare(options.manifest, options.checkpointing)))
        return None
    shared = [sys.executable, __file__, str(options.manifest), *(["--checkpointing"] if options.checkpointing else [])]

    def ask(*more: str) -> Any:
        """What a process of its own prints last; this one stays small."""
        out = subprocess.run([*shared, *more], check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(out.splitlines()[-1])

    figures = ask("--compare")
    print(json.dumps(figures), flush=True)
    cpu: dict[str, list[float]] = {"ours": [], "trl": []}
    wall: dict[str, list[float]] = {"ours": [], "trl": []}
    for _ in range(options.rounds):
        for side in cpu:
            found = ask("--side", side)
            assert set(found["lengths"]) == {96.0} and set(found["equal"]) == {0.0}, found
            dtype = found["dtype"]
            cpu[side] += [step["cpu"] for step in found["steps"]]
            wall[side] += [step["wall"] for step in found["steps"]]
            print(f"{side}: CPU seconds a step {[round(step['cpu'], 1) for step in found['steps']]}", flush=True)
    middle = {side: statistics.median(values) for side, values in cpu.items()}
    ratio = middle["ours"] / middle["trl"]
    same = figures["rewards_equal"] and figures["completions_equal"] == figures["completions"]
    print(
        json.dumps(
            {
                "benchmark": "grpo_step",
                "completions": 16,
                "tokens": 96,
                "dtype": dtype,
                "gradient_checkpointing": options.checkpointing,
                "cpu_seconds": cpu,
                "wall_seconds": wall,
                "median_cpu_seconds": middle,
                "compared": figures,
                "ratio": ratio,
                "limit": LIMIT,
                "holds": bool(same and ratio <= LIMIT),
            }
        )
    )


if __name__ == "__main__":
    main()
