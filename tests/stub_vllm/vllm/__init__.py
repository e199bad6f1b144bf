"""A stand-in for vLLM, as far as `imprint.engines._vllm_worker` uses it. Its model is a hash: a token follows from the
tokens before it, and a draw from the seed too. STUB_VLLM in the environment says what goes wrong."""

from __future__ import annotations

import hashlib
import os
import time
from types import SimpleNamespace
from typing import Any

__version__ = "0.0"
FAULT = os.environ.get("STUB_VLLM", "")
TOKENS, END, POSITIONS = 250, 2, 2048

print("vLLM prints where it likes")
if FAULT == "does not import":
    raise ImportError("libcuda.so.1: cannot open shared object file")


class EngineArgs(SimpleNamespace):
    """The arguments of an engine."""


class SamplingParams(SimpleNamespace):
    """How a request is answered."""


class Running:
    """An engine. A request may have one step in two, so that requests are out of step."""

    def __init__(self, args: EngineArgs) -> None:
        if FAULT == "refuses":
            raise ValueError("Model architectures ['Odd'] are not supported")
        self.args, self.model_config = args, SimpleNamespace(max_model_len=POSITIONS)
        self.requests: dict[str, SimpleNamespace] = {}
        self.steps = 0

    def reset_prefix_cache(self) -> bool:
        return not self.requests

    def add_request(self, name: str, prompt: dict[str, list[int]], how: SamplingParams) -> None:
        self.requests[name] = SimpleNamespace(name=name, prompt=prompt["prompt_token_ids"], written=[], how=how)

    def has_unfinished_requests(self) -> bool:
        return bool(self.requests)

    def abort_request(self, names: list[str]) -> None:
        for name in names:
            self.requests.pop(name, None)

    def step(self) -> list[Any]:
        if FAULT == "dies":
            print("CUDA error: an illegal memory access was encountered")
            os._exit(3)
        if FAULT == "hangs":
            time.sleep(600)
        self.steps += 1
        running = [*self.requests.values()][: self.args.max_num_seqs]
        return [self._output(one) for i, one in enumerate(running) if (i + self.steps) % 2 or len(running) == 1]

    def _output(self, request: SimpleNamespace) -> Any:
        before = (*request.prompt, *request.written)
        token = draw(before, request.how)
        request.written.append(token)
        if len(request.written) == request.how.max_tokens:
            del self.requests[request.name]
        told = getattr(request.how, "logprob_token_ids", None) or [token]
        logprobs = {each: SimpleNamespace(logprob=logprob(before, each)) for each in told}
        read = None
        if getattr(request.how, "prompt_logprobs", None) is not None:
            read = [None] + [
                {token: SimpleNamespace(logprob=logprob(tuple(request.prompt[:i]), token))}
                for i, token in enumerate(request.prompt)
                if i
            ]
        output = SimpleNamespace(token_ids=[token], logprobs=[logprobs])
        return SimpleNamespace(request_id=request.name, outputs=[output], prompt_logprobs=read)


def number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6])


def draw(before: tuple[int, ...], how: SamplingParams) -> int:
    """The token that follows: one in thirty draws is the end."""
    said = number(before) if how.temperature == 0 else number(before, how.seed, how.temperature, how.top_p)
    return END if how.temperature and said % 30 == 0 else said // 30 % (TOKENS - 3) + 3


def logprob(before: tuple[int, ...], token: int) -> float:
    return -(number(before, token) % 1000) / 100 - 0.01
