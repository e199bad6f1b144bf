"""Learning the coefficients of task vectors: the settings that all such methods share, and the loop.

A method gives an objective; the loop clips, steps, merges anew, writes checkpoints and curves, and at the end writes
the merged weights and the table of coefficients. Defaults are the published ones of aTLAS (arXiv 2407.02880 and its
code).
"""

from __future__ import annotations

import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from imprint import checkpoints, model_files, models, tables
from imprint.errors import ImprintError
from imprint.methods import Fit, Inputs
from imprint.plugins import Strict

if TYPE_CHECKING:
    from imprint.composition import Composition

STATE = "state.pt"


class Vectors(Strict):
    """The arms whose task vectors are composed."""

    vectors: list[str] = Field(
        min_length=1, description="fitted arms; what each changed, against their common root model, is its task vector"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Vectors:
        if len(set(self.vectors)) != len(self.vectors):
            raise ValueError(f"found vectors {self.vectors}; each may stand once")
        return self


class Learned(Vectors):
    """What every learner of coefficients takes."""

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
    budget: int | None = Field(None, ge=1, description="use so many of the vectors only; null uses all")
    select: Literal["random", "gradient", "gradient_block"] = Field(
        "gradient_block",
        description="how a budget's vectors are chosen, at coefficient 0 on the first batch: at random, by the L1 norm "
        "of the vector's gradient, or in each block by its size (the paper's best, D.6)",
    )
    learning_rate: float = Field(0.1, gt=0, description="peak learning rate of AdamW (few-shot: paper D.3)")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="over the steps, no warm-up (paper D.3)")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's, towards coefficient 0 (published code)")
    max_grad_norm: float | None = Field(
        1.0, gt=0, description="the coefficients' gradient is clipped to it (published code); null: never"
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
    """Learners that go over their rows a number of times."""

    epochs: float = Field(10.0, gt=0, description="passes over the rows (paper D.3)")


class Objective(NamedTuple):
    """What is minimised. `losses(step)` yields named parts of the step's loss, each a scalar with a graph that is used
    up before the next is asked for; they add up. `holds()` is asked after each epoch, at the merged weights: once it
    says no, learning stops at the coefficients of the epoch before. `tokens` of a step are for the curves."""

    steps: int
    steps_an_epoch: int
    losses: Callable[[int], Iterator[tuple[str, Any]]]
    tokens: Callable[[int], int]
    holds: Callable[[], bool] | None = None
    metrics: dict[str, Any] = {}  # noqa: RUF012


def inputs(settings: Vectors, *datasets: str) -> Inputs:
    """The datasets, and the arms behind the vectors."""
    return Inputs(datasets=tuple(dict.fromkeys(datasets)), arms=tuple(settings.vectors))


def listed(data: str | list[str]) -> list[str]:
    """One dataset or several, as a list."""
    return [data] if isinstance(data, str) else data


def autocast(job: Fit) -> Any:
    """bfloat16 autocast over fp32 weights, unless the dtype is float32."""
    import torch

    if job.dtype not in ("bfloat16", "float32"):
        raise ImprintError(f"arm '{job.arm}': dtype {job.dtype!r} does not train; write bfloat16 or float32")
    return torch.autocast(job.device.split(":")[0], torch.bfloat16, enabled=job.dtype == "bfloat16")


def load(job: Fit) -> tuple[Any, Any]:
    """The model at the start, fp32, and its tokenizer."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(job.threads)
    if job.device != "cpu":
        # A rerun gives the same bits; only the sums over random partitions have no such kernel.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return models.load(job.manifests, "float32", job.device)


def choose(job: Fit, made: Composition, objective: Objective) -> None:
    """Keep `budget` vectors of each block, or of all (`select`)."""
    import torch

    s = job.settings
    if s.budget is None:
        return
    n, groups, _ = made.values.shape
    made.chosen = torch.zeros(n, groups, dtype=torch.bool)
    if s.select == "random":
        made.chosen[random.Random(f"budget/{job.seed}").sample(range(n), s.budget)] = True
        return
    made.chosen[:] = True
    backward(job, objective, 0)
    assert made.values.grad is not None
    size = made.values.grad.abs().sum(2)
    made.values.grad = None
    made.chosen[:] = False
    if s.select == "gradient":
        made.chosen[size.sum(1).topk(s.budget).indices] = True
    else:
        made.chosen.scatter_(0, size.topk(s.budget, dim=0).indices, True)


def backward(job: Fit, objective: Objective, step: int) -> dict[str, float]:
    """Run a step's losses backwards; returns their values, "loss" being the sum."""
    found: dict[str, float] = {"loss": 0.0}
    losses = objective.losses(step)
    while True:
        with autocast(job):
            part = next(losses, None)
        if part is None:
            return found
        name, value = part
        if value.requires_grad:
            value.backward()
        found[name] = found.get(name, 0.0) + float(value.detach())
        found["loss"] += float(value.detach()) if name != "loss" else 0.0


def learn(
    job: Fit,
    made: Composition,
    objective: Objective,
    betas: tuple[float, float] = (0.9, 0.999),
    clamp: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Learn the coefficients of `made`, going on from the last whole checkpoint in `job.folder`, and write weights,
    coefficients and curves under `job.out`. Returns what a method's `fit` does."""
    import torch
    from tqdm import tqdm

    s = job.settings
    optimiser = torch.optim.AdamW([made.values], lr=s.learning_rate, betas=betas, weight_decay=s.weight_decay)
    curves: list[dict[str, Any]] = []
    held, step, stopped = made.values.detach().clone(), 0, False
    if (last := checkpoints.last(job.folder)) is not None:
        state = torch.load(last / STATE, weights_only=True)
        with torch.no_grad():
            made.values.copy_(state["values"])
        optimiser.load_state_dict(state["optimiser"])
        made.chosen, held, curves, step = state["chosen"], state["held"], state["curves"], state["step"]
        made.merge()
    else:
        made.merge()
        choose(job, made, objective)
    with tqdm(total=objective.steps, initial=step, desc=f"{job.arm} seed {job.seed}", unit="step") as bar:
        while step < objective.steps and not stopped:
            rate = s.learning_rate
            if s.schedule == "cosine":
                rate *= 0.5 * (1 + math.cos(math.pi * step / objective.steps))
            optimiser.param_groups[0]["lr"] = rate
            values = backward(job, objective, step)
            step += 1
            if made.values.grad is not None:  # no gradient: no row of this step has anything to learn from
                norm = torch.nn.utils.clip_grad_norm_([made.values], s.max_grad_norm or math.inf)
                values["grad_norm"] = float(norm)
                check(job, values, step, objective.steps)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            with torch.no_grad():
                made.values *= made.chosen.unsqueeze(2)
                if clamp is not None:
                    made.values.clamp_(*clamp)
            made.merge()
            values |= {"learning_rate": rate, "tokens": float(objective.tokens(step - 1))}
            curves += [
                {"arm": job.arm, "seed": job.seed, "step": step, "quantity": name, "value": value}
                for name, value in values.items()
            ]
            if objective.holds is not None and (step % objective.steps_an_epoch == 0 or step == objective.steps):
                with autocast(job), torch.no_grad():
                    stopped = not objective.holds()
                if stopped:
                    with torch.no_grad():
                        made.values.copy_(held)
                held = made.values.detach().clone()
            bar.update(1)
            bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)
            if step % s.checkpoint_steps == 0 and step < objective.steps and not stopped:
                state = {"values": made.values.detach(), "chosen": made.chosen, "held": held, "curves": curves}
                folder = job.folder / f"checkpoint-{step}"
                folder.mkdir(parents=True, exist_ok=True)
                torch.save({**state, "optimiser": optimiser.state_dict(), "step": step}, folder / STATE)
                checkpoints.seal(job.folder, step)
    losses = [row["value"] for row in curves if row["quantity"] == "loss"]
    metrics = {
        "steps": len(losses),
        "tokens": int(sum(row["value"] for row in curves if row["quantity"] == "tokens")),
        "first_loss": losses[0],
        "final_loss": losses[-1],
        "coefficients": int(made.chosen.sum()) * made.parts,
        "smallest": float(made.values.detach().min()),
        "largest": float(made.values.detach().max()),
        **objective.metrics,
    }
    if objective.holds is not None:
        metrics["stopped_by_control"] = stopped
    write(job.out, made, job.arm, job.seed)
    tables.write(job.out / "curves.parquet", "curves", curves)
    return {"kind": "full", "metrics": metrics}


def write(out: Path, made: Composition, arm: str, seed: int) -> None:
    """The weights of a composition, and its coefficients as a table beside them."""
    shutil.rmtree(out / "weights", ignore_errors=True)  # of a fit of another kind
    made.save(out / "weights" / model_files.WEIGHTS)
    tables.write(out / "coefficients.parquet", "coefficients", made.rows(arm, seed))


def check(job: Fit, values: dict[str, float], step: int, steps: int) -> None:
    """Raise when a loss or the gradient's norm is lost."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ImprintError(
                f"arm '{job.arm}': the {name} is {value} at step {step} of {steps}; write a smaller learning_rate than "
                f"{job.settings.learning_rate:g}"
            )
