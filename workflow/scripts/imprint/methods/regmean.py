"""Regression mean (RegMean, Jin et al., arXiv 2212.09849): the weights of each linear layer are those whose outputs are
closest, in squares, to the outputs of all vectors' models on these models' own rows. With the inputs X_i [tokens, in]
of model i, G_i = X_i' X_i, and the weights W_i [in, out], the solution is (sum G_i)^-1 sum G_i W_i. All other weights
are the plain mean.

The products of different inputs are multiplied with `off_diagonal` before, as in the paper.

fit: {method: regmean, vectors: [self_prompt, ppe_plan], data: [dialogues: self_role, outlines: {prior_prompt: plan}]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from imprint.composition import measuring
from imprint.composition.measuring import inputs
from imprint.methods import Fit

__all__ = ["Settings", "fit", "inputs"]

if TYPE_CHECKING:
    import torch

RIDGE = 1e-6
"""Added to each G's diagonal, in shares of its mean, so that an input that is always zero gets the plain mean."""


class Settings(measuring.Measured):
    off_diagonal: float = Field(
        0.9, ge=0, le=1, description="factor of the products of different inputs (the paper takes 0.1 to 0.9)"
    )


def fit(job: Fit) -> dict[str, Any]:
    """Measure each model, and write the merged weights. The matrices of all linear layers are in memory, [in, in] and
    [in, out] in fp32."""
    import torch

    from imprint.composition import writing
    from imprint.composition.vectors import Pool

    torch.set_num_threads(job.threads)
    pool = Pool.of(job.manifests, job.settings.vectors, job.inputs.arms)
    grams: dict[str, torch.Tensor] = {}
    products: dict[str, torch.Tensor] = {}
    tokens = 0
    for model, rows in measuring.models(job, pool):
        for block, gram in inputs_of(model, rows).items():
            scaled = gram * job.settings.off_diagonal
            scaled.diagonal().copy_(gram.diagonal() + RIDGE * gram.diagonal().mean())
            weights = model.get_parameter(block).detach()
            product = scaled @ weights.T
            grams[block] = grams[block].add_(scaled) if block in grams else scaled
            products[block] = products[block].add_(product) if block in products else product
        tokens += sum(row.input_ids.numel() for row in rows)

    def compose(block: str) -> torch.Tensor:
        if block in grams:
            solution: torch.Tensor = torch.linalg.solve(grams[block].double(), products[block].double())
            return solution.T.float().contiguous().cpu()
        start = pool.start.read(block).float().view(pool.blocks.shapes[block])
        return start + torch.stack([vector.delta(block) for vector in pool.vectors]).mean(0)

    writing.write(job.out, pool, compose)
    return {"tokens": tokens, "vectors": len(pool.vectors), "layers": len(grams)}


def inputs_of(model: Any, rows: list[measuring.Row]) -> dict[str, torch.Tensor]:
    """Block of each linear layer -> X' X of its inputs over all tokens of the rows, [in, in] fp32. The output layer is
    left out where it is tied to the embedding."""
    import torch

    tied = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    grams: dict[str, torch.Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and id(module.weight) not in tied:
            block = f"{name}.weight"
            grams[block] = torch.zeros(module.in_features, module.in_features, device=module.weight.device)

            def take(_: Any, given: Any, block: str = block) -> None:
                flat = given[0].reshape(-1, given[0].shape[-1])
                grams[block].addmm_(flat.T, flat)

            handles.append(module.register_forward_pre_hook(take))
    with torch.no_grad():
        for row in rows:
            model(input_ids=row.input_ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return grams
