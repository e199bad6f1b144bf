"""The engine that runs weights on this machine, through transformers: in this process, or in several processes that
share them (`engines/_shared.py`).

Decoding is a plain loop over a batch of left-padded prompts, with one forward pass per token. Rows that have ended
leave the cache once they are more than a quarter of it. Prompts are read in segments, so that memory does not grow with
the square of their length. The output layer runs only on a segment's last position.

In fp32 a response does not depend on the rest of its batch. In bf16 it does, since rounding differs with the shape of a
matrix product: the same text comes again only from the same batches.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprint.engines import Candidates, Pass, Prompt, Response, Running, Sampling, _tokenized
from imprint.engines._tokenized import Tokenized, scored_options
from imprint.models import chains
from imprint.models.chat_text import ChatText
from imprint.runtime.errors import ImprintError

if TYPE_CHECKING:
    import torch

LIVE = 0.75
"""Ended rows leave the cache once less than this share of its rows is still being decoded."""
PREFILL = 8192
"""Positions (rows x columns) that one forward pass reads."""
COLDEST = 1e-6
"""Lower temperatures count as this one: the draw is the likeliest token anyway, and dividing by them overflows."""
SHARES = 1 << 48
"""The integer that stands for a probability of 1 in a draw."""
SCORED = 1024
"""Positions whose logits over the vocabulary are held in memory at once."""
SHARED = 64
"""The fewest tokens that a batch reads once for all its prompts, if they all begin with them."""


CAN = frozenset({"generate", "loglikelihood", "hooks", "weights", "sample"})


def start(chain: list[Path], dtype: str, device: str, batch_size: int, ranks: int = 1) -> Running:
    """The engine with the weights of a chain of manifests."""
    if ranks > 1:
        from imprint.engines import _shared

        return _shared.Together(chain, dtype, device, batch_size, ranks)
    return Engine(*chains.load(chain, dtype, device), batch_size)


def sampler(chain: list[Path], dtype: str, device: str, sequences: int, tokens: int) -> Sampling:
    """The engine beside a fit: a model of its own in this process."""
    model, tokenizer = chains.load(chain, dtype, device)
    return Engine(model.requires_grad_(False), tokenizer, sequences)


def ranks(chain: list[Path], gpus: int) -> int:
    """As many GPUs as can share the model of a chain (`chains.most_ranks`)."""
    return chains.most_ranks(chain[0].parent, gpus) if gpus > 1 else 1


class Engine(Tokenized):
    """A model and its tokenizer. `batch_size` is the number of sequences decoded together."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 32) -> None:
        import transformers

        super().__init__(tokenizer, model.config, model.generation_config)
        self.model, self.batch_size = model, batch_size
        self.device = model.device
        self.passing = Pass()
        self.new_cache: Callable[..., Any] = transformers.DynamicCache
        if self.device.type == "cpu":
            from imprint.engines import _cpu_attention

            _cpu_attention.install(model)
            self.new_cache = _cpu_attention.cache
        dtype = str(model.dtype).removeprefix("torch.")
        self.name = f"transformers {transformers.__version__} {dtype} {self.device.type}"

    def generate(self, prompts: list[Prompt]) -> list[Response]:
        """Continue every prompt, in batches of prompts of similar length. A prompt that does not fit into the model's
        positions together with its longest response gets an error. No prompt is ever cut."""
        import torch

        tokens = [self.tokens(prompt.text, prompt.breaks) for prompt in prompts]
        answers = [self.refusal(len(t), p.longest) for t, p in zip(tokens, prompts, strict=True)]
        with torch.inference_mode():
            for batch in self._batches(tokens, [i for i, answer in enumerate(answers) if answer is None]):
                responses = self._decode([prompts[i] for i in batch], [tokens[i] for i in batch])
                for i, answer in zip(batch, responses, strict=True):
                    answers[i] = answer
        return [answer for answer in answers if answer is not None]

    def read(self, texts: list[ChatText]) -> Iterator[list[int]]:
        """Read rendered prompts without an answer, for hooks that record. Yields the indices of the prompts of a batch
        after the batch's last pass; the rows of its passes are in this order. Raises ImprintError for a prompt that
        does not fit into the model's positions."""
        import torch

        tokens = [self.tokens(*text) for text in texts]
        for ids in tokens:
            if refusal := self.refusal(len(ids), 0):
                raise ImprintError(str(refusal.error))
        for batch in self._batches(tokens, list(range(len(tokens)))):
            with torch.inference_mode():
                self._prefill([tokens[i] for i in batch], share=False)
            yield batch

    def loglikelihood(self, asked: list[Candidates]) -> list[list[Response]]:
        """The log-likelihood (nats, sum over tokens) of each continuation behind its prompt, without an end token.

        Prompt and continuations are tokenized as `chat_text.continued` says. Each prompt is read once for all its
        continuations. A prompt that does not fit gets a single error."""
        import torch

        heads, tails, answers = self.options(asked)
        with torch.inference_mode():
            for batch in self._batches(heads, [i for i, answer in enumerate(answers) if not answer]):
                started = time.perf_counter()
                scored = self._score([heads[i] for i in batch], [tails[i] for i in batch])
                share = (time.perf_counter() - started) / sum(map(len, scored))
                for i, sums in zip(batch, scored, strict=True):
                    answers[i] = scored_options(asked[i], len(heads[i]), tails[i], sums, share)
        return answers

    def _batches(self, tokens: list[list[int]], which: list[int]) -> Iterator[list[int]]:
        """Indices in batches, longest prompts first, so that a batch too large for memory fails at once."""
        order = sorted(which, key=lambda i: (-len(tokens[i]), i))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def _prefill(self, tokens: list[list[int]], share: bool = True) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """Read prompts. Returns the cache, the mask (rows x columns, 0 on the padding), and the logits of the next
        token (rows x vocabulary, fp32). With `share`, the tokens with which all prompts begin are read as one row,
        which becomes the beginning of every row; the padding then stands behind them."""
        import torch

        cache = self.new_cache(config=self.model.config)
        shared = _shared(tokens) if share else 0
        if shared:
            self._read(cache, [tokens[0][:shared]], torch.ones(1, 0, dtype=torch.long, device=self.device), ends=False)
            cache.batch_select_indices(torch.zeros(len(tokens), dtype=torch.long, device=self.device))
        read = torch.ones(len(tokens), shared, dtype=torch.long, device=self.device)
        mask, logits = self._read(cache, [row[shared:] for row in tokens], read, ends=True)
        return cache, mask, logits

    def _read(
        self, cache: Any, tokens: list[list[int]], mask: torch.Tensor, ends: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Read tokens of prompts behind those in the cache, whose mask is `mask`. Returns the longer mask and the
        logits of the next token. `ends`: the prompts end with these tokens."""
        import torch

        before, width = mask.shape[1], max(map(len, tokens))
        ids = torch.tensor([[self.tokenizer.pad_token_id] * (width - len(t)) + t for t in tokens], device=self.device)
        real = torch.tensor([[0] * (width - len(t)) + [1] * len(t) for t in tokens], device=self.device)
        mask = torch.cat([mask, real], 1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, before:]
        step = max(1, PREFILL // len(tokens))
        for start in range(0, width, step):
            part = slice(start, start + step)
            self.passing.begin(real[:, part].bool(), written=False, ends=ends and start + step >= width)
            logits = self._forward(ids[:, part], mask[:, : before + start + step], positions[:, part], cache, 1)
        return mask, logits[:, -1].float()

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any, keep: int
    ) -> torch.Tensor:
        """Logits of the last `keep` positions of `ids`, or of all positions if `keep` is 0. Extends the cache by
        `ids`."""
        logits: torch.Tensor = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits

    def _decode(self, prompts: list[Prompt], tokens: list[list[int]]) -> list[Response]:
        """Continue one batch, and take the time."""
        started = time.perf_counter()
        rows = self._rows(prompts, tokens)
        share = (time.perf_counter() - started) / len(rows)
        return [row.response(len(prompt), share) for row, prompt in zip(rows, tokens, strict=True)]

    def renew(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Take over weights, one after the other, by the names of the model's parameters."""
        import torch

        held = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, weight in weights:
                held[name].copy_(weight)

    def decode(self, prompts: list[Prompt], tokens: list[list[int]]) -> list[Row]:
        """What follows each prompt, whose token ids are `tokens`, in batches of neighbours. All prompts fit."""
        import torch

        rows = list[Row]()
        with torch.inference_mode():
            for start in range(0, len(prompts), self.batch_size):
                batch = slice(start, start + self.batch_size)
                rows += self._rows(prompts[batch], tokens[batch])
        return rows

    def _rows(self, prompts: list[Prompt], tokens: list[list[int]]) -> list[Row]:
        """Continue one batch of prompts, whose token ids are `tokens`; call it in inference mode. Several samples of
        one prompt share one reading of it."""
        import torch

        distinct = list(dict.fromkeys(map(tuple, tokens)))
        cache, mask, logits = self._prefill(list(map(list, distinct)))
        if len(distinct) < len(tokens):
            places = {prompt: place for place, prompt in enumerate(distinct)}
            index = torch.tensor([places[prompt] for prompt in map(tuple, tokens)], device=self.device)
            cache.batch_select_indices(index)
            mask, logits = mask[index], logits[index]
        position = mask.sum(1)
        rows = [Row(self, prompt) for prompt in prompts]
        live = rows  # the rows of the tensors; ended rows among them are decoded on and ignored
        while True:
            chosen = _choose(logits, live)
            sums = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(1)
            for row, token, logprob in zip(live, chosen.tolist(), sums.tolist(), strict=True):
                if row.reason is None:
                    row.append(token, logprob)
            keep = [i for i, row in enumerate(live) if row.reason is None]
            if not keep:
                break
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], 1)
            if len(keep) < LIVE * len(live):
                index = torch.tensor(keep, device=self.device)
                cache.batch_select_indices(index)
                mask, position, chosen = mask[index], position[index], chosen[index]
                live = [live[i] for i in keep]
            self.passing.begin(mask[:, -1:].bool(), written=True, ends=False)
            logits = self._forward(chosen[:, None], mask, position[:, None], cache, 1)[:, -1].float()
            position = position + 1
        return rows

    def _score(self, heads: list[list[int]], tails: list[list[list[int]]]) -> list[list[float]]:
        """Log-likelihoods of the tails of one batch of heads. A tail's first token follows from the head alone; its
        other tokens are read behind a copy of the head's cache, `batch_size` rows at a time."""
        import torch

        cache, mask, logits = self._prefill(heads)
        first = logits.log_softmax(1)
        sums = [[float(first[i, tail[0]]) for tail in tails[i]] for i in range(len(heads))]
        pairs = [(i, j) for i in range(len(heads)) for j, tail in enumerate(tails[i]) if len(tail) > 1]
        for start in range(0, len(pairs), self.batch_size):
            batch = pairs[start : start + self.batch_size]
            index = torch.tensor([i for i, _ in batch], device=self.device)
            branch = copy.deepcopy(cache)
            branch.batch_select_indices(index)
            totals = self._follow([tails[i][j] for i, j in batch], mask[index], branch)
            for (i, j), total in zip(batch, totals, strict=True):
                sums[i][j] += total
        return sums

    def _follow(self, tails: list[list[int]], mask: torch.Tensor, cache: Any) -> list[float]:
        """Sum of the log-probabilities of each tail's tokens but the first, behind the cache. Tails are padded at the
        right, where none of their own tokens sees the padding."""
        import torch

        width = max(map(len, tails)) - 1
        padded = torch.tensor([t + [self.tokenizer.pad_token_id] * (width + 1 - len(t)) for t in tails])
        ids, targets = padded[:, :-1].to(self.device), padded[:, 1:].to(self.device)
        lengths = torch.tensor([len(t) - 1 for t in tails], device=self.device)
        begin = mask.sum(1, keepdim=True)
        total = torch.zeros(len(tails), dtype=torch.float64, device=self.device)
        step = max(1, SCORED // len(tails))
        for start in range(0, width, step):
            columns = torch.arange(start, min(start + step, width), device=self.device)
            mask = torch.cat([mask, mask.new_ones(len(tails), len(columns))], 1)
            self.passing.begin(columns < lengths[:, None], written=True, ends=False)
            logits = self._forward(ids[:, columns], mask, begin + columns, cache, 0).float()
            logprobs = logits.gather(2, targets[:, columns, None])[..., 0] - logits.logsumexp(2)
            total += logprobs.double().masked_fill(columns >= lengths[:, None], 0.0).sum(1)
        return [float(value) for value in total]


class Row(_tokenized.Row):
    """One sequence that is being decoded, with its random numbers."""

    def __init__(self, engine: Engine, prompt: Prompt) -> None:
        import torch

        super().__init__(engine, prompt)
        if prompt.temperature > 0:
            generator = torch.Generator().manual_seed(prompt.seed)
            self.draws = torch.rand(prompt.longest, generator=generator, dtype=torch.float64).tolist()


def _shared(tokens: list[list[int]]) -> int:
    """The number of tokens with which all prompts begin and that are read once; 0 if that saves little. Each prompt
    keeps a token of its own, whose logits follow."""
    first, last = min(tokens), max(tokens)  # the two that differ earliest
    common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    common = min(common, *(len(row) - 1 for row in tokens))
    return common if len(tokens) > 1 and common >= SHARED else 0


def _choose(logits: torch.Tensor, rows: list[Row]) -> torch.Tensor:
    """The next token of each row: the likeliest token, or a draw. A row's token does not depend on the other rows."""
    chosen = logits.max(1).indices  # on a CPU in a third of the time of `argmax`
    drawn = [i for i, row in enumerate(rows) if row.prompt.temperature > 0 and row.reason is None]
    for nucleus in (False, True):
        if places := [i for i in drawn if (rows[i].prompt.top_p < 1) == nucleus]:
            chosen[places] = _draw(logits[places], [rows[i] for i in places], nucleus)
    return chosen


def _draw(logits: torch.Tensor, rows: list[Row], nucleus: bool) -> torch.Tensor:
    """A token for each row: its uniform random number, put into the inverse distribution function of the tempered
    distribution. With `nucleus`, the draw is from the smallest set of tokens that holds `top_p` of that distribution.
    The order of the tokens decides which token a number means, so rows with a nucleus are drawn apart from the others.
    Probabilities are added up as integers, whose sums are exact: on a GPU, sums of floats differ from run to run."""
    import torch

    def column(values: Iterable[float]) -> torch.Tensor:
        return torch.tensor(list(values), dtype=torch.float64).to(logits.device)[:, None]

    scaled = logits / column(max(row.prompt.temperature, COLDEST) for row in rows).float()
    shares = (scaled.softmax(1).double() * SHARES).round().long()
    order = None
    if nucleus:
        shares, order = shares.sort(dim=1, descending=True, stable=True)
        shares *= shares.cumsum(1) - shares < column(row.prompt.top_p for row in rows) * SHARES
    reached = shares.cumsum(1)
    draw = column(row.draws[len(row.tokens)] for row in rows) * reached[:, -1:]
    place = (reached <= draw).sum(1, keepdim=True)
    return (place if order is None else order.gather(1, place))[:, 0]
