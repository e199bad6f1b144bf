"""The log-probabilities of completions whose prompts are read once. Imports torch, so only fits import this module."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache

ENTROPY_ROWS = 128  # positions in one computation of entropies, which holds a second copy of their logits


def shared_prompt_logps(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, head: int, temperature: float, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probabilities of the tokens after column `head`, [rows, columns - head - 1], in nats, and their entropies if
    `entropy`, else None. Entropies have no gradient. Masked tokens get 0.

    `ids` and `mask` are [rows, columns]. The first `head` columns hold the prompts without their last token, padded on
    the left. The model reads equal prompts once; their gradient is the sum over the rows that share them. Logits are
    divided by `temperature`."""
    unpadded = ids[:, :head].masked_fill(mask[:, :head] == 0, -1)  # -1 marks padding
    prompts, prompt_of_row = torch.unique(unpadded, dim=0, return_inverse=True)
    prompt_mask = (prompts >= 0).long()
    cache = DynamicCache(config=model.config)
    model(
        input_ids=prompts.clamp(min=0),
        attention_mask=prompt_mask,
        position_ids=(prompt_mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_select_indices(prompt_of_row)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    scored = mask[:, head + 1 :].bool()
    output = (model.get_base_model() if hasattr(model, "peft_config") else model).get_output_embeddings()
    # The model's own forward pass computes the logits, so what an architecture does to them is kept.
    hook = output.register_forward_pre_hook(lambda _, hidden: (hidden[0][scored],))
    try:
        logits = model(
            input_ids=ids[:, head:-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, head:-1],
            past_key_values=cache,
            use_cache=True,
        ).logits
    finally:
        hook.remove()
    logits = logits.float() if temperature == 1 else logits.float() / temperature
    targets = ids[:, head + 1 :][scored]
    zeros = torch.zeros(scored.shape, device=ids.device)
    logps = zeros.masked_scatter(scored, -torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    if not entropy:
        return logps, None
    with torch.no_grad():
        entropies = torch.cat([_entropies(rows) for rows in logits.split(ENTROPY_ROWS)])
    return logps, zeros.masked_scatter(scored, entropies)


def _entropies(logits: torch.Tensor) -> torch.Tensor:
    logps = logits.log_softmax(1)
    return -(logps.exp() * logps).sum(1)
