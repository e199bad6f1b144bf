"""A direction in the activations: the difference of their means between two sets of prompts, at every layer (Turner et
al., arXiv 2308.10248, and Rimsky et al., arXiv 2312.06681, steer by such differences; here they are of prompts alone).

    fit: {method: direction, toward: {dialogues: {prior_prompt: plan}}, away: {dialogues: plain}, layer: 15}

The two sets are the same rows under two contexts, or two datasets. The hook `direction` uses what is found. Where the
config names no layer, the layer is the one at which the direction best makes the model say what the rows of `choose`
say: at which their answers are likeliest under the contexts of `choose`, while the direction is added at all positions
with the strength `choose_strength`. Those rows must be neither an eval's nor those that the means are taken of.

Controls are fits like any other: `instead: random` gives every layer a random direction, and `instead: permuted` the
difference of two sets into which the prompts of both were dealt at random, as long as the true one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from imprint.composition.settings import Data, Passes, Rows
from imprint.draws import order, seed_of
from imprint.methods import Fit
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs

if TYPE_CHECKING:
    import torch

    from imprint.engines.transformers import Engine


class Settings(Passes):
    toward: Rows = Field(description="the prompts to which the direction leads: `{DATASET: CONTEXT}`")
    away: Rows = Field(description="the prompts from which it leads away: `{DATASET: CONTEXT}`")
    rows: int | None = Field(
        None, ge=2, description="so many rows of each set, drawn by the seed; null takes all, so all seeds are alike"
    )
    positions: Literal["last_prompt", "prompt"] = Field(
        "last_prompt", description="whose activations are taken: the prompt's last token's, or the mean over its tokens"
    )
    layer: int | None = Field(None, ge=0, description="the layer, counted from 0; null chooses it by `choose`")
    choose: Data | None = Field(
        None, description="rows with answers that choose the layer: `{DATASET: CONTEXT}`; the losses of several add up"
    )
    choose_strength: float = Field(
        0.5, gt=0, description="strength of the direction while the layer is chosen, in mean norms (ours)"
    )
    instead: Literal["random", "permuted"] | None = Field(
        None, description="a control: a random direction, or that of permuted labels, each as long as the true one"
    )
    batch_size: int = Field(32, ge=1, description="prompts that are read together")

    @model_validator(mode="after")
    def _has_one_layer(self) -> Settings:
        if (self.layer is None) == (self.choose is None):
            raise ValueError("write exactly one of `layer: NUMBER` and `choose: {DATASET: CONTEXT}`")
        return self


def inputs(settings: Settings) -> Inputs:
    """The datasets of the prompts, and those by which the layer is chosen."""
    every = [settings.toward, settings.away, *(settings.choose or [])]
    return Inputs(datasets=tuple(dict.fromkeys(rows.dataset for rows in every)))


def makes(settings: Settings) -> str:
    return "hooks"


def draws(settings: Settings) -> bool:
    """Whether the seed draws rows or a control. If it draws nothing, all seeds have one direction."""
    return settings.rows is not None or settings.instead is not None


def fit(job: Fit) -> dict[str, Any]:
    """Write `differences` [layers, hidden size], the mean norms of the activations of `away`, `norms` [layers], and
    `layer` []. Returns the metrics for the manifest; lengths are in mean norms. A killed fit begins again: it reads
    each prompt once. Raises ImprintError for a layer that the model lacks."""
    import torch

    from imprint.artifacts import hooks
    from imprint.engines.transformers import Engine
    from imprint.models import chains, layers
    from imprint.training import fits
    from imprint.training.curves import Curves

    fits.begin(job)
    s = job.settings
    model, tokenizer = chains.load(job.manifests, job.dtype, job.device)
    if s.layer is not None:
        layers.layer(model, s.layer, f"arm '{job.arm}'")
    engine = Engine(model, tokenizer, s.batch_size)
    toward, away = (_recorded(job, engine, rows) for rows in (s.toward, s.away))
    found = {"differences": _differences(job, toward, away), "norms": torch.linalg.vector_norm(away, dim=2).mean(0)}
    losses = {} if s.choose is None else _losses(job, model, tokenizer, found)
    layer = min(losses, key=lambda number: losses[number]) if s.layer is None else s.layer
    hooks.write(job.out, {**found, "layer": torch.tensor(float(layer))})
    curves = Curves(job)
    for number, loss in losses.items():
        curves.add(number, {"loss_by_layer": loss})
    curves.write()
    lengths = torch.linalg.vector_norm(found["differences"], dim=1) / found["norms"]
    return {"toward": len(toward), "away": len(away), "layer": layer, "length": float(lengths[layer])}


def _recorded(job: Fit, engine: Engine, rows: Rows) -> torch.Tensor:
    """The activations of the prompts of one set, [prompts, layers, hidden size]."""
    from imprint.methods._prompts import ask
    from imprint.policies.recording import record

    known = job.inputs.datasets[rows.dataset]
    if not known:
        raise ImprintError(f"arm '{job.arm}': dataset '{rows.dataset}' has no rows; write a dataset of prompts")
    drawn = order(len(known), 1.0, job.seed)[: job.settings.rows]
    under = job if rows.contexts is None else replace(job, contexts=rows.contexts)
    requests = [ask(under, known[index]) for index in sorted(drawn)]
    texts = [engine.render(request.messages, request.prefill) for request in requests]
    return record(engine, texts, job.settings.positions, "residual")


def _differences(job: Fit, toward: torch.Tensor, away: torch.Tensor) -> torch.Tensor:
    """The differences of means, [layers, hidden size], or those of a control, which are as long."""
    import torch

    true: torch.Tensor = toward.mean(0) - away.mean(0)
    if job.settings.instead is None:
        return true
    generator = torch.Generator().manual_seed(seed_of(job.settings.instead, job.seed))
    if job.settings.instead == "random":
        other = torch.randn(true.shape, generator=generator)
    else:
        every = torch.cat([toward, away])[torch.randperm(len(toward) + len(away), generator=generator)]
        other = every[: len(toward)].mean(0) - every[len(toward) :].mean(0)
    lengths: torch.Tensor = torch.linalg.vector_norm(true, dim=1, keepdim=True)
    return torch.nn.functional.normalize(other, dim=1) * lengths


def _losses(job: Fit, model: Any, tokenizer: Any, found: dict[str, torch.Tensor]) -> dict[int, float]:
    """Layer -> the loss of the rows of `choose` while the direction is added there, in nats a token."""
    import torch

    from imprint.composition.objectives import total_loss
    from imprint.engines import Pass
    from imprint.hooks import direction

    loss = total_loss(job, model, tokenizer, job.settings.choose)
    everywhere = Pass()
    everywhere.begin(torch.ones(1, 1, dtype=torch.bool, device=model.device), written=False, ends=False)
    losses = {}
    for number in range(len(found["differences"])):
        added = {"of": job.arm, "strength": job.settings.choose_strength, "layer": number}
        settings = direction.Settings.model_validate(added)
        handle = direction.steer(model, found, settings, everywhere)
        losses[number] = loss()
        handle.remove()
    return losses
