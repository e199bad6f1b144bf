"""A trial of a model folder before it becomes a model: all that later jobs do with its tokenizer, template and config,
once, in a process with limited time and memory.

Its files are somebody else's, and some are programs: a chat template can loop, a tokenizer's regular expression need
never end, a config can ask for ten million layers. No look at a file tells, so they are tried.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.errors import ImprintError
from imprint.model_files import load_tokenizer, template_sha256

CPU_SECONDS = 120
"""An ordinary model takes two, a large vocabulary that has to be converted some thirty."""
MEMORY = 4 * 2**30
PROBE = [[f"{character * 64}{end}" for end in ("", "!", "\n")] for character in string.printable]
"""Runs of every character: what a regular expression that never ends stumbles over."""


def passed(folder: Path) -> str:
    """The sha256 of the chat template of a model folder that passes the trial. Raises ImprintError saying why it does
    not."""
    command = [sys.executable, "-m", "imprint.model_trial", str(folder), str(CPU_SECONDS)]
    environment = {
        name: os.environ[name] for name in ("HOME", "LD_LIBRARY_PATH", "PATH", "TMPDIR") if name in os.environ
    }
    environment |= {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10 * CPU_SECONDS,
            check=False,
        )
        ended = done.returncode
    except subprocess.TimeoutExpired:
        ended = -signal.SIGKILL
    if ended < 0:
        raise ImprintError(
            f"its tokenizer, chat template or config did not pass a trial: the process was ended by signal {-ended} "
            f"(it may take {CPU_SECONDS} s of CPU time and {MEMORY / 2**30:.0f} GiB); choose another model"
        )
    said = (
        json.loads(done.stdout.splitlines()[-1]) if ended == 0 else {"error": done.stderr.strip()[-500:] or "no word"}
    )
    if "error" in said:
        raise ImprintError(said["error"])
    return str(said["template_sha256"])


def tried(folder: Path) -> str:
    """Load everything but the weights, render and tokenize; returns the sha256 of the chat template. Without limits."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    auto: Any = AutoModelForCausalLM
    tokenizer = load_tokenizer(folder)
    template = template_sha256(tokenizer)
    try:
        question = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    except Exception as error:
        raise ImprintError(f"its chat template does not render a question ({_why(error)})") from error
    try:
        tokens = tokenizer(question, add_special_tokens=False)["input_ids"]
        for texts in PROBE:
            tokenizer(texts)
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        raise ImprintError(f"its tokenizer does not read plain text ({_why(error)})") from error
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = auto.from_config(config, trust_remote_code=False)
        if (folder / "generation_config.json").is_file():
            generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
        else:
            generation = GenerationConfig.from_model_config(config)
        rows = int(model.get_input_embeddings().weight.shape[0])
    except Exception as error:
        raise ImprintError(f"transformers makes no language model of its config ({_why(error)})") from error
    for problem in _beyond(tokenizer, tokens, generation, rows):
        raise ImprintError(f"{problem}; its tokenizer, generation_config.json and weights are not of one model")
    return template


def _limit(cpu_seconds: int) -> None:
    """Limit what this process may take from here on: importing torch has taken seconds, and reserved gigabytes."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + cpu_seconds
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    memory = pages * resource.getpagesize() + MEMORY
    limits = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_AS: memory, resource.RLIMIT_CORE: 0}
    for name, limit in limits.items():
        resource.setrlimit(name, (limit, limit))


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _beyond(tokenizer: Any, tokens: list[int], generation: Any, rows: int) -> Iterator[str]:
    """Token ids that the model has no embedding for. (A special token that no chat uses may be one: some text models
    have the tokenizer of a sister that sees images.)"""
    ends = generation.eos_token_id
    for token in ends if isinstance(ends, list) else [ends]:
        if token is not None and (not isinstance(token, int) or not 0 <= token < rows):
            yield f"its eos_token_id is {ends!r:.80}, and the model has the tokens 0 to {rows - 1}"
    named = {"its eos token": [tokenizer.eos_token_id], "its pad token": [tokenizer.pad_token_id]}
    for what, ids in {**named, "a rendered question": tokens}.items():
        if max(ids, default=0) >= rows:
            yield f"{what} has the id {max(ids)}, and the model has the tokens 0 to {rows - 1}"
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    for token, number in tokenizer.get_vocab().items():
        if number >= rows and number not in special:
            yield f"its token {token!r:.80} has the id {number}, and the model has the tokens 0 to {rows - 1}"


if __name__ == "__main__":
    import torch  # noqa: F401

    _limit(int(sys.argv[2]))
    try:
        found = {"template_sha256": tried(Path(sys.argv[1]))}
    except ImprintError as error:
        found = {"error": str(error)}
    print("\n" + json.dumps(found))
