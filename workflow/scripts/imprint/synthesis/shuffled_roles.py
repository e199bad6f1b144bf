"""The placebo of self-prompt tuning: every dialogue gets another dialogue's role prompt.

The multiset of roles is unchanged and no row keeps its own, so format and length stay while the content is wrong.
"""

from __future__ import annotations

import random
from typing import Any

from pydantic import Field

from imprint.errors import ImprintError
from imprint.methods import Inputs
from imprint.plugins import Strict
from imprint.synthesis import Made


class Settings(Strict):
    source: str = Field(alias="from", description="dataset whose rows have a role prompt")
    seed: int = Field(0, description="of the shuffle")


def inputs(settings: Settings) -> Inputs:
    return Inputs(datasets=(settings.source,))


def rows(settings: Settings, datasets: dict[str, list[dict[str, Any]]], ask: None) -> Made:
    """Shuffle, then hand every role on to the next different one: a permutation without fixed roles."""
    source = datasets[settings.source]
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
    # Equal roles stand together in `order`; a shift by at least their number meets none of them again.
    shift = random.Random(settings.seed).randint(most, len(source) - most)
    given = {order[i]: roles[order[(i + shift) % len(order)]] for i in range(len(order))}
    made = [{**row, "fields": {**row["fields"], "role_prompt": given[i]}} for i, row in enumerate(source)]
    return Made(made, [])
