"""Weights that others have made: a LoRA adapter of PEFT, or a fine-tuned model, taken as the fit of an arm. The arm is
then used like any other: as a task vector, a parent, a judge or a teacher.

fit: {method: given, path: ~/adapters/chemistry}

The folder has `adapter_model.safetensors` and `adapter_config.json`, or the safetensors of a whole model. They must fit
the arm's root model: names and shapes of the tensors, the tokens, and the chat template if the folder has one. The
weights are linked and not copied. Their hash is in the arm's manifest, so that changed weights rerun what is built on
them. Given weights are one training run, whatever the number of seeds; what they were trained on is not known here.
docs/weights.md says what is refused, and why.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from imprint.artifacts import lora
from imprint.methods import Fit
from imprint.runtime.plugins import Inputs, Strict


class Settings(Strict):
    path: str = Field(
        min_length=1,
        description="folder of the adapter or model, wherever it lies: inside the project, at an absolute path, or "
        "below `~`",
    )


def inputs(settings: Settings) -> Inputs:
    """The folder."""
    return Inputs(folders=(settings.path,))


def makes(settings: Settings) -> str:
    """A folder with PEFT's config holds an adapter, any other a model."""
    return "lora" if (Path(settings.path).expanduser() / lora.CONFIG).is_file() else "full"


def draws(settings: Settings) -> bool:
    """The weights are what they are."""
    return False


def fit(job: Fit) -> dict[str, Any]:
    """Check the folder, and bring its weights under `job.out`. Raises ImprintError for weights that do not fit."""
    from imprint.methods import _given

    folder = Path(job.settings.path).expanduser()
    base = _given.Base(job.manifests)
    base.check_words(folder)
    bring = _given.adapter if makes(job.settings) == "lora" else _given.model
    return {"tokens": 0, **bring(folder, base, job.out)}
