"""A training set without the rows that an eval holds too, word for word or as a near copy: what the leakage check would
refuse is left out and counted.

    problems: {synth: without, from: all_problems, rows_of: [math500, aime24]}

The check finds nothing between the rows that are left and the named datasets. The report says how many rows each of
them has cost.
"""

from __future__ import annotations

from pydantic import Field

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict
from imprint.synthesis import SynthesisedRows
from imprint.tables import contamination
from imprint.tables.inputs import Read


class Settings(Strict):
    source: str = Field(alias="from", description="dataset whose rows are kept, but for those of the others")
    rows_of: list[str] = Field(min_length=1, description="datasets of evals, whose rows and near copies are left out")


def inputs(settings: Settings) -> Inputs:
    return Inputs(datasets=(settings.source, *settings.rows_of))


def left_out(settings: Settings) -> tuple[str, ...]:
    return tuple(settings.rows_of)


def rows(settings: Settings, inputs: Read, ask: None) -> SynthesisedRows:
    """The rows that share nothing with the other datasets, and an attempt for each row of the source. Raises
    ImprintError if no row is left."""
    source = inputs.datasets[settings.source]
    kept, shared_with = contamination.without(source, {name: inputs.datasets[name] for name in settings.rows_of})
    if not kept:
        raise ImprintError(
            f"dataset '{settings.source}': {', '.join(settings.rows_of)} hold all of its {len(source)} rows; take "
            "another dataset to train on"
        )
    attempts = []
    for row in source:
        held_by = shared_with.get(row["example_id"])
        reason = None if held_by is None else f"a row of {held_by}, or a near copy of one"
        attempts.append({"example_id": row["example_id"], "kept": held_by is None, "reason": reason, "response": None})
    return SynthesisedRows(kept, attempts)
