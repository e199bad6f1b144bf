"""The sizes of a model, from its config and the headers of its safetensors. No tensor is read, and no torch is
needed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_object

NO_MODEL = (AttributeError, KeyError, TypeError, ValueError, ArithmeticError)
"""What `sizes` raises for a config that is not that of a language model."""


class Adapter(NamedTuple):
    """A low-rank adapter: its rank, and the names of the layers that get one."""

    rank: int
    targets: Literal["all-linear"] | list[str]


class Model(NamedTuple):
    """The sizes of a model. `matrices`: (name, outputs, inputs) of the matrices in the layers. `layers`: how many
    layers there are. `hidden`: width between the layers. `attention`: width of all queries. `groups`: heads of keys and
    values. `cached`: keys and values of a token, in all layers. `head`: weights of the output layer, which is the
    embedding too where it is `tied`. `largest`: weights of the largest tensor."""

    parameters: int
    layers: int
    hidden: int
    attention: int
    groups: int
    cached: int
    vocabulary: int
    head: int
    tied: bool
    largest: int
    matrices: tuple[tuple[str, int, int], ...]

    def adapter(self, of: Adapter | None) -> int:
        """The weights of a low-rank adapter: rank x (outputs + inputs) of each matrix that gets one."""
        chosen = [
            outputs + inputs
            for name, outputs, inputs in self.matrices
            if of and (of.targets == "all-linear" or any(name.endswith(f".{each}.weight") for each in of.targets))
        ]
        return of.rank * sum(chosen) if of else 0


def most_ranks(groups: int, gpus: int) -> int:
    """How many of so many GPUs can share a model by tensor parallelism: each has as many heads of keys and values as
    the others, out of `groups`."""
    return max(ranks for ranks in range(1, max(1, gpus) + 1) if groups % ranks == 0)


def model(folder: Path) -> Model | None:
    """The sizes of the model in a folder. None where the folder holds no such model: fetching says what is wrong with
    it."""
    from safetensors import SafetensorError, safe_open

    index, shapes = folder / "model.safetensors.index.json", dict[str, tuple[int, ...]]()
    try:
        files = set(read_object(index)["weight_map"].values()) if index.is_file() else {"model.safetensors"}
        for file in sorted(files):
            with safe_open(folder / Path(file).name, framework="np") as tensors:
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        return sizes(read_object(folder / "config.json"), shapes)
    except (ImprintError, OSError, SafetensorError, *NO_MODEL):
        return None


def sizes(config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Model:
    """The sizes of a model from its config and the shapes of its tensors. Tied parameters count once. Raises one of
    NO_MODEL for other configs."""
    text = config.get("text_config", config)
    heads, hidden, layers = (int(text[key]) for key in ("num_attention_heads", "hidden_size", "num_hidden_layers"))
    head_width = int(text.get("head_dim") or hidden // heads)
    groups = int(text.get("num_key_value_heads") or heads)
    if config.get("tie_word_embeddings"):
        shapes = {name: shape for name, shape in shapes.items() if name != "lm_head.weight"}
    counts = [math.prod(shape) for shape in shapes.values()]
    matrices = tuple(
        (name, shape[0], shape[1])
        for name, shape in sorted(shapes.items())
        if len(shape) == 2 and re.search(r"\.\d+\.", name)
    )
    vocabulary = int(text["vocab_size"])
    if min(layers, hidden, heads, head_width, groups, vocabulary, len(matrices)) < 1:
        raise ValueError("a size is below one")
    return Model(
        parameters=sum(counts),
        layers=layers,
        hidden=hidden,
        attention=heads * head_width,
        groups=groups,
        cached=2 * layers * groups * head_width,
        vocabulary=vocabulary,
        head=vocabulary * hidden,
        tied="lm_head.weight" not in shapes,
        largest=max(counts),
        matrices=matrices,
    )
