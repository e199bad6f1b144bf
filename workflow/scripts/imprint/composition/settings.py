"""The settings that methods share which compose task vectors. Defaults are the published ones of aTLAS (arXiv
2407.02880 and its code)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from imprint.runtime import plugins
from imprint.runtime.gpu_memory import Holds
from imprint.runtime.plugins import Inputs, Plug, Strict
from imprint.training.sharing import Shared


class VectorRef(Strict):
    """A task vector, written ARM or {of: ARM, against: ARM}: the weights of one arm minus those of another."""

    of: str = Field(description="the arm whose weights are taken")
    against: str | None = Field(None, description="the arm whose weights are subtracted; null: the root model's")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: Any) -> Any:
        return {"of": raw} if isinstance(raw, str) else raw

    @property
    def name(self) -> str:
        """The vector's name in tables and charts."""
        return self.of if self.against is None else f"{self.of} - {self.against}"


class Rows(Strict):
    """A dataset whose rows a fit reads, and the contexts under which they are put to the model."""

    dataset: str = Field(description="name of a dataset")
    contexts: list[Plug] | None = Field(None, description="null: those of the fit")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: Any) -> Any:
        if isinstance(raw, str):
            return {"dataset": raw}
        if not isinstance(raw, dict) or set(raw) == {"dataset", "contexts"}:  # a job's params hold this form
            return raw
        if len(raw) != 1:
            raise ValueError(
                f"found {raw!r:.80}; write a dataset, or one dataset with its context: {{DATASET: CONTEXT}}"
            )
        ((dataset, contexts),) = raw.items()
        listed = contexts if isinstance(contexts, list) else [contexts]
        return {"dataset": dataset, "contexts": [_context(written) for written in listed]}


def _context(written: Any) -> dict[str, Any]:
    """A context as the config writes it, in the form of a job's params."""
    name, settings = plugins.written("contexts", written)
    return {"name": name, "settings": settings.model_dump(mode="json")}


def _listed(value: Any) -> Any:
    """`DATASET`, `[DATASET, ...]` and `{DATASET: CONTEXT, ...}` as a list with an entry for each dataset."""
    if isinstance(value, dict):
        return [{dataset: contexts} for dataset, contexts in value.items()]
    return value if isinstance(value, list) else [value]


Data = Annotated[list[Rows], BeforeValidator(_listed), Field(min_length=1)]
"""One dataset or several, each under its own contexts where they are written: `{dialogues: self_role}`."""


class Vectors(Strict):
    """The task vectors that are composed."""

    vectors: list[VectorRef] = Field(
        min_length=1,
        description="task vectors over one root model: a fitted arm (its weights minus the root's), or "
        "`{of: ARM, against: ARM}` (minus another arm's)",
    )

    @model_validator(mode="after")
    def _distinct(self) -> Vectors:
        names = [vector.name for vector in self.vectors]
        if len(set(names)) != len(names):
            raise ValueError(f"found vectors {names}; each may stand once")
        return self


CPU_ROWS = 8
GPU_TOKENS = 8192
"""Tokens of a pass on a GPU, where each pass also costs its calls and its reads of the vectors."""


class Passes(Strict):
    """How rows pass through a model."""

    rows_at_once: int | None = Field(
        None,
        ge=1,
        description="rows in one pass, where each option of a question is one; the sums over rows are the same. null: "
        "8 on a CPU, and on a GPU as many as have 8,192 tokens at `max_length` (ours)",
    )
    max_length: int = Field(192, ge=8, description="tokens a row; longer rows are cut at the end and counted (ours)")

    def rows_of_a_pass(self, device: str) -> int:
        """How many rows go through the model together on a torch device."""
        if self.rows_at_once is not None:
            return self.rows_at_once
        return CPU_ROWS if device == "cpu" else max(1, GPU_TOKENS // self.max_length)


class Learned(Vectors, Passes):
    """The settings of every method that learns coefficients."""

    granularity: Literal["tensor", "layer", "kind", "vector"] = Field(
        "tensor",
        description="what shares a coefficient: a parameter tensor (the paper's anisotropic scaling), a layer, a kind "
        "of module over all layers, or a whole vector (isotropic)",
    )
    partitions: int = Field(
        1,
        ge=1,
        le=65536,
        description="coefficients per block, for K random parts of its elements (the paper's aTLAS x K)",
    )
    budget: int | None = Field(None, ge=1, description="number of vectors that are used; null uses all")
    select: Literal["random", "gradient", "gradient_block"] = Field(
        "gradient_block",
        description="how a budget's vectors are chosen: at random, by the L1 norm of the vector's gradient, or in each "
        "block by the L1 norm of its part (the paper's best, D.6); gradients are taken at coefficient 0 on the first "
        "batch",
    )
    steps: int = Field(
        110,
        ge=1,
        description="updates. The published code repeats a small set until an epoch has eleven batches, and takes ten "
        "epochs. A coefficient moves by at most the learning rate a step, so too few steps look like a method that "
        "does not work",
    )
    learning_rate: float = Field(0.1, gt=0, description="peak learning rate of AdamW (few-shot: paper D.3)")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="over the steps, no warm-up (paper D.3)")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's, towards coefficient 0 (published code)")
    max_grad_norm: float | None = Field(
        1.0,
        gt=0,
        description="norm to which the coefficients' gradient is clipped; null: no clipping. The published code clips "
        "a gradient that is still scaled up, which makes every gradient as long as the limit; ours clips the gradient "
        "itself",
    )
    batch_size: int = Field(128, ge=1, description="rows a step, of each dataset (paper D.3)")
    check_steps: int = Field(
        10, ge=1, description="steps between checks of what the method chooses its coefficients by, where it checks"
    )
    checkpoint_steps: int = Field(
        10, ge=1, description="steps between checkpoints; a killed fit goes on from the last (ours)"
    )

    @model_validator(mode="after")
    def _budget_selects(self) -> Learned:
        if self.budget is not None and self.budget > len(self.vectors):
            raise ValueError(
                f"found budget {self.budget} for {len(self.vectors)} vectors; write a smaller one, or null"
            )
        return self


def reads(settings: Vectors, *data: Sequence[Rows]) -> Inputs:
    """The inputs of a method: the arms whose task vectors are composed, the datasets, and what their contexts read."""
    names = [name for vector in settings.vectors for name in (vector.of, vector.against) if name]
    rows = [each for part in data for each in part]
    total = Inputs(datasets=tuple(dict.fromkeys(each.dataset for each in rows)), arms=tuple(dict.fromkeys(names)))
    for plug in (plug for each in rows for plug in each.contexts or []):
        module, context = plug.open("contexts")
        total = total + module.inputs(context) + Inputs(plugins=(("contexts", plug.name),))
    return total


def holds(settings: Learned, ranks: int) -> Holds:
    """What learning coefficients by rows of a dataset keeps on a GPU: the weights are merged anew each step, the
    gradients of one tensor at a time suffice (`composing.Composition`), and start and vectors are kept as far as there
    is room (`stacks`)."""
    return Holds(
        trained="coefficients",
        rows=min(settings.rows_of_a_pass("cuda"), settings.batch_size // ranks),
        tokens=settings.max_length,
        vectors=len(settings.vectors) + 1,
    )


def shared(settings: Learned) -> Shared:
    """The rows of a step."""
    return Shared(settings.batch_size, "rows", "batch_size")
