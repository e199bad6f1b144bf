"""The activations of a policy, as it reads prompts: a hook that records, and changes nothing. Other hooks of the policy
that were installed before are seen in what is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

from imprint.engines import Hooked, Positions
from imprint.models import layers
from imprint.models.chat_text import ChatText, unanswered
from imprint.policies.dialogue import Request, single
from imprint.runtime.errors import ImprintError

if TYPE_CHECKING:
    import torch

    from imprint.policies.policy import Policy

Site = Literal["residual", "heads"]
"""What is recorded of each layer: the residual stream behind the layer, or the input of the attention's output
projection, which holds the heads side by side."""


def record(engine: Hooked, texts: list[ChatText], positions: Positions, site: Site) -> torch.Tensor:
    """The mean activations of each rendered prompt over its tokens at `positions` ("prompt" or "last_prompt"), fp32 on
    the CPU, [prompts, layers, width]. Raises ImprintError if there are no prompts, and for activations that are not
    finite."""
    import torch

    if not texts:
        raise ImprintError("there is no prompt whose activations could be recorded; write a dataset with rows")
    means: list[torch.Tensor | None] = [None] * len(texts)
    with _recorder(engine, positions, site) as sums:
        for batch in engine.read(texts):
            tokens = sums.pop("tokens")
            taken = torch.stack([sums.pop(number) for number in sorted(sums)], 1) / tokens[:, None, None]
            for place, index in enumerate(batch):
                means[index] = taken[place]
    recorded = torch.stack([mean for mean in means if mean is not None])
    if not recorded.isfinite().all():
        raise ImprintError("the model's activations are not finite; its weights, or a hook of the arm, are broken")
    return recorded


def of_policy(
    policy: Policy, rows: Sequence[dict[str, Any]], positions: Positions, site: Site = "residual"
) -> torch.Tensor:
    """`record` of what an arm reads when it is asked the rows of a dataset, under its contexts and with its hooks; an
    answer at the end of a row is not read. Raises ImprintError for contexts that make no request of a row, or
    several."""
    texts = []
    for row in rows:
        asked = unanswered(row["messages"])
        request = single(policy.contexts, {**row, "messages": asked}, Request(asked), policy.inputs)
        texts.append(policy.engine.render(request.messages, request.prefill))
    return record(cast(Hooked, policy.engine), texts, positions, site)


@contextmanager
def _recorder(engine: Hooked, positions: Positions, site: Site) -> Iterator[dict[Any, torch.Tensor]]:
    """Adds up what the next passes hold: layer -> sums [rows, width], and "tokens" -> the number of tokens [rows]."""
    sums: dict[Any, torch.Tensor] = {}

    def add(number: int, hidden: torch.Tensor) -> None:
        at = engine.passing.at(positions)
        if at is None:
            return
        total = hidden.float().masked_fill(~at[:, :, None], 0.0).sum(1).cpu()
        sums[number] = sums[number] + total if number in sums else total
        if number == 0:
            tokens = at.sum(1).float().cpu()
            sums["tokens"] = sums["tokens"] + tokens if "tokens" in sums else tokens

    handles = []
    if site == "residual":
        for number, module in enumerate(layers.layers(engine.model, "recording")):
            handles.append(
                module.register_forward_hook(
                    lambda _, given, output, number=number: add(number, layers.activations(output))
                )
            )
    else:
        for number, module in enumerate(layers.output_projections(engine.model, "recording")):
            handles.append(module.register_forward_pre_hook(lambda _, given, number=number: add(number, given[0])))
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
