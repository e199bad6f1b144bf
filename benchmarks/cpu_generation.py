"""Generation on a CPU beside lm-eval's `hf` backend: `python benchmarks/cpu_generation.py MODEL PROMPTS`.

MODEL is a folder under resources/models. PROMPTS is a JSON Lines file whose rows have a `prompt`, such as IFEval's.
Both sides answer the first of them greedily, through the model's chat template, in batches of the same size. They take
turns: with one process of one thread each, in tokens per CPU second; and on two cores, by wall clock, where this
project has two processes of one thread, as two jobs of a run have, and lm-eval has one process of two threads. All
processes have loaded the model, and answered a short prompt, before the first turn. In fp32 both sides must give the
same texts. The last line is one JSON object with the figures, the limits and `holds`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMITS = {
    "tokens_per_cpu_second": 2.0,
    "tokens_per_second": 3.0,
}  # this project's over lm-eval's; the second on two cores
SIDES = {"imprint": 1, "lm_eval": 1, "imprint_on_two": 2, "lm_eval_on_two": 2}
"""Side -> cores that it has."""


def imprint(model: Any, tokenizer: Any, options: argparse.Namespace) -> Callable[[list[str], int], list[str]]:
    """Answers prompts with so many tokens at most, by the engine `transformers`."""
    from imprint.engines import Prompt, transformers

    engine = transformers.Engine(model, tokenizer, options.batch)

    def answer(prompts: list[str], tokens: int) -> list[str]:
        texts = [engine.render([{"role": "user", "content": prompt}]) for prompt in prompts]
        responses = engine.generate([Prompt(text.text, tokens, breaks=text.breaks) for text in texts])
        return [response.text or "" for response in responses]

    return answer


def lm_eval(model: Any, tokenizer: Any, options: argparse.Namespace) -> Callable[[list[str], int], list[str]]:
    """Answers prompts with so many tokens at most, by lm-eval's `hf` backend."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=options.batch, device="cpu")

    def answer(prompts: list[str], tokens: int) -> list[str]:
        asked = []
        for place, prompt in enumerate(prompts):
            text = lm.apply_chat_template([{"role": "user", "content": prompt}])
            settings = {"until": [tokenizer.eos_token], "max_gen_toks": tokens, "do_sample": False}
            asked.append(Instance("generate_until", {}, (text, settings), place))
        answers: list[str] = lm.generate_until(asked, disable_tqdm=True)
        return answers

    return answer


BACKENDS = {"imprint": imprint, "lm_eval": lm_eval}


def child(options: argparse.Namespace) -> None:
    """A process of one side. It answers its prompts for each line that it reads, and prints how long that took."""
    import torch

    from imprint.models.chains import load

    torch.set_num_threads(options.threads)
    model, tokenizer = load([options.model / "manifest.json"], options.dtype, "cpu")
    answer = BACKENDS[options.child](model, tokenizer, options)
    rows = [json.loads(line) for line in options.prompts.read_text(encoding="utf-8").splitlines()[: options.rows]]
    prompts = [row["prompt"] for row in rows][options.part :: options.parts]
    answer(["Hello."], 2)
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        texts = answer(prompts, options.tokens)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
        print(json.dumps({"cpu": cpu, "wall": wall, "tokens": tokens, "texts": texts}), flush=True)


def started(side: str) -> list[subprocess.Popen[str]]:
    """The processes of a side, which have loaded the model."""
    cores = SIDES[side]
    name = side.removesuffix("_on_two")
    parts, threads = (cores, 1) if name == "imprint" else (1, cores)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    processes = []
    for part in range(parts):
        more = [f"--child={name}", f"--part={part}", f"--parts={parts}", f"--threads={threads}"]
        command = [sys.executable, __file__, *sys.argv[1:], *more]
        processes.append(
            subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
    for process in processes:
        said(process)
    return processes


def said(process: subprocess.Popen[str]) -> Any:
    """What a process prints next. Libraries print lines of their own, which are no JSON."""
    assert process.stdout
    for line in process.stdout:
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            print(line, end="", file=sys.stderr)
    sys.exit(f"a side ended with exit status {process.wait()}")


def turn(processes: list[subprocess.Popen[str]]) -> dict[str, Any]:
    """Let a side answer: its CPU seconds, wall seconds and tokens, and the texts in the order of the prompts."""
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [said(process) for process in processes]
    texts: list[str] = [""] * sum(len(answer["texts"]) for answer in answers)
    for part, answer in enumerate(answers):
        texts[part :: len(answers)] = answer["texts"]
    return {
        "cpu": sum(answer["cpu"] for answer in answers),
        "wall": max(answer["wall"] for answer in answers),
        "tokens": sum(answer["tokens"] for answer in answers),
        "texts": texts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    for name in ("--part", "--parts", "--threads"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    sides = {side: started(side) for side in SIDES}
    turns: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side, processes in sides.items():
            found = turn(processes)
            turns[side].append(found)
            tokens, cpu, wall = found["tokens"], found["cpu"], found["wall"]
            print(f"{side}: {tokens} tokens, {cpu:.1f} CPU s ({tokens / cpu:.1f} tokens/s), {wall:.1f} s", flush=True)
    for process in (process for processes in sides.values() for process in processes):
        assert process.stdin
        process.stdin.close()
        process.wait()
    rates = {side: [one["tokens"] / one["cpu"] for one in each] for side, each in turns.items()}
    speeds = {side: [one["tokens"] / one["wall"] for one in each] for side, each in turns.items()}
    ratios = {
        "tokens_per_cpu_second": middle(rates["imprint"], rates["lm_eval"]),
        "tokens_per_second": middle(speeds["imprint_on_two"], speeds["lm_eval_on_two"]),
    }
    ours, theirs = (turns[side][0]["texts"] for side in BACKENDS)
    same_texts = sum(a == b for a, b in zip(ours, theirs, strict=True))
    fast = all(ratios[name] >= limit for name, limit in LIMITS.items())
    print(
        json.dumps(
            {
                **{name: round(value, 2) for name, value in ratios.items()},
                **{f"{side}_speed": round(statistics.median(each), 1) for side, each in speeds.items()},
                "rows": len(ours),
                "same_texts": same_texts,
                "dtype": options.dtype,
                "limits": LIMITS,
                "holds": fast and (options.dtype != "float32" or same_texts == len(ours)),
            }
        )
    )


def middle(ours: list[float], theirs: list[float]) -> float:
    """The median over the rounds of a ratio."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
