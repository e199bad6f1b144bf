"""The gates of arms of the method `head_gates`: how much of the task's embedding each attention head takes, from 0 for
the model as it is to 1 for the embedding alone. Every gate begins at 0.5.

analyses: {gates: {gates: [antonym_gates, plural_gates]}}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from imprint.analyses import Analysis
from imprint.runtime.plugins import Inputs, Strict


class Settings(Strict):
    arms: list[str] = Field(min_length=1, description="arms whose fit has made gates (`method: head_gates`)")


def inputs(settings: Settings) -> Inputs:
    """The arms."""
    return Inputs(arms=tuple(settings.arms))


def rows(job: Analysis) -> Iterator[dict[str, Any]]:
    """Rows of table `analyses`: the quantity `gate` by layer and head; `kind` is the number of the head."""
    from imprint.artifacts import hooks
    from imprint.hooks.head_gates import TENSORS

    for arm, manifests in job.inputs.arms.items():
        gates = hooks.read(manifests, "analysis 'gates'", TENSORS)["logits"].sigmoid()
        for layer, of_layer in enumerate(gates.tolist()):
            for head, gate in enumerate(of_layer):
                yield {"arm": arm, "layer": layer, "kind": f"head {head}", "quantity": "gate", "value": gate}
