"""What a GPU does a second: generation, supervised fine-tuning and GRPO, on a model of the shape of SmolLM2-135M.

    PYTHONPATH=workflow/scripts python benchmarks/gpu/throughput.py [--device cuda] [--dtype bfloat16]

Weights are random, so responses run to their greatest length. The training figures are of the methods as the pipeline
runs them, the difference between a longer and a shorter fit, so that starting and saving cancel out. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow/scripts"), str(ROOT / "tests")]

import torch  # noqa: E402

import pico  # noqa: E402
import test_grpo  # noqa: E402
import test_sft  # noqa: E402
from imprint.engines import Candidates, Prompt  # noqa: E402
from imprint.engines.transformers import Engine  # noqa: E402
from imprint.methods import grpo, sft  # noqa: E402
from imprint.models import chains, model_files  # noqa: E402
from imprint.runtime.identity import read_json, write_json  # noqa: E402

SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}
PROMPTS, NEW = 256, 128
TEXT = "What is the sum of two and two, and how are you sure of it? " * 4


def make(folder: Path) -> Path:
    """The manifest of the model: the pico model's tokenizer, weights of the shape of SmolLM2-135M."""
    from transformers import LlamaConfig, LlamaForCausalLM

    pico.make(folder)
    config = LlamaConfig(**{**read_json(folder / "config.json"), **SHAPE})
    LlamaForCausalLM(config).save_pretrained(folder)
    template = model_files.template_sha256(model_files.load_tokenizer(folder))
    write_json(folder / "manifest.json", {"kind": "model", "fingerprint": "0", "template_sha256": template})
    return pico.sums(folder / "manifest.json")


def answering(root: Path, device: str, dtype: str) -> dict[str, float]:
    """Tokens a second of generation, greedy and sampled, and options a second."""
    engine = Engine(*chains.load([root], dtype, device), PROMPTS)
    engine.ends = set()
    found = {}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        asked = [Prompt(f"{i} {TEXT}", NEW, temperature=temperature, seed=i) for i in range(PROMPTS)]
        engine.generate(asked[:8])
        start = time.perf_counter()
        made = engine.generate(asked)
        found[f"{name}_tokens_a_second"] = sum(one.response_tokens or 0 for one in made) / (time.perf_counter() - start)
    options = [Candidates(f"{i} {TEXT}", (" yes", " no, never", " perhaps", " it depends")) for i in range(PROMPTS)]
    engine.loglikelihood(options[:8])
    start = time.perf_counter()
    engine.loglikelihood(options)
    found["options_a_second"] = 4 * PROMPTS / (time.perf_counter() - start)
    return found


def seconds(method: Any, job: Any, device: str, dtype: str) -> float:
    start = time.perf_counter()
    method.fit(replace(job, device=device, dtype=dtype))
    return time.perf_counter() - start


def training(root: Path, folder: Path, device: str, dtype: str) -> dict[str, float]:
    """Tokens a second of supervised fine-tuning, and seconds of a GRPO step."""
    long = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": 8 * TEXT}]
    rows = [{**row, "messages": long} for row in test_sft.rows(16)]
    times = {}
    for epochs in (2, 6):
        job = test_sft.job(root, folder / f"sft{epochs}", dataset=rows, batch_size=16, max_length=512, epochs=epochs)
        times[epochs] = seconds(sft, job, device, dtype)
    steps = {}
    for count in (2, 6):
        job = test_grpo.job(
            root, folder / f"grpo{count}", steps=count, prompts_per_step=8, group_size=8, completion_tokens=NEW
        )
        steps[count] = seconds(grpo, job, device, dtype)
    return {
        "sft_tokens_a_second": 4 * 16 * 512 / (times[6] - times[2]),
        "grpo_step_of_64_completions_seconds": (steps[6] - steps[2]) / 4,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu/throughput: torch sees no GPU here; run it on a machine with one, with a build of torch for it")
    with tempfile.TemporaryDirectory() as name:
        root = make(Path(name) / "model")
        figures: dict[str, Any] = answering(root, options.device, options.dtype)
        print(figures, file=sys.stderr, flush=True)
        figures |= training(root, Path(name), options.device, options.dtype)
    figures = {key: round(value, 3) for key, value in figures.items()}
    if options.device == "cuda":
        figures |= {"device": torch.cuda.get_device_name(), "peak_mib": torch.cuda.max_memory_allocated() >> 20}
    print(json.dumps({**figures, "dtype": options.dtype, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
