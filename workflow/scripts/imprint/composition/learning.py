"""The loop that learns the coefficients of task vectors. A method gives the objective. Each step computes gradients,
clips them, updates the coefficients and merges the weights again. The loop writes checkpoints, and at the end the
merged weights, the coefficients and the curves."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from imprint.methods import Fit
from imprint.models import chains
from imprint.runtime import parquet, progress
from imprint.runtime.errors import ImprintError
from imprint.training import checkpoints
from imprint.training.curves import Curves

if TYPE_CHECKING:
    from imprint.composition.composing import Composition

STATE = "state.pt"


Check = Callable[[], "dict[str, float] | None"]
"""Measures the merged weights. The first of the named numbers is to be small. None ends the fit."""


class Objective(NamedTuple):
    """What a fit minimises.

    `losses(step)` yields named parts (name, scalar) of the step's loss, which is their sum over all ranks; ranks yield
    the same names as often. Each part's graph is freed before the next part is computed. `tokens(step)` is the number
    of tokens of a step, for the curves. `check` runs before the first step and after every `check_steps` steps; the fit
    ends with the coefficients of the best check, and without a check with the last ones. `metrics` are plain numbers
    for the manifest; checkpoints keep them."""

    losses: Callable[[int], Iterator[tuple[str, Any]]]
    tokens: Callable[[int], int]
    check: Check | None
    metrics: dict[str, Any]


def load(job: Fit, dtype: str | None = None) -> tuple[Any, Any]:
    """The model that the composition starts from, in `dtype` or the job's, and its tokenizer. Also sets the threads,
    and deterministic kernels on a GPU. Raises ImprintError for dtypes that do not train.

    Each merge begins at the start's weights, so roundings do not add up. In bf16, a change below half a unit of a
    weight's last place has no effect while coefficients are learned; the saved sum in fp32 has it."""
    import torch
    import transformers

    dtype = dtype or job.dtype
    if dtype not in ("bfloat16", "float32"):
        raise ImprintError(f"arm '{job.arm}': dtype {dtype!r} does not train; write bfloat16 or float32")
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(job.threads)
    if job.device != "cpu":
        # Makes reruns bit for bit equal. Only the sums over random partitions have no deterministic kernel.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return chains.load(job.manifests, dtype, job.device, job.ranks.size)


def choose(job: Fit, composition: Composition, objective: Objective) -> None:
    """Set `composition.chosen` to `budget` vectors, for the next merge. `select` says how they are chosen: for all
    blocks together, at random or by the size of their gradients, or for each group of blocks by the size of its
    gradient. Gradients are taken on the first step."""
    s = job.settings
    if s.budget is None:
        return
    vectors = len(composition.values)
    composition.chosen[:] = False
    if s.select == "random":
        composition.chosen[random.Random(f"budget/{job.seed}").sample(range(vectors), s.budget)] = True
        return
    composition.chosen[:] = True
    composition.merge()
    backward(job, composition, objective, 0)
    assert composition.values.grad is not None
    sizes = composition.values.grad.abs().sum(2)  # L1 norms, [vector, group]
    composition.values.grad = None
    composition.chosen[:] = False
    if s.select == "gradient":
        composition.chosen[sizes.sum(1).topk(s.budget).indices] = True
    else:
        composition.chosen.scatter_(0, sizes.topk(s.budget, dim=0).indices, True)


def backward(job: Fit, composition: Composition, objective: Objective, step: int) -> dict[str, float]:
    """Make the gradient of a step's loss the coefficients' gradient. Returns the values of the loss's named parts, and
    their sum as "loss"."""
    import torch

    sums: dict[str, Any] = {}  # on the device, so that the host waits for them once a step
    for name, value in objective.losses(step):
        if value.requires_grad:
            (value * job.ranks.size).backward()  # the ranks' gradients of the weights are averaged
        sums[name] = sums.get(name, 0.0) + value.detach().double()
    if composition.values.grad is not None:
        composition.values.grad = job.ranks.sum(composition.values.grad).to(composition.device)
    totals = job.ranks.sum(torch.stack(list(sums.values())).cpu())
    values: dict[str, float] = dict(zip(sums, totals.tolist(), strict=True))
    return {"loss": sum(values.values()), **values}


def learn(job: Fit, composition: Composition, objective: Objective) -> dict[str, Any]:
    """Learn the coefficients from the last complete checkpoint in `job.folder`, and write weights, coefficients and
    curves under `job.out`. Returns the metrics for the manifest. Raises ImprintError if a loss, a check or the
    gradient's norm is no finite number."""
    steps = job.settings.steps
    learner = _Learner(job, composition, objective)
    learner.begin()
    with progress.bar(
        steps, f"{job.arm} seed {job.seed}", initial=learner.step, unit="step", hidden=job.ranks.place > 0
    ) as bar:
        while learner.goes_on():
            loss = learner.advance()
            if learner.step % job.settings.check_steps == 0 or learner.step == steps:
                learner.check()
            bar.update(1)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if learner.step % job.settings.checkpoint_steps == 0 and learner.goes_on():
                learner.keep()
    learner.take_the_best()
    job.ranks.first(lambda: write(job.out, composition, job.arm, job.seed))
    learner.curves.write()
    return learner.metrics()


