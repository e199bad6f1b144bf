"""What a job keeps on its GPU, reckoned before the job runs.

Sizes are in bytes and follow from the shapes of the model's tensors (`runtime/model_sizes.py`). A term is exact, or it
is the most that there can be. The exact terms of a fit are alive together when the optimiser steps, so a GPU with less
memory than their sum cannot hold the fit. The others depend on the rows: each is reckoned for rows of full length.
tests/test_gpu_memory.py and benchmarks/gpu_memory.py compare both sums with the tensors of real fits.

Not counted are torch itself (some 0.5 GB), what its allocator cannot use between two tensors, and the vectors and
masks that are small beside a layer. The reckoning is made for layers of attention and an MLP, as Llama's, and for
torch's fused attention, which keeps no weights between tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from imprint.runtime.errors import ImprintError
from imprint.runtime.model_sizes import Adapter, Model
from imprint.runtime.plugins import Plug

GB = 10**9
PROMPT = 512
"""Tokens of a prompt, where nobody says how long the prompts are."""
WORKSPACE = 2 << 30
"""Bytes of a GPU that vLLM has for CUDA, its graphs, and what a pass has between the layers."""
PREFILL = 8192
"""Positions that the engine reads in one pass (engines/transformers.py)."""
TILE = (4096, 32768)
"""Positions and tokens of the logits that TRL computes at a time (trl/kernels/chunked_logprob.py)."""
ENDS = 4
"""Rows of the model's width that a position keeps outside the layers: the embedding, and those of the last norm."""


class Holds(NamedTuple):
    """What a fit keeps on each of its devices beside the weights, as its method says.

    `trained`: all weights, an adapter to them, or coefficients, for which the gradients of one tensor at a time are
    enough. `rows` and `tokens`: of one backward pass; `tokens` are a row's most. `prompts`: how many prompts of unknown
    length are read besides. `recomputes`: activations are computed again in the backward pass. `tiled`: logits are
    never all in memory. `reference`: a second copy of the weights, which ranks share as they share the first. In a fit
    that samples it is in the number format of generation, else in fp32.
    `sampled`: the completions that are drawn together, from a copy of the weights in the number format of generation; 0
    where none are drawn. `apart`: the engine that draws is vLLM, which keeps its memory during the backward pass too.
    `vectors`: task vectors, which take up to half of the memory that is free beside the weights."""

    trained: Literal["weights", "adapter", "coefficients"]
    rows: int
    tokens: int
    adapter: Adapter | None = None
    prompts: int = 0
    recomputes: bool = False
    tiled: bool = False
    reference: bool = False
    sampled: int = 0
    apart: bool = False
    vectors: int = 0


class Term(NamedTuple):
    """A part of what a job needs. `exact`: it is there in any case, and of this size."""

    name: str
    size: int
    exact: bool


class Need(NamedTuple):
    """What a job needs on its GPU, in bytes."""

    terms: tuple[Term, ...]

    @property
    def least(self) -> int:
        """What it needs in any case."""
        return sum(term.size for term in self.terms if term.exact)

    @property
    def most(self) -> int:
        """What is enough."""
        return sum(term.size for term in self.terms)

    @property
    def range(self) -> str:
        """Both, in GB."""
        return f"{_gb(self.least)} to {_gb(self.most)}"

    @property
    def exact(self) -> str:
        """The terms that are there in any case, in GB."""
        return ", ".join(f"{term.name} {_gb(term.size)}" for term in self.terms if term.exact and term.size)

    @property
    def bounds(self) -> str:
        """The other terms, in GB."""
        return ", ".join(f"{term.name} {_gb(term.size)}" for term in self.terms if not term.exact and term.size)


def _gb(size: float) -> str:
    return f"{size / GB:.3g}" if size < 100 * GB else f"{size / GB:,.0f}"


def of_fit(model: Model, holds: Holds, dtype: str, ranks: int = 1) -> Need:
    """What a fit needs in `dtype`, the number format of autocast, of composed weights and of what it samples from, on
    each GPU of several `ranks`."""
    kept = list(_kept(model, holds, dtype, ranks))
    gradients, *passing = _training(model, holds, dtype, ranks)
    if holds.sampled:
        # While completions are drawn, the gradients are gone, and nothing of a backward pass is there.
        drawing = sum(term.size for term in _sampling(model, holds.sampled, holds.tokens, _bytes(dtype)))
        if holds.apart:
            passing.append(Term("vLLM beside its weights", drawing + WORKSPACE, False))
        elif drawing > gradients.size + sum(term.size for term in passing):
            passing = [Term("cache, beyond the gradients' place", drawing - gradients.size, False)]
    if holds.vectors:  # at most half of what is free beside the weights, so the others fit into the other half
        beside = gradients.size + sum(term.size for term in passing)
        vectors = holds.vectors * _bytes(dtype) * model.parameters // ranks
        passing.append(Term("vectors", min(beside, vectors), False))
    return Need((*kept, gradients, *passing))


