"""Dataset rows as a fit sees them: dialogues under its contexts, as tokens and labels."""

from __future__ import annotations

from typing import Any

from imprint.methods import Fit
from imprint.models.chat_text import Message
from imprint.policies.dialogue import Request, single
from imprint.runtime.errors import ImprintError
from imprint.training.assistant_tokens import IGNORED, Example, encode


def render(job: Fit, row: dict[str, Any]) -> list[Message]:
    """The dialogue that a row is trained as: what each context's `target` makes of it, or the messages of its
    request."""
    messages: list[Message] = row["messages"]
    for plug in job.contexts:
        module, settings = plug.open("contexts")
        target = module.target({**row, "messages": messages}, settings)
        if target is None:
            request = single([plug], row, Request(messages), job.inputs)
            if request.prefill:
                raise ImprintError(
                    f"arm '{job.arm}': context '{plug.name}' opens the assistant's turn, and has no `target` that "
                    "says how a row is trained under it; write another context under `fit`"
                )
            target = list(request.messages)
        messages = target
    return messages


def examples(job: Fit, tokenizer: Any, data: str) -> list[Example]:
    """Every row of a dataset as tokens and labels, in the dataset's order."""
    rows = job.inputs.datasets[data]
    if not rows:
        raise ImprintError(f"arm '{job.arm}': dataset '{data}' has no rows to train on")
    encoded = []
    for row in rows:
        where = f"dataset '{data}', example {row['example_id']}"
        encoded.append(encode(tokenizer, render(job, row), job.settings.max_length, where))
    if not any(label != IGNORED for example in encoded for label in example.labels):
        raise ImprintError(
            f"arm '{job.arm}': the prompt alone fills max_length: {job.settings.max_length} tokens in every row of "
            f"'{data}'; write at least {max(example.full for example in encoded)}"
        )
    return encoded
