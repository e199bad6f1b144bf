"""What a step of learning task vectors' coefficients costs, beside a plain forward and backward pass.

    PYTHONPATH=workflow/scripts python benchmarks/atlas_step.py [--model FOLDER] [--rounds 3]

The vectors are the model's weights plus small random differences, and adapters of rank 16 on every linear layer but the
output's, all written to a temporary folder. All that is compared takes turns in one process, so that a busy machine
slows all alike, and is counted in CPU seconds of one thread; a figure is the median over rounds of the ratio within a
round. All sides have weights in the number format that `dtype: auto` stands for here (`chains.dtype_of`), and the loss
over all tokens. What a fit does once, before its first step, is not counted. Memory is the peak of RssAnon over a step
of a process that does nothing else, the largest of three. It needs 8 GiB of memory and as much disk, and about ten
minutes. The last line is one JSON object with the figures, the limits and `holds`.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}

import torch
from safetensors.torch import save_file
from torch.func import functional_call

from imprint.artifacts import lora
from imprint.composition.composing import Composition
from imprint.composition.vectors import Pool, generator
from imprint.models import chains
from imprint.models.model_files import WEIGHTS, load_tokenizer, template_sha256
from imprint.models.tensor_files import TensorFolder, write
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import atomic, file_sha256, write_json
from imprint.training.token_loss import cross_entropy

COUNTS = (2, 5, 8)
BATCH, SMALL = (8, 256), (1, 64)
PROCESSES = 3  # in which memory is looked at: a look every 5 ms can miss a peak
RANK = 16
LIMITS = {
    **{f"step_over_plain_{n}": ("<=", 1.15) for n in COUNTS},
    f"adapters_step_over_plain_{max(COUNTS)}": ("<=", 1.0),
    "memory_8_over_2": ("<=", 1.05),
    "functional_call_over_step": (">=", 1.8),
    "compose_over_copy": ("<=", 1.5),
}


def prepare(model: Path, folder: Path) -> None:
    """The model, linked as `root`, and the arms."""
    (folder / "root").mkdir()
    for file in model.iterdir():
        if file.name != "manifest.json":
            (folder / "root" / file.name).symlink_to(file.resolve())
    make_arms(folder, template_sha256(load_tokenizer(model)), torch.float32, 1e-4)


def draw(device: str, shape: tuple[int, ...], *parts: object) -> torch.Tensor:
    """Standard normal numbers that belong to their names, drawn on `device`."""
    seed = generator(*parts).initial_seed()
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def make_arms(folder: Path, template: str, dtype: torch.dtype, size: float, device: str = "cpu") -> None:
    """The manifest of `root`, and arms beside it: its weights plus Gaussian differences, `size` their deviation."""
    made = {"kind": "model", "fingerprint": "root", "template_sha256": template}
    write_json(folder / "root/manifest.json", {**made, "files": sums(folder / "root")})
    weights = TensorFolder(folder / "root")
    shapes = [(name, weights.shape(name), dtype) for name in weights.names]
    for i in range(max(COUNTS)):

        def read(name: str, arm: int = i) -> torch.Tensor:
            tensor = weights.read(name).to(device).float()
            return (tensor + size * draw(device, tensor.shape, arm, name)).to(dtype)

        (folder / f"arm{i}" / "weights").mkdir(parents=True)
        write(folder / f"arm{i}" / "weights" / WEIGHTS, shapes, read)
        manifest = {"kind": "full", "fingerprint": f"arm{i}", "template_sha256": template}
        manifest |= {"weights": sums(folder / f"arm{i}" / "weights")}
        write_json(folder / f"arm{i}" / "manifest.json", manifest)
        make_adapter(folder / f"adapter{i}", weights, {**manifest, "kind": "lora", "fingerprint": f"adapter{i}"}, i)


def make_adapter(folder: Path, weights: TensorFolder, manifest: dict[str, Any], number: int) -> None:
    """An adapter on every linear layer of the model's layers, as PEFT writes it."""
    factors = {}
    for name in weights.names:
        if ".layers." in name and len(shape := weights.shape(name)) == 2:
            stem = "base_model.model." + name.removesuffix(".weight")
            factors[f"{stem}.lora_A.weight"] = draw("cpu", (RANK, shape[1]), number, name, "a") / shape[1] ** 0.5
            factors[f"{stem}.lora_B.weight"] = 1e-3 * draw("cpu", (shape[0], RANK), number, name, "b")
    (folder / "weights").mkdir(parents=True)
    save_file(factors, folder / "weights" / lora.FILE)
    write_json(folder / "weights" / lora.CONFIG, {"r": RANK, "lora_alpha": RANK})
    write_json(folder / "manifest.json", {**manifest, "weights": sums(folder / "weights")})