class _Learner:
    """The state of a fit that learns coefficients: its step, its optimiser, its curves, its best check, and whether a
    check has ended it."""

    def __init__(self, job: Fit, composition: Composition, objective: Objective) -> None:
        import torch

        s = job.settings
        self.job, self.composition, self.objective = job, composition, objective
        self.optimiser = torch.optim.AdamW(
            [composition.values], lr=s.learning_rate, betas=(0.9, 0.999), weight_decay=s.weight_decay
        )
        self.step, self.ended = 0, False
        self.best: tuple[int, dict[str, float], torch.Tensor] | None = None
        """The step of the best check so far, what it measured, and the coefficients that it measured."""
        self.curves = Curves(job)

    def begin(self) -> None:
        """Load the last complete checkpoint. If there is none, choose the budget's vectors, and check the start."""
        import torch

        last = self.job.ranks.first(lambda: checkpoints.last(self.job.folder))
        if last is None:
            choose(self.job, self.composition, self.objective)
            self.composition.merge()
            self.check()
            return
        state = torch.load(last / STATE, weights_only=True, map_location="cpu")
        with torch.no_grad():
            self.composition.values.copy_(state["values"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.composition.chosen.copy_(state["chosen"])
        self.best = state["best"]
        self.step = state["step"]
        self.curves.go_on(state["curves"])
        self.objective.metrics.update(state["metrics"])
        self.composition.merge()

    def advance(self) -> float:
        """Take one step and merge the weights again. Returns the step's loss."""
        import torch

        rate = self._rate()
        self.optimiser.param_groups[0]["lr"] = rate
        values = backward(self.job, self.composition, self.objective, self.step)
        self.step += 1
        if self.composition.values.grad is not None:  # None if no loss of the step has a graph
            self._update(values)
        with torch.no_grad():
            self.composition.values *= self.composition.chosen.unsqueeze(2)
        self.composition.merge()
        values |= {"learning_rate": rate, "tokens": float(self.objective.tokens(self.step - 1))}
        self.curves.add(self.step, values)
        return values["loss"]

    def _rate(self) -> float:
        """The learning rate of the next step."""
        s = self.job.settings
        rate: float = s.learning_rate
        if s.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * self.step / s.steps))
        return rate

    def _update(self, values: dict[str, float]) -> None:
        """Clip the gradient, add its norm to the step's `values`, and update the coefficients."""
        import torch

        norm = torch.nn.utils.clip_grad_norm_([self.composition.values], self.job.settings.max_grad_norm or math.inf)
        values["grad_norm"] = float(norm)
        self._require_finite(values)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def _require_finite(self, values: dict[str, float]) -> None:
        s = self.job.settings
        advice = f"write a smaller learning_rate than {s.learning_rate:g}"
        require_finite(self.job, values, self.step, s.steps, advice)

    def goes_on(self) -> bool:
        return self.step < self.job.settings.steps and not self.ended

    def check(self) -> None:
        """Measure the merged weights. Of equal checks, the first is the best."""
        import torch

        if self.objective.check is None:
            return
        with torch.no_grad():
            measured = self.objective.check()
        if measured is None:
            self.ended = True
            return
        self._require_finite(measured)
        self.curves.add(self.step, measured)
        if self.best is None or _first(measured) < _first(self.best[1]):
            self.best = self.step, measured, self.composition.values.detach().clone()

    def take_the_best(self) -> None:
        """Go back to the coefficients of the best check."""
        import torch

        if self.best is not None:
            with torch.no_grad():
                self.composition.values.copy_(self.best[2])

    def keep(self) -> None:
        """Write a checkpoint. All ranks have the same state."""
        self.job.ranks.first(self._write)

    def _write(self) -> None:
        import torch

        folder = self.job.folder / f"checkpoint-{self.step}"
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "values": self.composition.values.detach(),
            "chosen": self.composition.chosen,
            "best": self.best,
            "curves": self.curves.rows,
            "metrics": self.objective.metrics,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        torch.save(state, folder / STATE)
        checkpoints.seal(self.job.folder, self.step)

    def metrics(self) -> dict[str, Any]:
        """The fit's metrics for the manifest."""
        losses = self.curves.of("loss")
        values = self.composition.coefficients
        metrics = {
            "steps": len(losses),
            "tokens": int(sum(self.curves.of("tokens"))),
            "first_loss": losses[0],
            "final_loss": losses[-1],
            "coefficients": int(self.composition.chosen.sum()) * self.composition.parts,
            "smallest": float(values.min()),
            "largest": float(values.max()),
            **self.objective.metrics,
        }
        if self.best is not None:
            step, measured, _ = self.best
            metrics |= {"best_step": step, **measured, "ended_by_check": self.ended}
        return metrics


def _first(measured: dict[str, float]) -> float:
    return next(iter(measured.values()))


def write(out: Path, composition: Composition, arm: str, seed: int) -> None:
    """Write a composition's weights and its table of coefficients into the folder `out`."""
    composition.save(out)
    parquet.write(out / "coefficients.parquet", "coefficients", composition.rows(arm, seed))


def require_finite(job: Fit, values: dict[str, float], step: int, steps: int, advice: str) -> None:
    """Raise ImprintError if a loss or the gradient's norm is no finite number. `advice` says what to do about it."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ImprintError(f"arm '{job.arm}': the {name} is {value} at step {step} of {steps}; {advice}")
