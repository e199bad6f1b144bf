"""What a step of learning task vectors' coefficients costs on a GPU: the table of `benchmarks/atlas_step.py` for a
model of the shape of Llama-2-7B, random weights in bf16.

    PYTHONPATH=workflow/scripts python benchmarks/gpu/atlas_step.py [--layers 32] [--rounds 3] [--stream] [--folder DIR]

The model and eight arms lie in a temporary folder under `--folder`, 200 GB with 32 layers, less with fewer. What half
of the GPU's free memory takes of them is kept there; the rest streams to it piece by piece, so it matters that the
host's memory holds it as page cache. `--stream` keeps nothing, so that all of them stream. Seconds are of the wall
clock, the GPU waited for; memory is the peak that torch allocated on the GPU over a step. `functional_call` has no
figure where its five vectors do not fit into the GPU's memory, and its limit is then left out of `holds`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import atlas_step
import torch

from imprint.composition import stacks
from imprint.composition.vectors import Pool
from imprint.models.model_files import WEIGHTS
from imprint.models.tensor_files import write
from imprint.runtime.errors import ImprintError

# Bytes a parameter: root and arms in bf16; in fp32 the composed file, the copied one, and one being written.
DISK = 2 * 9 + 4 * 3
SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "tie_word_embeddings": False,
}


def prepare(folder: Path, layers: int) -> Any:
    """Write root and arms; returns the model on the GPU."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SHAPE, num_hidden_layers=layers, dtype="bfloat16")
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    needed, free = DISK * model.num_parameters(), shutil.disk_usage(folder).free
    if free < needed:
        raise ImprintError(
            f"{folder} has {free / 1e9:.0f} GB free, {needed / 1e9:.0f} are needed; write --folder or fewer --layers"
        )
    config.save_pretrained(folder / "root")

    def read(name: str) -> torch.Tensor:
        return (0.02 * atlas_step.draw("cuda", shapes[name], "root", name)).to(torch.bfloat16)

    write(folder / "root" / WEIGHTS, [(name, shape, torch.bfloat16) for name, shape in shapes.items()], read)
    # Differences of 1e-4 would vanish in bf16.
    atlas_step.make_arms(folder, "none", torch.bfloat16, 2e-3, "cuda")
    return LlamaForCausalLM.from_pretrained(folder / "root", dtype=torch.bfloat16).to("cuda")


def gpu_seconds(work: Callable[[], None]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def memory(folder: Path, model: Any, count: int) -> int:
    """The peak over a step with so many vectors, in bytes."""
    pool = Pool(*atlas_step.found(folder, count))
    with atlas_step.stepping(model, pool, atlas_step.batch(model, atlas_step.BATCH)) as step:
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stream", action="store_true", help="keep no vector in the GPU's memory")
    parser.add_argument("--folder", type=Path, help="where the files lie for the time of the run; default: TMPDIR")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu/atlas_step: torch sees no GPU here; run it on a machine with one, with a build of torch for it")
    if options.stream:
        stacks.GPU_SHARE = 0.0
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        model = prepare(folder, options.layers)
        figures = atlas_step.measure(folder, model, options.rounds, gpu_seconds)
        peaks = {n: memory(folder, model, n) for n in (min(atlas_step.COUNTS), max(atlas_step.COUNTS))}
    few, many = peaks.values()
    figures |= {"memory_8_over_2": many / few, "memory_mib": {n: round(peak / 2**20) for n, peak in peaks.items()}}
    atlas_step.show(
        figures
        | {
            "kept_share_of_free_memory": stacks.GPU_SHARE,
            "layers": options.layers,
            "device": torch.cuda.get_device_name(),
        }
    )


if __name__ == "__main__":
    try:
        main()
    except ImprintError as error:
        sys.exit(f"gpu/atlas_step: {error}")
