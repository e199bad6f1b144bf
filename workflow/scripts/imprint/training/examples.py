"""Dataset rows for a fit: each is put under the fit's contexts, then turned into tokens and labels."""

from __future__ import annotations

from typing import Any

from imprint.methods import Fit
from imprint.models.chat_text import Message
from imprint.policies.dialogue import Request, single
from imprint.runtime.errors import ImprintError
from imprint.training.assistant_tokens import IGNORED, Example, encode


def render(job: Fit, row: dict[str, Any]) -> list[Message]:
    """The dialogue that the model is trained on for a row. Each context in turn gives its `target` for the messages so
    far, or else the messages of its one request. Raises ImprintError if such a request opens the assistant's turn."""
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
    """Tokens and labels of every row of a dataset, in the dataset's order. Raises ImprintError if the dataset is empty,
    if a row cannot be encoded, or if no row has a label within `max_length`."""
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
