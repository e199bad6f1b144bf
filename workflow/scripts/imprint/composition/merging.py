"""Merging task vectors by a rule on their elements: the frame that such methods share, and the choice of a scale by the
loss on rows. Blocks are multiplied out, merged and written one at a time. The methods' settings use this module, so
torch is imported inside functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from imprint.composition import learning
from imprint.composition.settings import Data, Passes, Vectors, reads
from imprint.methods import Fit
from imprint.runtime.plugins import Inputs
from imprint.training.curves import Curves

if TYPE_CHECKING:
    import torch

    from imprint.composition.vectors import Pool, Vector

Rule = Callable[[str, "list[torch.Tensor]"], "torch.Tensor"]
"""Block's name, and its task vectors (fp32, the block's shape) -> the merged vector in the block (fp32, its shape)."""


class Scaled(Vectors, Passes):
    """The settings of a merge whose vector is multiplied with one number."""

    scale: float | list[float] = Field(
        1.0,
        description="what the merged vector is multiplied with before it is added to the start; of several numbers, "
        "the first with the lowest loss on `data` is taken",
    )
    data: Data | None = Field(
        None,
        description="dataset of dialogues with assistant turns that chooses the scale, or several (their losses are "
        "summed), or each with its contexts: `{DATASET: CONTEXT}`",
    )

    @model_validator(mode="after")
    def _one_or_data(self) -> Scaled:
        if isinstance(self.scale, list) and (self.data is None or not self.scale):
            raise ValueError("several scales need rows to choose by; write `data: DATASET`, or one `scale: 1.0`")
        if not isinstance(self.scale, list) and self.data is not None:
            raise ValueError("one scale leaves nothing to choose; leave `data` out, or write several scales")
        return self


def inputs(settings: Scaled) -> Inputs:
    """The arms behind the vectors, and the rows that choose the scale."""
    return reads(settings, settings.data or [])


def draws(settings: Scaled) -> bool:
    """Merging draws nothing."""
    return False


def fit(job: Fit, rule: Callable[[Pool], Rule]) -> dict[str, Any]:
    """Write start + scale x merged vector, and the curve of the losses that chose the scale. `rule` makes the rule from
    the pool, so that a rule may depend on all blocks of a vector. Returns the metrics; `norm` is the Euclidean norm of
    the merged vector. To choose, merged blocks are kept in memory, so that each is merged once."""
    import torch

    from imprint.composition import writing
    from imprint.composition.vectors import Pool

    torch.set_num_threads(job.threads)
    pool = Pool.of(job.manifests, job.settings.vectors, job.inputs.arms)
    merge, kept = rule(pool), dict[str, torch.Tensor]()

    def merged(block: str) -> torch.Tensor:
        return merge(block, [vector.delta(block) for vector in pool.vectors])

    def composed(block: str, change: torch.Tensor, scale: float) -> torch.Tensor:
        start = pool.start.read(block).to(torch.float32, copy=True).view(pool.blocks.shapes[block])
        return start.add_(change, alpha=scale)

    def put(scale: float, model: Any) -> None:
        for block, parameter in model.named_parameters():
            if block not in kept:
                kept[block] = merged(block)
            parameter.copy_(composed(block, kept[block], scale))

    scale, chosen = choose(job, put)
    squared_norm = 0.0

    def compose(block: str) -> torch.Tensor:
        nonlocal squared_norm
        change = kept.pop(block) if block in kept else merged(block)
        squared_norm += float(change.double().square().sum())
        return composed(block, change, scale)

    writing.write(job.out, pool, compose)
    return {"tokens": 0, "vectors": len(pool.vectors), "norm": round(squared_norm**0.5, 6), **chosen}


def choose(job: Fit, put: Callable[[float, Any], None]) -> tuple[float, dict[str, Any]]:
    """The scale that a fit takes, and what the manifest says of the choice. `put` writes the weights at a scale into a
    model. Writes the curve of the losses, in nats, under `job.out`; its steps are the scales in their order. Raises
    ImprintError if a loss is no finite number."""
    import torch

    s = job.settings
    if not isinstance(s.scale, list):
        Curves(job).write()
        return s.scale, {"scale": s.scale}
    from imprint.composition.objectives import total_loss

    model, tokenizer = learning.load(job)
    loss = total_loss(job, model, tokenizer, s.data)
    curves = Curves(job)
    losses: dict[float, float] = {}
    for step, scale in enumerate(s.scale, 1):
        with torch.no_grad():
            put(scale, model)
        losses[scale] = loss()
        values = {"loss": losses[scale], "scale": scale}
        learning.require_finite(job, values, step, len(s.scale), "write smaller scales")
        curves.add(step, values)
    curves.write()
    best = min(losses, key=losses.__getitem__)
    return best, {"scale": best, "loss": losses[best]}


def threshold(pool: Pool, vector: Vector, keep: float) -> float:
    """The magnitude of the k-th largest element of a vector, where k is the share `keep` of all its elements (at least
    1).

    It is exact, and needs two passes without sorting: positive fp32 numbers have the order of their bits, read as
    integers. The first pass finds the upper 16 bits of the magnitude from a histogram. The second pass finds the lower
    16 bits among the elements with these upper bits."""
    import torch

    count = sum(torch.Size(shape).numel() for shape in pool.blocks.shapes.values())
    rank = max(1, round(keep * count))  # counted from the largest element of the histogram
    high = 0
    for shift, width in ((16, 1 << 15), (0, 1 << 16)):
        histogram = torch.zeros(width, dtype=torch.int64)
        for block in pool.blocks.shapes:
            bits = vector.delta(block).abs().view(torch.int32).view(-1)
            if shift == 0:
                bits = bits[(bits >> 16) == high]
            histogram += torch.bincount((bits >> shift) & (width - 1), minlength=width)
        at_least = histogram.flip(0).cumsum(0)  # how many elements each bin and those above it hold, from the top
        bins_above = int(torch.searchsorted(at_least, rank))
        rank -= int(at_least[bins_above - 1]) if bins_above else 0
        bits_found = width - 1 - bins_above
        high = bits_found if shift else (high << 16) | bits_found
    return float(torch.tensor(high, dtype=torch.int32).view(torch.float32))
