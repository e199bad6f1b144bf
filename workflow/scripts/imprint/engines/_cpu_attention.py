"""Attention for decoding on a CPU, and the cache of keys and values that it reads.

A decode step is bound by memory there, so it copies as little as it can:

- torch's fused attention is told which query heads share a key-value head (Ainslie et al., arXiv 2305.13245). It then
  reads keys and values in place.
- Keys and values are written into memory that has room for more tokens. transformers' own cache copies all of them for
  every token.

docs/performance.md has the times. Import this module only where a model is in memory, since it imports torch.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import eager_mask

NAME = "imprint_cpu"
# Architectures whose attention is the plain formula below; others add sinks, caps or their own masks.
MODELS = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3"})
ROOM = 64
"""Further tokens for which a cache has room after each copy."""


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """softmax(query key' * scaling + mask) value. Shapes: query (batch, heads, new, dim), key and value (batch, groups,
    all, dim), mask (batch, 1, new, all), result (batch, new, heads, dim)."""
    if attention_mask is None or dropout:
        raise NotImplementedError("this attention is for decoding: it needs the causal mask, and has no dropout")
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2).contiguous(), None


class Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """The keys and values of a layer: the beginning of two tensors that have room for more columns. Whatever replaces
    them, such as a selection of rows, gets room with the next columns."""

    keys: Any
    values: Any
    roomy: tuple[torch.Tensor, ...]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns. Shapes: (batch, groups, columns, dim)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[2]
        if before == 0:
            self._copy(key_states[:, :, :0], value_states[:, :, :0], after)
        elif self.keys.data_ptr() != self.roomy[0].data_ptr() or after > self.roomy[0].shape[2]:
            self._copy(self.keys, self.values, after)
        for roomy, new in zip(self.roomy, (key_states, value_states), strict=True):
            roomy[:, :, before:after] = new
        self.keys, self.values = (roomy[:, :, :after] for roomy in self.roomy)
        return self.keys, self.values

    def _copy(self, keys: torch.Tensor, values: torch.Tensor, columns: int) -> None:
        """Hold `keys` and `values` at the beginning of new tensors with room for `ROOM` more than `columns`."""
        self.roomy = tuple(old.new_empty(*old.shape[:2], columns + ROOM, old.shape[3]) for old in (keys, values))
        for roomy, old in zip(self.roomy, (keys, values), strict=True):
            roomy[:, :, : old.shape[2]] = old


def cache(config: Any) -> DynamicCache:
    """An empty cache for a model with this config. Layers with another attention than the plain one, such as a sliding
    window, are transformers' own."""
    made = DynamicCache(config=config)
    make: Any = Layer  # transformers gives its layers no types
    made.layers = [make() if type(layer) is DynamicLayer else layer for layer in made.layers]
    return made


def install(model: Any) -> None:
    """Let a model use this attention, if its architecture is one of MODELS; other models are not changed."""
    if model.config.model_type in MODELS:
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, eager_mask)
        model.set_attn_implementation(NAME)
