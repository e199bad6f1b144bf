"""What merges need that weigh weights by data: the model of each vector in turn, and rows to put through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, model_validator

from imprint.composition import learning
from imprint.composition.settings import Rows, Vectors, reads
from imprint.methods import Fit
from imprint.runtime.plugins import Inputs

if TYPE_CHECKING:
    import torch

    from imprint.composition.vectors import Pool


class Measured(Vectors):
    """The settings of a merge that measures each vector's model on rows of its own."""

    data: list[Rows] = Field(
        min_length=1,
        description="for each vector, in order, a dataset of the kind that its arm was fitted to, or "
        "`{DATASET: CONTEXT}`; the fewer rows it has, the quicker the merge",
    )
    max_length: int = Field(192, ge=8, description="tokens a row; longer rows are cut at the end (ours)")

    @model_validator(mode="after")
    def _one_each(self) -> Measured:
        if len(self.data) != len(self.vectors):
            raise ValueError(f"found {len(self.data)} datasets for {len(self.vectors)} vectors; write one for each")
        return self


def inputs(settings: Measured) -> Inputs:
    """The arms behind the vectors, and the rows that their models read."""
    return reads(settings, settings.data)


class Row(NamedTuple):
    """A row as the model reads it: token ids [1, length], and the places whose next token has a loss."""

    input_ids: torch.Tensor
    predicting: list[int]


def models(job: Fit, pool: Pool) -> Iterator[tuple[Any, list[Row]]]:
    """For each vector, the start + the vector as a model, in fp32, and its rows. All share one model in memory."""
    import torch

    from imprint.composition.objectives import encoded
    from imprint.training.assistant_tokens import IGNORED

    model, tokenizer = learning.load(job, "float32")
    for vector, data in zip(pool.vectors, job.settings.data, strict=True):
        with torch.no_grad():
            for block, parameter in model.named_parameters():
                shape = pool.blocks.shapes[block]
                parameter.copy_(pool.start.read(block).float().view(shape) + vector.delta(block))
        rows = []
        for row in encoded(job, tokenizer, data):
            places = [place - 1 for place, label in enumerate(row.labels) if label != IGNORED and place > 0]
            rows.append(Row(torch.tensor([row.input_ids], device=job.device), places))
        yield model, rows
