"""Fisher-weighted averaging (Matena and Raffel, arXiv 2111.09832): every weight is a mean over the vectors' models,
weighted by how much the model's predictions depend on it. The weights of the mean are the diagonal of the Fisher
information: the expected square of the gradient of a row's log-likelihood, over tokens that the model itself draws.

One draw is made for each predicted token, behind the row's own tokens. Where no prediction depends on a weight, the
mean is the plain one.

fit: {method: fisher, vectors: [self_prompt, ppe_plan], data: [dialogues: self_role, outlines: {prior_prompt: plan}]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imprint.composition import measuring
from imprint.composition.measuring import inputs
from imprint.methods import Fit

__all__ = ["Settings", "fit", "inputs"]

if TYPE_CHECKING:
    import torch

FLOOR = 1e-20
"""Added to every weight of a mean, so that none is zero."""


class Settings(measuring.Measured):
    pass


def fit(job: Fit) -> dict[str, Any]:
    """Measure each model, and write the mean."""
    import torch

    from imprint.composition import writing
    from imprint.composition.vectors import Pool, generator

    torch.set_num_threads(job.threads)
    pool = Pool.of(job.manifests, job.settings.vectors, job.inputs.arms)
    total: dict[str, torch.Tensor] = {}
    weight: dict[str, torch.Tensor] = {}
    tokens = 0
    for vector, (model, rows) in zip(pool.vectors, measuring.models(job, pool), strict=True):
        information = fisher(model, rows, generator("fisher", job.seed, vector.name))
        for block, parameter in model.named_parameters():
            share = information[block].add_(FLOOR)
            product = share * parameter.detach()
            total[block] = total[block].add_(product) if block in total else product
            weight[block] = weight[block].add_(share) if block in weight else share
        tokens += sum(row.input_ids.numel() for row in rows)
    writing.write(job.out, pool, lambda block: (total[block] / weight[block]).cpu())
    return {"tokens": tokens, "vectors": len(pool.vectors)}


def fisher(model: Any, rows: list[measuring.Row], draw: torch.Generator) -> dict[str, torch.Tensor]:
    """Block -> the mean over rows of the squared gradient of the log-likelihood of drawn tokens, fp32 in the block's
    shape."""
    import torch

    squares = {block: torch.zeros_like(parameter) for block, parameter in model.named_parameters()}
    for row in rows:
        model.zero_grad(set_to_none=True)
        logits = model(input_ids=row.input_ids, use_cache=False).logits[0, row.predicting].float()
        drawn = torch.multinomial(logits.detach().softmax(1).cpu(), 1, generator=draw)[:, 0].to(logits.device)
        loss: Any = torch.nn.functional.cross_entropy(logits, drawn, reduction="sum")
        loss.backward()
        for block, parameter in model.named_parameters():
            if parameter.grad is not None:
                squares[block].addcmul_(parameter.grad, parameter.grad, value=1 / len(rows))
    model.zero_grad(set_to_none=True)
    return squares
