"""The placebo of self-prompt tuning: every dialogue gets another dialogue's role prompt.

All roles stay in the dataset, but no row keeps its own. So format and length are unchanged, and the content is wrong.
"""

from __future__ import annotations

import random

from pydantic import Field

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict
from imprint.synthesis import SynthesisedRows
from imprint.tables.inputs import Read


class Settings(Strict):
    source: str = Field(alias="from", description="dataset whose rows have a role prompt")
    seed: int = Field(0, description="of the shuffle")


def inputs(settings: Settings) -> Inputs:
    return Inputs(datasets=(settings.source,))


def rows(settings: Settings, inputs: Read, ask: None) -> SynthesisedRows:
    """The rows with shuffled roles. Raises ImprintError for a row without a role, and if one role has more than half of
    the rows, since then some row would keep its own."""
    source = inputs.datasets[settings.source]
    for row in source:
        if not row["fields"].get("role_prompt"):
            raise ImprintError(
                f"dataset '{settings.source}', example {row['example_id']}: has no role prompt to shuffle; take a set "
                "with roles, such as one made by `synth: role_prompts`"
            )
    roles = [row["fields"]["role_prompt"] for row in source]
    order = sorted(range(len(source)), key=lambda i: roles[i])
    most = max((roles.count(role) for role in set(roles)), default=0)
    if len(source) < 2 or 2 * most > len(source):
        raise ImprintError(
            f"dataset '{settings.source}': {len(source)} rows of which {most} share one role prompt cannot be shuffled "
            "so that no row keeps its own; take a larger set or one with distinct roles"
        )
    # Equal roles are neighbours in `order`, so a shift by at least their number gives no row an equal role.
    shift = random.Random(settings.seed).randint(most, len(source) - most)
    new_roles = {order[i]: roles[order[(i + shift) % len(order)]] for i in range(len(order))}
    shuffled = [{**row, "fields": {**row["fields"], "role_prompt": new_roles[i]}} for i, row in enumerate(source)]
    return SynthesisedRows(shuffled, [])
