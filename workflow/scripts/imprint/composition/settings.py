"""The settings that methods share which compose task vectors. Defaults are the published ones of aTLAS (arXiv
2407.02880 and its code)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from imprint.runtime.plugins import Inputs, Strict


class Vectors(Strict):
    """The arms whose task vectors are composed."""

    vectors: list[str] = Field(
        min_length=1, description="fitted arms of one root model; a task vector is an arm's weights minus the root's"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Vectors:
        if len(set(self.vectors)) != len(self.vectors):
            raise ValueError(f"found vectors {self.vectors}; each may stand once")
        return self


class Learned(Vectors):
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
    learning_rate: float = Field(0.1, gt=0, description="peak learning rate of AdamW (few-shot: paper D.3)")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="over the steps, no warm-up (paper D.3)")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's, towards coefficient 0 (published code)")
    max_grad_norm: float | None = Field(
        1.0, gt=0, description="norm to which the coefficients' gradient is clipped (published code); null: no clipping"
    )
    batch_size: int = Field(128, ge=1, description="rows a step, of each dataset (paper D.3)")
    rows_at_once: int = Field(
        8, ge=1, description="rows in one pass; gradients of the coefficients add up exactly (ours, small for a CPU)"
    )
    max_length: int = Field(192, ge=8, description="tokens a row; longer rows are cut at the end and counted (ours)")
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


class Passes(Learned):
    """The settings of methods that pass over their rows a number of times."""

    epochs: float = Field(10.0, gt=0, description="passes over the rows (paper D.3)")


def reads(settings: Vectors, *datasets: str) -> Inputs:
    """The inputs of a method: the datasets, and the arms whose task vectors are composed."""
    return Inputs(datasets=tuple(dict.fromkeys(datasets)), arms=tuple(settings.vectors))


def listed(data: str | list[str]) -> list[str]:
    """One dataset or several, as a list."""
    return [data] if isinstance(data, str) else data
