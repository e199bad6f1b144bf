"""A trial of a model folder before it is used: the trial does once what later jobs do with the tokenizer, the template
and the config, in a process with limited time and memory.

The files come from others, and some are programs: a chat template can loop, a tokenizer's regular expression may never
end, a config can ask for ten million layers. Reading the files does not show this, so the trial runs them.
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
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError

from imprint.models.chat_text import ChatText, Message, special_tokens
from imprint.models.model_files import load_tokenizer, template_sha256
from imprint.runtime.errors import ImprintError

CPU_SECONDS = 120
"""Limit of CPU time. An ordinary model takes 2 s, a large vocabulary that has to be converted about 30 s."""
MEMORY = 4 * 2**30
"""Limit in bytes, beyond what torch has reserved already."""
PROBE = [[f"{character * 64}{end}" for end in ("", "!", "\n")] for character in string.printable]
"""Runs of every printable character: on such text a bad regular expression does not end."""


class Outcome(NamedTuple):
    """What the trial finds: the sha256 of the chat template, and the id of the token that ends an assistant turn."""

    template_sha256: str
    end_of_turn: int


def passed(folder: Path) -> Outcome:
    """The outcome of the trial of a model folder. Raises ImprintError with the reason if the folder fails."""
    command = [sys.executable, "-m", "imprint.models.model_trial", str(folder), str(CPU_SECONDS)]
    environment = {
        name: os.environ[name] for name in ("HOME", "LD_LIBRARY_PATH", "PATH", "TMPDIR") if name in os.environ
    }
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"}
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
    if ended:
        raise ImprintError(done.stderr.strip()[-500:] or "no word")
    outcome = json.loads(done.stdout.splitlines()[-1])
    if "error" in outcome:
        raise ImprintError(outcome["error"])
    return Outcome(**outcome)


def run_trial(folder: Path) -> Outcome:
    """The trial itself, without limits: load everything but the weights, render, and tokenize. Raises ImprintError for
    a folder that fails."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    auto: Any = AutoModelForCausalLM
    tokenizer = load_tokenizer(folder)
    if not tokenizer.chat_template:
        raise ImprintError(
            "it has no chat template, as base models have none; write one at the model: `chat_template: plain`, or the "
            "path of a file of yours"
        )
    template = template_sha256(tokenizer)
    question, end_of_turn = _turns(tokenizer)
    try:
        tokens = tokenizer(question, add_special_tokens=False)["input_ids"]
        for texts in PROBE:
            tokenizer(texts)
    except BaseException as error:  # a panic of the tokenizers library is a BaseException
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
    return Outcome(template, end_of_turn)


def _turns(tokenizer: Any) -> tuple[str, int]:
    """A rendered question, and the id of the token that ends an assistant turn. Raises ImprintError for a template that
    renders no dialogue, or one on which no model can be trained."""
    system, question, answer = (
        Message(role=role, content=content)
        for role, content in (("system", "Be kind."), ("user", "Hello"), ("assistant", "Goodbye"))
    )
    try:
        rendered = str(tokenizer.apply_chat_template([question], tokenize=False))
    except Exception as error:
        raise ImprintError(f"its chat template does not render a question ({_why(error)})") from error
    try:
        text = str(tokenizer.apply_chat_template([question, answer], tokenize=False))
        with suppress(TemplateError):  # many templates refuse a system turn, and say so
            tokenizer.apply_chat_template([system, question, answer], tokenize=False)
    except Exception as error:
        raise ImprintError(f"its chat template does not render an answer ({_why(error)})") from error
    end = text.rfind(answer["content"]) + len(answer["content"])
    special = [place for place in special_tokens(tokenizer, ChatText(text)) if place[0] >= end]
    if answer["content"] not in text or not special:
        raise ImprintError(
            f"its chat template ends an assistant turn without a special token ({text[end : end + 40]!r}), so a model "
            "that is trained in it would not learn where an answer ends; write another at the model: `chat_template: "
            "plain`, or a file of yours in which the turn ends with {{ eos_token }}"
        )
    return rendered, int(tokenizer.convert_tokens_to_ids(text[slice(*special[0])]))


def _limit(cpu_seconds: int) -> None:
    """Limit the CPU time and memory that this process takes from now on. What the import of torch has taken (seconds,
    and gigabytes of address space) does not count."""
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
    """Messages about token ids for which the model has no embedding. (A special token that no chat uses may lack one:
    some text models share the tokenizer of a model for images.)"""
    ends = generation.eos_token_id
    for token in ends if isinstance(ends, list) else [ends]:
        if token is not None and (not isinstance(token, int) or not 0 <= token < rows):
            yield f"its eos_token_id is {ends!r:.80}, and the model has the tokens 0 to {rows - 1}"
    named = {"its eos token": [tokenizer.eos_token_id], "its pad token": [tokenizer.pad_token_id]}
    for owner, ids in {**named, "a rendered question": tokens}.items():
        if max(ids, default=0) >= rows:
            yield f"{owner} has the id {max(ids)}, and the model has the tokens 0 to {rows - 1}"
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    for token, number in tokenizer.get_vocab().items():
        if number >= rows and number not in special:
            yield f"its token {token!r:.80} has the id {number}, and the model has the tokens 0 to {rows - 1}"


if __name__ == "__main__":
    import torch  # noqa: F401

    _limit(int(sys.argv[2]))
    try:
        outcome: dict[str, Any] = run_trial(Path(sys.argv[1]))._asdict()
    except ImprintError as error:
        outcome = {"error": str(error)}
    print("\n" + json.dumps(outcome))