def of_engine(model: Model, dtype: str, sequences: int, tokens: int, ranks: int = 1) -> Need:
    """What an engine needs that decodes `sequences` together, each of `tokens` behind its prompt, on each GPU of
    several `ranks`. They share weights and cache; the activations and the logits are whole on each."""
    size = _bytes(dtype)
    weights = Term("weights", size * model.parameters // ranks, True)
    cache, *passing = _sampling(model, sequences, tokens, size)
    return Need((weights, cache._replace(size=cache.size // ranks), *passing))


def _bytes(dtype: str) -> int:
    """Bytes of a number. On a GPU, "auto" is bfloat16."""
    return 4 if dtype == "float32" else 2


def _kept(model: Model, holds: Holds, dtype: str, ranks: int) -> Iterator[Term]:
    """What a fit keeps from its first step to its last. Weights are in fp32 (`chains.load` in the methods) unless only
    coefficients are learned. AdamW has two moments of each trained weight, and the copies are those of grpo_trainer.py
    and dpo_trainer.py. Ranks share the weights of the model and of the reference. Each has the whole of an adapter, and
    of the copy that draws."""
    adapter = model.adapter(holds.adapter)
    trained = {"weights": model.parameters // ranks, "adapter": adapter, "coefficients": 0}[holds.trained]
    yield Term("weights", _weight(holds, dtype) * (model.parameters // ranks + adapter), True)
    yield Term("optimiser", 8 * trained, True)
    of_reference = _bytes(dtype) if holds.sampled else 4
    yield Term("reference", of_reference * (model.parameters // ranks) * holds.reference, True)
    yield Term("sampler", _bytes(dtype) * model.parameters * bool(holds.sampled), True)


def _weight(holds: Holds, dtype: str) -> int:
    """Bytes of a weight, and of its gradient."""
    return _bytes(dtype) if holds.trained == "coefficients" else 4


def _training(model: Model, holds: Holds, dtype: str, ranks: int) -> Iterator[Term]:
    """What a backward pass adds."""
    positions = holds.rows * holds.tokens + holds.prompts * PROMPT
    size, weight = _bytes(dtype), _weight(holds, dtype)
    adapter = model.adapter(holds.adapter)
    largest = model.largest // ranks
    gradients = {"weights": model.parameters // ranks, "adapter": adapter, "coefficients": largest}
    # Coefficients of adapters have theirs without any weight's gradient.
    yield Term("gradients", weight * gradients[holds.trained], holds.trained != "coefficients")
    layers = sum(outputs * inputs for _, outputs, inputs in model.matrices)
    # Autocast keeps a copy of each matrix that is trained until the forward pass ends. A frozen one is kept by the
    # layer's own backward pass, which is short where activations are computed again.
    short = holds.recomputes and holds.trained == "adapter"
    casts = 2 * ((layers // model.layers if short else layers) + model.head) if size < weight else 0
    layer, row = positions * _layer(model, size), positions * 4 * model.hidden
    logits = _logits(model, holds, positions, size)
    if holds.recomputes:
        # The row between two layers is kept, in fp32. One layer at a time has its activations and their gradients, and
        # by then the logits are gone.
        activations = row * model.layers + max(0, 2 * layer - logits)
    else:
        repeated = holds.rows * PROMPT * model.cached * size if holds.prompts else 0
        activations = layer * model.layers + repeated
    if model.tied and holds.trained != "adapter":
        # At the end nothing else is left of the pass, but the embedding's gradient is there three times: that of the
        # output layer, that of the input, and their sum.
        activations = max(activations, 2 * weight * model.head - logits - casts)
    yield Term("weights in bf16", casts, False)
    yield Term("activations", row * ENDS + activations, False)
    yield Term("logits", logits, False)
    if ranks > 1:
        # Of two layers at a time, and of what is outside the layers, the weights are whole, and so are the gradients of
        # those that are trained until the ranks have added them.
        whole = 2 * (layers // model.layers) + model.parameters - layers
        yield Term("whole weights", weight * whole * (1 if holds.trained == "adapter" else 2), False)


def _layer(model: Model, size: int) -> int:
    """Bytes that a layer keeps of one position for the backward pass: the inputs and outputs of its matrices, the
    output of its activation function (as wide as its widest matrix), and in attention the keys and values repeated for
    each query, and the result. Under autocast each of two norms also keeps its input and its result in fp32."""
    widths = [(outputs, inputs) for _, outputs, inputs in model.matrices]
    both = sum(map(sum, widths)) // model.layers
    widest = max(outputs for outputs, _ in widths)
    norms = 0 if size == 4 else 16 * model.hidden
    return size * (both + widest + 3 * model.attention) + norms


def _logits(model: Model, holds: Holds, positions: int, size: int) -> int:
    """Logits of the tokens that are trained on: as the output layer gives them, in fp32, their logarithms of
    probabilities, and the gradient; for completions also the logits over the temperature. Where they are computed in
    tiles: one tile, and the output layer's gradient beside that of the weights. (A CPU copies a tile in fp32; a GPU
    does not.)"""
    if holds.tiled:
        rows, columns = TILE
        return size * min(rows, positions) * columns + 4 * model.head
    copies = (size if size < 4 else 0) + 12 + 4 * bool(holds.sampled)
    return holds.rows * holds.tokens * model.vocabulary * copies


def _sampling(model: Model, sequences: int, tokens: int, size: int) -> Iterator[Term]:
    """What drawing from a model adds: keys and values of every token, with the layer that is being extended twice; the
    activations of one pass over prompts, without those that a backward pass would need; and the draw of a token, with
    up to six copies of the probabilities in eight bytes."""
    yield Term("cache", size * sequences * (tokens + PROMPT) * model.cached * (model.layers + 1) // model.layers, False)
    widest = max(max(outputs, inputs) for _, outputs, inputs in model.matrices)
    attending = 6 * size * model.attention + (1 + size) * (tokens + PROMPT)  # with a mask of every earlier token
    reading = max(3 * size * widest, attending) + 12 * model.hidden
    yield Term("activations", min(PREFILL, sequences * PROMPT) * reading, False)
    yield Term("logits", 48 * sequences * model.vocabulary, False)


def fit(sizes: Model | None, method: Plug, dtype: str, ranks: int = 1) -> Need | None:
    """What the fit of a method needs on each GPU of several `ranks`. None where the sizes of the model are not known,
    and for a method that does not say what it holds."""
    module, settings = method.open("methods")
    holds = module.holds(settings, ranks)
    return of_fit(sizes, holds, dtype, ranks) if sizes and holds else None


SMALLER = (("gradient_checkpointing", True), ("micro_batch_size", 1), ("rows_at_once", 1), ("lora", {"rank": 16}))
"""Settings with which a fit needs less memory, the smallest change first."""


def _changes(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Changes of a fit's settings, the smallest first: those of its activations one after the other, then an adapter,
    then an adapter with each of them."""
    smaller = [(key, value) for key, value in SMALLER if key in settings and settings[key] != value]
    smaller = [(key, value) for key, value in smaller if key != "lora" or settings["lora"] is None]
    of_activations = [(key, value) for key, value in smaller if key != "lora"]
    for adapter in ([], [(key, value) for key, value in smaller if key == "lora"]):
        for count in range(len(of_activations) + 1):
            if change := dict([*adapter, *of_activations[:count]]):
                yield change


def _advice(sizes: Model, method: Plug, dtype: str, room: float, ranks: int) -> str:
    """The smallest change with which a fit has room on a GPU with `room` bytes, else the smallest with which it may
    have room, in words."""
    may_fit = None
    for change in _changes(method.settings):
        need = fit(sizes, method.model_copy(update={"settings": {**method.settings, **change}}), dtype, ranks)
        if need and need.least <= room:
            keys = ", ".join(f"{key}: {json.dumps(value)}" for key, value in change.items()).replace('"', "")
            words = f"with `{keys}` it needs {need.range} GB"
            if need.most <= room:
                return f"{words}, which fits"
            may_fit = may_fit or f"{words}, which may fit (at most: {need.bounds})"
    return may_fit or "no change of its settings is enough, so take a smaller model"


def asked(gpus: int, nodes: int = 1) -> str:
    """How a config asks for so many GPUs in all on so many `nodes`."""
    return f"`resources: {{gpu: {gpus // nodes}{f', nodes: {nodes}' if nodes > 1 else ''}}}`"


def check(
    arm: str, method: Plug, sizes: Model | None, dtype: str, gb: float | None, ranks: int = 1, nodes: int = 1
) -> None:
    """Raise ImprintError for a fit that cannot have room on GPUs with `gb` GB of memory each, one for each of its
    `ranks`, which are on so many `nodes`. Where no one says how much there is, and where the need is not known, nothing
    is refused."""
    need = fit(sizes, method, dtype, ranks)
    if sizes and gb and need and need.least > gb * GB:
        where = "a GPU, which has" if ranks == 1 else f"each of {ranks} GPUs, which have"
        change = _more(sizes, method, dtype, gb * GB, ranks, nodes) + _advice(sizes, method, dtype, gb * GB, ranks)
        raise ImprintError(
            f"the fit of arm '{arm}' ({method.name}) needs at least {_gb(need.least)} GB on {where} {gb:g} GB here "
            f"(`gpu_memory_gb`): {need.exact}. {change}. As it is, it fits on a GPU with {_gb(need.most)} GB"
        )


MOST = 64
"""The most GPUs of a node that a message names."""


def _more(sizes: Model, method: Plug, dtype: str, room: float, ranks: int, nodes: int) -> str:
    """The smallest number of GPUs with `room` bytes, on so many `nodes`, on which a fit has room, in words that open a
    sentence."""
    module, settings = method.open("methods")
    shared = module.shared(settings)
    if shared is None:
        return "It runs on one GPU, so more of them are no help; "
    for size in range(ranks + nodes, min(shared.number, MOST * nodes) + 1, nodes):
        need = fit(sizes, method, dtype, size) if shared.number % size == 0 else None
        if need and need.most <= room:
            return f"With {asked(size, nodes)} it needs {need.range} GB on each, which fits; "
    return "More GPUs are no help, as many as can share an update; "
