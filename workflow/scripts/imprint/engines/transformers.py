"""The engine that runs weights in this process, through transformers.

Decoding is a plain loop over a batch: left-padded prompts, one forward pass a token, and rows that have ended are
dropped from the cache once they are more than a quarter of it. Prompts are read in segments, so that memory does not
grow with the square of their length, and the output layer runs on the last position of each only.

In fp32 a response does not depend on what else is in its batch. In bf16 it does (rounding differs with the shape of a
matrix product), so whoever wants the same text again must ask in the same batches.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from imprint import chat_text, grouped_attention
from imprint.chat_text import ChatText
from imprint.engines import Candidates, Prompt, Response, failed
from imprint.errors import ImprintError

if TYPE_CHECKING:
    import torch

LIVE = 0.75  # share of rows still being decoded under which the others are dropped
PREFILL = 8192  # positions (rows x columns) read in one forward pass
COLDEST = 1e-6  # a temperature below which a draw is the likeliest token anyway, and dividing by it overflows
SHARES = 1 << 48  # a probability of 1, when one is drawn from
SCORED = 1024  # positions whose logits over the vocabulary are held at once


class Engine:
    """A model and its tokenizer. `batch_size` is the number of sequences decoded together."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 32) -> None:
        import transformers

        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.device = model.device
        self.limit: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        ends = model.generation_config.eos_token_id
        self.ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        if self.device.type == "cpu":
            grouped_attention.install(model)
        dtype = str(model.dtype).removeprefix("torch.")
        self.name = f"transformers {transformers.__version__} {dtype} {self.device.type}"

    def render(self, messages: list[Any], prefill: str = "") -> ChatText:
        """The prompt of a dialogue whose assistant's turn begins with `prefill`, as `chat_text.render` says."""
        return chat_text.render(self.tokenizer, messages, prefill)

    def tokens(self, text: str, breaks: tuple[int, ...] = ()) -> list[int]:
        """Token ids of rendered text, as `chat_text.tokens` says."""
        return chat_text.tokens(self.tokenizer, text, breaks)

    def generate(self, prompts: list[Prompt]) -> list[Response]:
        """Continue every prompt, in batches of prompts of like length. A prompt that does not fit with its
        `max_new_tokens` into the model's positions gets an error; none is ever truncated."""
        import torch

        tokens = [self.tokens(prompt.text, prompt.breaks) for prompt in prompts]
        answers = [self._refusal(len(t), p.max_new_tokens) for t, p in zip(tokens, prompts, strict=True)]
        with torch.inference_mode():
            for batch in self._batches(tokens, [i for i, answer in enumerate(answers) if answer is None]):
                made = self._decode([prompts[i] for i in batch], [tokens[i] for i in batch])
                for i, answer in zip(batch, made, strict=True):
                    answers[i] = answer
        return [answer for answer in answers if answer is not None]

    def loglikelihood(self, asked: list[Candidates]) -> list[list[Response]]:
        """The log-likelihood (nats, sum over tokens) of each continuation behind its prompt, without an end token.

        Prompt and continuation are tokenized apart, so that all continuations of a prompt are scored behind the same
        tokens; spaces at the end of the prompt go to the continuation, as tokenizers join a space to the word after it.
        A prompt that is read once serves all its continuations. One that does not fit gets a single error."""
        import torch

        heads, tails = [], []
        answers: list[list[Response]] = []
        for one in asked:
            before = one.text.rstrip(" ")
            spaces = one.text[len(before) :]
            head, tail = self.tokens(before, one.breaks), []
            try:
                tail = [self.tokens(*chat_text.data(self.tokenizer, spaces + text)) for text in one.continuations]
            except ImprintError as error:
                refusal: Response | None = failed(str(error), len(head))
            else:
                if not tail or not all(tail):
                    refusal = failed("no continuations, or an empty one", len(head))
                else:
                    refusal = self._refusal(len(head), max(map(len, tail)))
            heads.append(head)
            tails.append(tail)
            answers.append([] if refusal is None else [refusal])
        with torch.inference_mode():
            for batch in self._batches(heads, [i for i, answer in enumerate(answers) if not answer]):
                started = time.perf_counter()
                scored = self._score([heads[i] for i in batch], [tails[i] for i in batch])
                share = (time.perf_counter() - started) / sum(map(len, scored))
                for i, sums in zip(batch, scored, strict=True):
                    answers[i] = [
                        Response(text, None, len(heads[i]), len(tail), total, share)
                        for text, tail, total in zip(asked[i].continuations, tails[i], sums, strict=True)
                    ]
        return answers

    def _refusal(self, prompt: int, more: int) -> Response | None:
        if prompt == 0:
            return failed("the prompt is empty", 0)
        if self.limit is not None and prompt + more > self.limit:
            return failed(
                f"the prompt has {prompt} tokens and up to {more} more are asked for, but the model has {self.limit} "
                "positions",
                prompt,
            )
        return None

    def _batches(self, tokens: list[list[int]], which: list[int]) -> Iterator[list[int]]:
        """Indices in batches, longest first, so that what does not fit into memory fails at once."""
        order = sorted(which, key=lambda i: (-len(tokens[i]), i))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def _prefill(self, tokens: list[list[int]]) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """Read prompts: the cache, the mask (rows x columns, 0 on the padding at the left), and the logits (rows x
        vocabulary, fp32) of what follows."""
        import torch
        from transformers import DynamicCache

        width = max(map(len, tokens))
        ids = torch.tensor([[self.tokenizer.pad_token_id] * (width - len(t)) + t for t in tokens], device=self.device)
        mask = torch.tensor([[0] * (width - len(t)) + [1] * len(t) for t in tokens], device=self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.model.config)
        step = max(1, PREFILL // len(tokens))
        for start in range(0, width, step):
            part = slice(start, start + step)
            logits = self._forward(ids[:, part], mask[:, : start + step], positions[:, part], cache, 1)
        return cache, mask, logits[:, -1].float()

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any, keep: int
    ) -> torch.Tensor:
        """Logits of the last `keep` positions (0: all) of `ids`, which the cache is extended by."""
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
        """Continue one batch."""
        started = time.perf_counter()
        rows = self.decode(prompts, tokens)
        share = (time.perf_counter() - started) / len(rows)
        return [
            Response(row.text(), row.reason, len(prompt), len(row.tokens), row.logprob, share)
            for row, prompt in zip(rows, tokens, strict=True)
        ]

    def decode(self, prompts: list[Prompt], tokens: list[list[int]]) -> list[Row]:
        """Continue one batch of prompts with their token ids; call it in inference mode. A prompt that stands in the
        batch more than once (several samples of it) is read once."""
        import torch

        distinct = list(dict.fromkeys(map(tuple, tokens)))
        cache, mask, logits = self._prefill([list(one) for one in distinct])
        if len(distinct) < len(tokens):
            places = {one: i for i, one in enumerate(distinct)}
            index = torch.tensor([places[tuple(one)] for one in tokens], device=self.device)
            cache.batch_select_indices(index)
            mask, logits = mask[index], logits[index]
        position = mask.sum(1)
        rows = [Row(self, prompt) for prompt in prompts]
        live = rows  # those in the tensors; ended ones among them are decoded on and ignored
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
            logits = self._forward(chosen[:, None], mask, position[:, None], cache, 1)[:, -1].float()
            position = position + 1
        return rows

    def _score(self, heads: list[list[int]], tails: list[list[list[int]]]) -> list[list[float]]:
        """Log-likelihoods of the tails of one batch of heads. The first token of each follows from the head alone; the
        others are read behind copies of its cache, `batch_size` rows at a time."""
        import torch

        cache, mask, logits = self._prefill(heads)
        first = logits.log_softmax(1)
        sums = [[float(first[i, tail[0]]) for tail in tails[i]] for i in range(len(heads))]
        pairs = [(i, j) for i in range(len(heads)) for j, tail in enumerate(tails[i]) if len(tail) > 1]
        for start in range(0, len(pairs), self.batch_size):
            some = pairs[start : start + self.batch_size]
            index = torch.tensor([i for i, _ in some], device=self.device)
            branch = copy.deepcopy(cache)
            branch.batch_select_indices(index)
            rest = [tails[i][j] for i, j in some]
            totals = self._follow(rest, mask[index], branch)
            for (i, j), total in zip(some, totals, strict=True):
                sums[i][j] += total
        return sums

    def _follow(self, tails: list[list[int]], mask: torch.Tensor, cache: Any) -> list[float]:
        """Sum of the log-probabilities of each tail's tokens after its first, behind the cache. Tails are padded at
        the right, where no token of their own can see it."""
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
            logits = self._forward(ids[:, columns], mask, begin + columns, cache, 0).float()
            logprobs = logits.gather(2, targets[:, columns, None])[..., 0] - logits.logsumexp(2)
            total += logprobs.double().masked_fill(columns >= lengths[:, None], 0.0).sum(1)
        return [float(value) for value in total]


