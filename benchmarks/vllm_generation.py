"""Generation by the engine `vllm` beside vLLM alone: `python benchmarks/vllm_generation.py MODEL PROMPTS`.

MODEL is a folder under resources/models. PROMPTS is a JSON Lines file whose rows have a `prompt`, such as IFEval's.
Both sides get the same token ids, answer greedily until the model's end token, write as many sequences together, and
have as much memory for keys and values. vLLM alone is its class `LLM` with its own defaults, in the environment that
`make vllm` made; on a CPU it compiles nothing. The sides take turns, by wall clock, and both have answered a short
prompt before. The figure is this project's tokens per second over vLLM's, the median over the rounds. In fp32 both must
write the same tokens. The last line is one JSON object with the figure, its limit and `holds`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMITS = {"tokens_per_second": 0.95}


def alone() -> None:
    """vLLM alone, in its own environment. It reads its order, and answers each list of prompts that it reads."""
    import vllm

    order = json.loads(sys.stdin.readline())
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what vLLM prints is no answer
    llm = vllm.LLM(
        model=order["folder"],
        dtype=order["dtype"],
        skip_tokenizer_init=True,
        generation_config="vllm",
        max_num_seqs=order["sequences"],
        kv_cache_memory_bytes=order["cache"],
        max_model_len=-1,
        enforce_eager=order["device"] == "cpu",
    )
    for line in sys.stdin:
        asked = json.loads(line)
        how = vllm.SamplingParams(
            temperature=0.0, max_tokens=asked["tokens"], stop_token_ids=order["ends"], detokenize=False
        )
        llm.reset_prefix_cache()
        start = time.perf_counter()
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in asked["prompts"]], how, use_tqdm=False)
        seconds = time.perf_counter() - start
        tokens = [list(output.outputs[0].token_ids) for output in outputs]
        answers.write(json.dumps({"seconds": seconds, "tokens": tokens}) + "\n")
        answers.flush()


class Peer:
    """The process of vLLM alone."""

    def __init__(self, folder: str, ends: set[int], cache: int, options: argparse.Namespace) -> None:
        from imprint.engines import _vllm_process

        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "PYTHON"))}
        quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        quiet |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        words = [str(_vllm_process.python()), __file__, "--alone"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process: Any = subprocess.Popen(words, env={**kept, **quiet}, text=True, **pipes)  # type: ignore[call-overload]
        sizes = {"sequences": options.sequences, "cache": cache}
        self._write({"folder": folder, "dtype": options.dtype, "device": options.device, "ends": list(ends), **sizes})

    def _write(self, message: dict[str, Any]) -> None:
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def answer(self, prompts: list[list[int]], tokens: int) -> tuple[float, list[list[int]]]:
        """Seconds, and the tokens behind each prompt."""
        self._write({"prompts": prompts, "tokens": tokens})
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"vllm_generation: vLLM alone ended with exit status {self.process.wait()}")
        found = json.loads(line)
        return found["seconds"], found["tokens"]

    def end(self) -> None:
        """Let the process end, and those that it has started."""
        self.process.stdin.close()
        self.process.wait()


def ours(engine: Any, prompts: list[list[int]], tokens: int) -> tuple[float, list[list[int]]]:
    """Seconds, and the tokens behind each prompt."""
    from imprint.engines import Prompt

    start = time.perf_counter()
    rows = engine.decode([Prompt("", tokens) for _ in prompts], prompts)
    return time.perf_counter() - start, [row.tokens for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from imprint.engines import vllm
    from imprint.models import chains

    chain = [options.model / "manifest.json"]
    engine: Any = vllm.sampler(chain, options.dtype, options.device, options.sequences, options.tokens)
    wanted = vllm.cache_of(chain, options.dtype, options.sequences, options.tokens)
    cache = vllm.CPU_CACHE if options.device == "cpu" else wanted
    lines = options.prompts.read_text(encoding="utf-8").splitlines()[: options.rows]
    texts = [engine.render([{"role": "user", "content": json.loads(line)["prompt"]}]) for line in lines]
    prompts = [engine.tokens(*text) for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        chains.export(chain, options.dtype, Path(folder))
        peer = Peer(folder, engine.ends, cache, options)
        sides = {"vllm_alone": peer.answer, "imprint": lambda *asked: ours(engine, *asked)}
        for answer in sides.values():
            answer(prompts[:2], 2)
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    written: dict[str, list[list[int]]] = {}
    for _ in range(options.rounds):
        for side, answer in sides.items():
            seconds, written[side] = answer(prompts, options.tokens)
            count = sum(map(len, written[side]))
            speeds[side].append(count / seconds)
            print(f"{side}: {count} tokens, {seconds:.2f} s ({count / seconds:.1f} tokens/s)", flush=True)
    peer.end()
    figure = statistics.median(a / b for a, b in zip(speeds["imprint"], speeds["vllm_alone"], strict=True))
    same = sum(a == b for a, b in zip(*written.values(), strict=True))
    exact = options.dtype != "float32" or same == len(prompts)
    print(
        json.dumps(
            {
                "tokens_per_second": round(figure, 3),
                **{f"{side}_speed": round(statistics.median(each), 1) for side, each in speeds.items()},
                "prompts": len(prompts),
                "same_tokens": same,
                "engine": engine.name,
                "limits": LIMITS,
                "holds": figure >= LIMITS["tokens_per_second"] and exact,
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--alone"]:
        alone()
    else:
        main()
