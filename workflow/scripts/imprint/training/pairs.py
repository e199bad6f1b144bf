"""Preference pairs for a fit: dataset rows as tokens of a prompt, of the chosen answer and of the rejected one.

A row's messages end with the chosen assistant turn, and `fields.rejected` is the text of the turn that was rejected in
its place. Both dialogues are put under the fit's contexts. The answer is the last assistant turn, with the token that
ends it; all that precedes it is the prompt.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from imprint.methods import Fit
from imprint.models import chat_text
from imprint.models.chat_text import Message
from imprint.runtime.errors import ImprintError
from imprint.training.assistant_tokens import spans
from imprint.training.examples import render


class Pair(NamedTuple):
    """Token ids, as they stand in the dataset. A fit reads the first `max_length` tokens of prompt and answer."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def length(self) -> int:
        """Tokens of the prompt with the longer answer."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    def cut(self, max_length: int) -> Pair:
        """The pair without the tokens after `max_length`."""
        room = max(0, max_length - len(self.prompt))
        return Pair(self.prompt[:max_length], self.chosen[:room], self.rejected[:room])


def pairs(job: Fit, tokenizer: Any, data: str) -> tuple[list[Pair], int]:
    """The pairs of a dataset that have two different answers, in the dataset's order and uncut, and the number of rows
    whose answers are equal. Raises ImprintError for a row without a chosen or a rejected turn, for a row that cannot be
    encoded, and if no pair has two answers that differ within `max_length`."""
    rows = job.inputs.datasets[data]
    encoded = [_pair(job, tokenizer, row, f"dataset '{data}', example {row['example_id']}") for row in rows]
    different = [pair for pair in encoded if pair.chosen != pair.rejected]
    if not different:
        raise ImprintError(
            f"arm '{job.arm}': dataset '{data}' has no pair of two answers ({len(rows)} rows, all with the same text "
            "as chosen and rejected); write pairs that differ"
        )
    limit = job.settings.max_length
    if all(cut.chosen == cut.rejected for cut in (pair.cut(limit) for pair in different)):
        raise ImprintError(
            f"arm '{job.arm}': in every row of '{data}', the answers are equal within max_length: {limit} tokens; "
            f"write up to {max(pair.length for pair in different)}"
        )
    return different, len(encoded) - len(different)


def _pair(job: Fit, tokenizer: Any, row: dict[str, Any], where: str) -> Pair:
    *before, last = row["messages"] or [Message(role="none", content="")]
    if last["role"] != "assistant":
        raise ImprintError(f"{where} does not end with an assistant turn, the chosen answer; add it to its messages")
    rejected = row["fields"].get("rejected")
    if not isinstance(rejected, str):
        raise ImprintError(f"{where} has no rejected answer; write its text into `fields` as `rejected`")
    prompt, chosen = _tokens(tokenizer, render(job, row), where)
    other = {**row, "messages": [*before, Message(role="assistant", content=rejected)]}
    prompt_of_rejected, rejected_ids = _tokens(tokenizer, render(job, other), f"{where}, rejected")
    if prompt != prompt_of_rejected:
        raise ImprintError(
            f"arm '{job.arm}': {where}: the context writes another prompt for the rejected answer than for the chosen "
            "one; write another context under `fit`"
        )
    return Pair(prompt, chosen, rejected_ids)


def _tokens(tokenizer: Any, messages: list[Message], where: str) -> tuple[list[int], list[int]]:
    """Token ids of all that precedes the last assistant turn, and of this turn."""
    *before, (answer, _) = spans(tokenizer, messages, where)
    prompt = [token for text, _ in before for token in chat_text.tokens(tokenizer, *text)]
    return prompt, chat_text.tokens(tokenizer, *answer)