class Row:
    """One sequence that is being decoded."""

    def __init__(self, engine: Engine, prompt: Prompt) -> None:
        import torch

        self.engine, self.prompt = engine, prompt
        self.tokens: list[int] = []
        self.logprob = 0.0
        self.reason: str | None = None
        # A stop text spans no more tokens than it has bytes; a few more, for characters split over tokens.
        self.window = max((len(text.encode()) for text in prompt.stop), default=0) + 4
        if prompt.max_new_tokens < 1:
            raise ImprintError(f"max_new_tokens is {prompt.max_new_tokens}; write at least 1")
        if prompt.temperature > 0:
            generator = torch.Generator().manual_seed(prompt.seed)
            self.draws = torch.rand(prompt.max_new_tokens, generator=generator, dtype=torch.float64).tolist()

    def append(self, token: int, logprob: float) -> None:
        """Take the next token, and see whether it ends the response."""
        self.tokens.append(token)
        self.logprob += logprob
        if token in self.engine.ends:
            self.reason = "stop"
            return
        if self.prompt.stop:
            tail = self._decode(self.tokens[-self.window :])
            found = [text for text in self.prompt.stop if text in tail]
            if found:
                self.reason = "stop"
                return
        if len(self.tokens) == self.prompt.max_new_tokens:
            self.reason = "length"

    def _decode(self, tokens: list[int]) -> str:
        decode = self.engine.tokenizer.decode
        return str(decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def text(self) -> str:
        """The response, cut before the first of its stop texts."""
        text = self._decode([token for token in self.tokens if token not in self.engine.ends])
        ends = [place for stop in self.prompt.stop if (place := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text


def _choose(logits: torch.Tensor, rows: list[Row]) -> torch.Tensor:
    """The next token of each row: the likeliest, or a draw. A row's token does not depend on the other rows."""
    chosen = logits.argmax(1)
    drawn = [i for i, row in enumerate(rows) if row.prompt.temperature > 0 and row.reason is None]
    for nucleus in (False, True):
        if some := [i for i in drawn if (rows[i].prompt.top_p < 1) == nucleus]:
            chosen[some] = _draw(logits[some], [rows[i] for i in some], nucleus)
    return chosen


def _draw(logits: torch.Tensor, rows: list[Row], nucleus: bool) -> torch.Tensor:
    """A draw for each row by the inverse of the distribution function with the row's own uniform number, if `nucleus`
    from the smallest set of tokens that holds `top_p` of the tempered distribution. The order of the tokens decides
    which one a number stands for, so rows with and without a nucleus are drawn apart. Probabilities are added up as
    integers, whose sums are the same in any order: on a GPU those of floats differ from run to run."""
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
