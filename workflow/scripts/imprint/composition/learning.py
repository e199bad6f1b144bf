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

if TYPE_CHECKING:
    from imprint.composition.composing import Composition

STATE = "state.pt"


class Objective(NamedTuple):
    """What a fit minimises, in `steps` steps of `steps_an_epoch` an epoch.

    `losses(step)` yields named parts (name, scalar) of the step's loss, which is their sum. Each part's graph is freed
    before the next part is computed. `holds()` is called after each epoch, at the merged weights. When it returns
    False, learning stops and goes back to the coefficients of the epoch before. `tokens(step)` is the number of tokens
    of a step, for the curves. `metrics` are plain numbers for the manifest; checkpoints keep them."""

    steps: int
    steps_an_epoch: int
    losses: Callable[[int], Iterator[tuple[str, Any]]]
    tokens: Callable[[int], int]
    holds: Callable[[], bool] | None = None
    metrics: dict[str, Any] = {}  # noqa: RUF012


def autocast(job: Fit) -> Any:
    """A context of autocast to bfloat16 over fp32 weights, or of no autocast for dtype float32. Raises ImprintError for
    other dtypes."""
    import torch

    if job.dtype not in ("bfloat16", "float32"):
        raise ImprintError(f"arm '{job.arm}': dtype {job.dtype!r} does not train; write bfloat16 or float32")
    return torch.autocast(job.device.split(":")[0], torch.bfloat16, enabled=job.dtype == "bfloat16")


def load(job: Fit) -> tuple[Any, Any]:
    """The model that the composition starts from, in fp32, and its tokenizer. Also sets the threads, and deterministic
    kernels on a GPU."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(job.threads)
    if job.device != "cpu":
        # Makes reruns bit for bit equal. Only the sums over random partitions have no deterministic kernel.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return chains.load(job.manifests, "float32", job.device)


def choose(job: Fit, composition: Composition, objective: Objective) -> None:
    """Set `composition.chosen` to `budget` vectors. `select` says how they are chosen: for all blocks together, at
    random or by the size of their gradients, or for each group of blocks by the size of its gradient. Gradients are
    taken on the first step."""
    import torch

    s = job.settings
    if s.budget is None:
        return
    vectors, groups, _ = composition.values.shape
    composition.chosen = torch.zeros(vectors, groups, dtype=torch.bool)
    if s.select == "random":
        composition.chosen[random.Random(f"budget/{job.seed}").sample(range(vectors), s.budget)] = True
        return
    composition.chosen[:] = True
    backward(job, objective, 0)
    assert composition.values.grad is not None
    sizes = composition.values.grad.abs().sum(2)  # L1 norms, [vector, group]
    composition.values.grad = None
    composition.chosen[:] = False
    if s.select == "gradient":
        composition.chosen[sizes.sum(1).topk(s.budget).indices] = True
    else:
        composition.chosen.scatter_(0, sizes.topk(s.budget, dim=0).indices, True)


def backward(job: Fit, objective: Objective, step: int) -> dict[str, float]:
    """Add the gradients of a step's loss to the coefficients' gradient. Returns the values of its named parts, and
    their sum as "loss"."""
    values: dict[str, float] = {"loss": 0.0}
    losses = objective.losses(step)
    while True:
        with autocast(job):
            part = next(losses, None)
        if part is None:
            return values
        name, value = part
        if value.requires_grad:
            value.backward()
        values[name] = values.get(name, 0.0) + float(value.detach())
        values["loss"] += float(value.detach()) if name != "loss" else 0.0


def learn(
    job: Fit, composition: Composition, objective: Objective, clamp: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Learn the coefficients from the last complete checkpoint in `job.folder`, and write weights, coefficients and
    curves under `job.out`. Returns the metrics for the manifest. `clamp` is the range of the coefficients. Raises
    ImprintError if a loss or the gradient's norm is no finite number."""
    learner = _Learner(job, composition, objective, clamp)
    learner.begin()
    with progress.bar(objective.steps, f"{job.arm} seed {job.seed}", initial=learner.step, unit="step") as bar:
        while learner.goes_on():
            loss = learner.advance()
            if objective.holds is not None and learner.ends_an_epoch():
                learner.stop_unless_it_holds(objective.holds)
            bar.update(1)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if learner.step % job.settings.checkpoint_steps == 0 and learner.goes_on():
                learner.keep()
    write(job.out, composition, job.arm, job.seed)
    parquet.write(job.out / "curves.parquet", "curves", learner.curves)
    return learner.metrics()


class _Learner:
    """The state of a fit that learns coefficients: its step, its optimiser, its curves and whether it has stopped."""

    def __init__(
        self, job: Fit, composition: Composition, objective: Objective, clamp: tuple[float, float] | None
    ) -> None:
        import torch

        s = job.settings
        self.job, self.composition, self.objective, self.clamp = job, composition, objective, clamp
        self.optimiser = torch.optim.AdamW(
            [composition.values], lr=s.learning_rate, betas=(0.9, 0.999), weight_decay=s.weight_decay
        )
        self.step, self.stopped = 0, False
        self.held = composition.values.detach().clone()
        """The coefficients after the last epoch for which `objective.holds` returned True; at first the initial
        ones."""
        self.curves: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Load the last complete checkpoint. If there is none, choose the budget's vectors."""
        import torch

        last = checkpoints.last(self.job.folder)
        if last is None:
            self.composition.merge()
            choose(self.job, self.composition, self.objective)
            return
        state = torch.load(last / STATE, weights_only=True)
        with torch.no_grad():
            self.composition.values.copy_(state["values"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.composition.chosen, self.held = state["chosen"], state["held"]
        self.curves, self.step = state["curves"], state["step"]
        self.objective.metrics.update(state["metrics"])
        self.composition.merge()

    def advance(self) -> float:
        """Take one step and merge the weights again. Returns the step's loss."""
        import torch

        rate = self._rate()
        self.optimiser.param_groups[0]["lr"] = rate
        values = backward(self.job, self.objective, self.step)
        self.step += 1
        if self.composition.values.grad is not None:  # None if no loss of the step has a graph
            self._update(values)
        with torch.no_grad():
            self.composition.values *= self.composition.chosen.unsqueeze(2)
            if self.clamp is not None:
                self.composition.values.clamp_(*self.clamp)
        self.composition.merge()
        values |= {"learning_rate": rate, "tokens": float(self.objective.tokens(self.step - 1))}
        self.curves += at_step(self.job, self.step, values)
        return values["loss"]

    def _rate(self) -> float:
        """The learning rate of the next step."""
        s = self.job.settings
        rate: float = s.learning_rate
        if s.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * self.step / self.objective.steps))
        return rate

    def _update(self, values: dict[str, float]) -> None:
        """Clip the gradient, add its norm to the step's `values`, and update the coefficients."""
        import torch

        norm = torch.nn.utils.clip_grad_norm_([self.composition.values], self.job.settings.max_grad_norm or math.inf)
        values["grad_norm"] = float(norm)
        check(self.job, values, self.step, self.objective.steps)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def ends_an_epoch(self) -> bool:
        return self.step % self.objective.steps_an_epoch == 0 or self.step == self.objective.steps

    def goes_on(self) -> bool:
        return self.step < self.objective.steps and not self.stopped

    def stop_unless_it_holds(self, holds: Callable[[], bool]) -> None:
        """Call `holds` at the merged weights. If it returns False, stop, and go back to the coefficients of the last
        epoch for which it returned True."""
        import torch

        with autocast(self.job), torch.no_grad():
            self.stopped = not holds()
            if self.stopped:
                self.composition.values.copy_(self.held)
        self.held = self.composition.values.detach().clone()

    def keep(self) -> None:
        """Write a checkpoint."""
        import torch

        folder = self.job.folder / f"checkpoint-{self.step}"
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "values": self.composition.values.detach(),
            "chosen": self.composition.chosen,
            "held": self.held,
            "curves": self.curves,
            "metrics": self.objective.metrics,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        torch.save(state, folder / STATE)
        checkpoints.seal(self.job.folder, self.step)

    def metrics(self) -> dict[str, Any]:
        """The fit's metrics for the manifest."""
        losses = [row["value"] for row in self.curves if row["quantity"] == "loss"]
        values = self.composition.values.detach()
        metrics = {
            "steps": len(losses),
            "tokens": int(sum(row["value"] for row in self.curves if row["quantity"] == "tokens")),
            "first_loss": losses[0],
            "final_loss": losses[-1],
            "coefficients": int(self.composition.chosen.sum()) * self.composition.parts,
            "smallest": float(values.min()),
            "largest": float(values.max()),
            **self.objective.metrics,
        }
        return metrics if self.objective.holds is None else metrics | {"stopped_by_control": self.stopped}


def at_step(job: Fit, step: int, values: dict[str, float]) -> list[dict[str, Any]]:
    """Rows of the curves table for one step: one row for each quantity in `values`."""
    return [
        {"arm": job.arm, "seed": job.seed, "step": step, "quantity": name, "value": value}
        for name, value in values.items()
    ]


def write(out: Path, composition: Composition, arm: str, seed: int) -> None:
    """Write a composition's weights and its table of coefficients into the folder `out`."""
    composition.save(out)
    parquet.write(out / "coefficients.parquet", "coefficients", composition.rows(arm, seed))


def check(job: Fit, values: dict[str, float], step: int, steps: int) -> None:
    """Raise ImprintError if a loss or the gradient's norm is no finite number."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ImprintError(
                f"arm '{job.arm}': the {name} is {value} at step {step} of {steps}; write a smaller learning_rate than "
                f"{job.settings.learning_rate:g}"
            )