def sums(folder: Path) -> dict[str, str]:
    return {file.name: file_sha256(file) for file in folder.iterdir()}


def found(folder: Path, count: int, kind: str = "arm") -> tuple[list[Path], dict[str, list[Path]]]:
    """What `prepare` made, its first `count` arms or adapters (`kind`)."""
    root = folder / "root" / "manifest.json"
    return [root], {f"{kind}{i}": [root, folder / f"{kind}{i}" / "manifest.json"] for i in range(count)}


def batch(model: Any, shape: tuple[int, int]) -> torch.Tensor:
    ids = torch.randint(3, model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    return ids.to(model.device)


def backward(model: Any, ids: torch.Tensor) -> None:
    loss = cross_entropy(model, model.get_output_embeddings(), ids, ids)
    (loss / ids.numel()).backward()


@contextmanager
def stepping(model: Any, pool: Pool, ids: torch.Tensor) -> Iterator[Callable[[], None]]:
    """One step as `imprint.composition.learning` makes it."""
    made = Composition(model, pool, start=0.01)
    optimiser = torch.optim.AdamW([made.values], lr=1e-2)

    def step() -> None:
        made.merge()
        backward(model, ids)
        torch.nn.utils.clip_grad_norm_([made.values], 1.0)
        optimiser.step()

    yield step
    made.detach()
    model.requires_grad_(True)


def by_functional_call(model: Any, pool: Pool, ids: torch.Tensor, fused: bool) -> Callable[[], None]:
    """The same step with differences in memory and a graph over them: the sum of products that the published code
    writes, or, `fused`, one product of coefficients and stacked differences a block."""
    start = {name: pool.root.read(name).view(p.shape).to(p) for name, p in model.named_parameters()}
    deltas = {name: torch.stack([v.delta(name).to(base) for v in pool.vectors]) for name, base in start.items()}
    values = {name: base.new_full((len(pool.vectors),), 0.01, requires_grad=True) for name, base in start.items()}

    def scaled(name: str) -> torch.Tensor:
        if fused:
            return torch.tensordot(values[name], deltas[name], 1)
        first, *others = (c * delta for c, delta in zip(values[name], deltas[name], strict=True))
        return sum(others, first)

    optimiser = torch.optim.AdamW(list(values.values()), lr=1e-2)

    def step() -> None:
        merged = {name: start[name] + scaled(name) for name in start}
        out = functional_call(model, merged, (ids,), {"use_cache": False}, tie_weights=True)
        loss = torch.nn.functional.cross_entropy(out.logits[0, :-1].float(), ids[0, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(values.values()), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


Work = Callable[[], AbstractContextManager[Callable[[], None]]]
"""Gives what is timed, after what is not: `partial(nullcontext, CALL)` for a call that needs nothing before it."""


def cpu_seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def take_turns(
    work: dict[str, Work], rounds: int, clock: Callable[[Callable[[], None]], float] = cpu_seconds
) -> dict[str, list[float]]:
    """Seconds of each, in every round once, in an order that turns."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for i in range(rounds):
        names = list(work)
        for name in names[i % len(names) :] + names[: i % len(names)]:
            with work[name]() as turn:
                seconds = clock(turn)
            del turn  # it holds a composition, whose stacks would be in the memory beside the next one's
            print(f"round {i}: {name} {seconds:.2f} s", file=sys.stderr, flush=True)
            times[name].append(seconds)
    return times


def ratio(times: dict[str, list[float]], above: str, below: str) -> float:
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


def anonymous() -> int:
    """Resident memory of this process that no file backs, in bytes."""
    return int(re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


def memory(folder: Path, count: int) -> int:
    """The peak over a step with so many vectors, run in a process of its own."""
    chain, arms = found(folder, count)
    model, _ = chains.load(chain, chains.dtype_of("auto", "cpu"), "cpu")
    peak, done = 0, False

    def watch() -> None:
        nonlocal peak
        while not done:
            peak = max(peak, anonymous())
            time.sleep(0.005)

    with stepping(model, Pool(chain, arms), batch(model, BATCH)) as step:
        watcher = threading.Thread(target=watch)
        watcher.start()
        step()
        done = True
        watcher.join()
    return peak


def file_copy(files: list[Path], out: Path, size: int) -> Callable[[], None]:
    """Read files and write one of `size` bytes, which replaces what was there, as saving does."""

    def work() -> None:
        buffer = memoryview(bytearray(1 << 20))
        with atomic(out) as temporary, temporary.open("wb", buffering=0) as target:
            left = size
            for file in files:
                with file.open("rb", buffering=0) as source:
                    while found := source.readinto(buffer):
                        left -= target.write(buffer[: min(found, left)])

    return work


def measure(
    folder: Path, model: Any, rounds: int, clock: Callable[[Callable[[], None]], float] = cpu_seconds
) -> dict[str, Any]:
    """All figures but memory's; `model` has the weights of `root`."""
    chain, arms = found(folder, max(COUNTS))
    ids = batch(model, BATCH)

    def forward_backward() -> None:
        backward(model, ids)
        model.zero_grad(set_to_none=True)

    # Warm: the model by a pass, the mapped files by the pool's look at every element.
    forward_backward()
    pools, largest = {}, Pool(chain, arms)
    for n in COUNTS:
        pools[n] = copy.copy(largest)
        pools[n].vectors = largest.vectors[:n]
    work: dict[str, Work] = {"plain": partial(nullcontext, forward_backward)}
    work |= {f"step_{n}": partial(stepping, model, pool, ids) for n, pool in pools.items()}
    adapters = f"adapters_step_{max(COUNTS)}"
    work[adapters] = partial(stepping, model, Pool(*found(folder, max(COUNTS), "adapter")), ids)
    times = take_turns(work, rounds, clock)
    figures: dict[str, Any] = {f"step_over_plain_{n}": ratio(times, f"step_{n}", "plain") for n in COUNTS}
    figures[f"adapters_step_over_plain_{max(COUNTS)}"] = ratio(times, adapters, "plain")
    everything, composed = Composition(model, largest, start=0.01), folder / "composed"
    everything.detach()
    everything.save(composed)
    size = (composed / "weights" / WEIGHTS).stat().st_size
    read = [folder / "root" / WEIGHTS, *(folder / arm / "weights" / WEIGHTS for arm in arms)]
    copying = file_copy(read, folder / "copied", size)
    saving = partial(nullcontext, partial(everything.save, composed))
    times |= take_turns({"compose": saving, "copy": partial(nullcontext, copying)}, 3 * rounds, clock)
    figures["compose_over_copy"] = ratio(times, "compose", "copy")
    small = batch(model, SMALL)
    try:
        backward(model, small)
        model.zero_grad(set_to_none=True)
        ways: dict[str, Work] = {
            "small_step": partial(stepping, model, pools[5], small),
            "functional_call": partial(nullcontext, by_functional_call(model, pools[5], small, fused=False)),
            "functional_call_fused": partial(nullcontext, by_functional_call(model, pools[5], small, fused=True)),
        }
        times |= take_turns(ways, 2 * rounds, clock)
        for way in ("functional_call", "functional_call_fused"):
            figures[f"{way}_over_step"] = ratio(times, way, "small_step")
    except torch.OutOfMemoryError:  # of a GPU: the step streams its vectors, functional_call has all in memory
        print("functional_call does not fit into the GPU's memory", file=sys.stderr)
    figures["seconds"] = {name: round(statistics.median(values), 3) for name, values in times.items()}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    known = sorted(Path("resources/models").glob("smollm2-*"))
    parser.add_argument("--model", type=Path, default=known[0] if known else None, help="folder of the model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(memory(options.model, options.memory))
        return
    if options.model is None:
        sys.exit("atlas_step: resources/models has no smollm2; run `make demo` once, or write --model FOLDER")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(options.model, folder)
        model, _ = chains.load(found(folder, 0)[0], chains.dtype_of("auto", "cpu"), "cpu")
        figures = measure(folder, model, options.rounds)
        figures["computed_in"] = chains.dtype_of("auto", "cpu")
        del model
        peaks: dict[int, int] = {}
        for n in PROCESSES * (min(COUNTS), max(COUNTS)):
            command = [sys.executable, __file__, "--model", name, "--memory", str(n)]
            peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
            print(f"memory with {n} vectors: {peak >> 20} MiB", file=sys.stderr, flush=True)
            peaks[n] = max(peak, peaks.get(n, 0))
        figures["memory_mib"] = {str(n): round(peak / 2**20) for n, peak in peaks.items()}
        figures["memory_8_over_2"] = peaks[max(COUNTS)] / peaks[min(COUNTS)]
    show(figures)


def show(figures: dict[str, Any]) -> None:
    """Print the figures that have a limit, then all as one JSON object; a limit without a figure is left out."""
    limits = {key: limit for key, limit in LIMITS.items() if key in figures}
    for key, (sign, limit) in limits.items():
        print(f"{key:28} {figures[key]:7.3f}  {sign} {limit}")
    holds = all(
        figures[key] <= limit if sign == "<=" else figures[key] >= limit for key, (sign, limit) in limits.items()
    )
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
    print(json.dumps({**rounded, "limits": {key: " ".join(map(str, limits[key])) for key in limits}, "holds": holds}))


if __name__ == "__main__":
    try:
        main()
    except ImprintError as error:
        sys.exit(f"atlas_step: {error}")
