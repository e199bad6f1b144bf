"""The callback of a gradient fit. Imports transformers, so only fits import this module."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from imprint.methods import Fit
from imprint.runtime import progress
from imprint.runtime.errors import ImprintError
from imprint.training import checkpoints
from imprint.training.curves import Curves


class Watch(TrainerCallback):
    """Moves the progress bar, keeps the curves, orders and seals checkpoints, and raises ImprintError if the loss, the
    gradient's norm or the reward is no finite number. `names` maps the trainer's names of quantities to those of the
    curves; others are left out. The trainer counts updates; a step of the fit has `updates` of them. Checkpoints are
    made between steps, since a trainer does not keep what is left of a step."""

    def __init__(self, job: Fit, names: Mapping[str, str], updates: int = 1) -> None:
        self.job, self.names, self.updates = job, names, updates
        self.curves = Curves(job)
        self.bar: Any = None

    def on_train_begin(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        title = f"{self.job.arm} seed {self.job.seed}"
        done, steps = state.global_step // self.updates, state.max_steps // self.updates
        self.bar = progress.bar(steps, title, initial=done, unit="step", hidden=self.job.ranks.place > 0)
        for logged in state.log_history:  # of a checkpoint
            self._take(logged["step"], logged)

    def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        if state.global_step % self.updates == 0:
            self.bar.update(1)
        control.should_save = state.global_step % (self.job.settings.checkpoint_steps * self.updates) == 0
        control.should_save &= state.global_step < state.max_steps  # after the last step, the fit writes the weights

    def on_log(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        logs = kwargs["logs"]
        for name in ("loss", "grad_norm", "reward"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise ImprintError(
                    f"arm '{self.job.arm}': the {name} is {logs[name]} at step {state.global_step // self.updates} of "
                    f"{state.max_steps // self.updates}; write a smaller learning_rate than {args.learning_rate:g}"
                )
        if "loss" in logs:
            shown = {name: f"{logs[name]:.3f}" for name in ("loss", "reward") if name in logs}
            self.bar.set_postfix(shown, refresh=False)
        self._take(state.global_step, logs)

    def _take(self, update: int, logs: Mapping[str, float]) -> None:
        """Take what the trainer has logged into the curves. Its last log, of the whole training, has no loss."""
        if "loss" in logs:
            values = {name: logs[logged] for logged, name in self.names.items() if logs.get(logged) is not None}
            self.curves.add(update // self.updates, values)

    def on_save(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        self.job.ranks.wait()  # until all have written their parts
        # A shared disk may not list yet on one machine what another has written.
        names = self.job.ranks.of_all(checkpoints.files(self.job.folder, state.global_step))
        if self.job.ranks.place == 0:
            checkpoints.seal(self.job.folder, state.global_step, names)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
