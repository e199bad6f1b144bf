"""Model folders with the shapes of real models and no weights: a config, and the header of a file of safetensors whose
data is a hole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

QWEN_7B: dict[str, Any] = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
"""Qwen2.5-7B (its config.json): 7,615,616,512 parameters."""


def shapes(config: dict[str, Any], bias: bool = True) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors of a Llama with this config, as Qwen's with biases of queries, keys and values."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    width = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = width * config["num_attention_heads"], width * config["num_key_value_heads"]
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name, outputs in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
            found[f"{layer}.self_attn.{name}.weight"] = (outputs, hidden)
            if bias:
                found[f"{layer}.self_attn.{name}.bias"] = (outputs,)
        found[f"{layer}.self_attn.o_proj.weight"] = (hidden, queries)
        found[f"{layer}.mlp.gate_proj.weight"] = found[f"{layer}.mlp.up_proj.weight"] = (inner, hidden)
        found[f"{layer}.mlp.down_proj.weight"] = (hidden, inner)
        found[f"{layer}.input_layernorm.weight"] = found[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
    return found


def make(folder: Path, config: dict[str, Any]) -> Path:
    """Write the config and a file of bf16 weights that takes no room on the disk. Returns `folder`."""
    header, end = dict[str, Any](), 0
    for name, shape in shapes(config).items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder
