"""A part of a dataset, by content: rows to fit to, rows to compose with, rows to test on. All splits of a dataset that
name the same parts cut it in the same way, and no row is in two parts. Rows of one cluster stay together.

datasets:
  dialogues: {bundled: dialogues.jsonl}
  fitting: {synth: split, of: dialogues, part: fit, parts: &parts {fit: 0.5, compose: 0.25, test: 0.25}}
  composing: {synth: split, of: dialogues, part: compose, parts: *parts}

The clusters are put in the order of a hash, and cut where the parts' shares of the rows end. So the parts have their
sizes but for the size of a cluster.
"""

from __future__ import annotations

import hashlib
from itertools import accumulate
from typing import Any

from pydantic import Field, model_validator

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict
from imprint.synthesis import SynthesisedRows
from imprint.tables import dataset_rows
from imprint.tables.inputs import Read


class Settings(Strict):
    of: str = Field(description="dataset that is split")
    part: str = Field(description="the part that this dataset holds")
    parts: dict[str, float] = Field(
        min_length=1, description="the shares of the rows, by the part's name and in order; together at most 1"
    )

    @model_validator(mode="after")
    def _shares(self) -> Settings:
        if self.part not in self.parts:
            raise ValueError(f"part: '{self.part}' is none of the parts {', '.join(self.parts)}")
        if min(self.parts.values()) <= 0 or sum(self.parts.values()) > 1 + 1e-9:
            raise ValueError(f"parts: found {self.parts}; write shares above 0 that are together at most 1")
        return self


def inputs(settings: Settings) -> Inputs:
    return Inputs(datasets=(settings.of,))


def rows(settings: Settings, inputs: Read, ask: None) -> SynthesisedRows:
    """The rows of the part, in the dataset's order. Raises ImprintError if the part has none."""
    source = inputs.datasets[settings.of]
    clusters: dict[str, list[dict[str, Any]]] = {}
    for row in source:
        clusters.setdefault(row.get("cluster") or dataset_rows.cluster(row["example_id"]), []).append(row)
    place = list(settings.parts).index(settings.part)
    first, *ends = (round(share * len(source)) for share in accumulate(settings.parts.values(), initial=0.0))
    start, end = (first, *ends)[place], ends[place]
    kept, taken = set[str](), 0
    for name in sorted(clusters, key=lambda name: hashlib.sha256(f"split {name}".encode()).digest()):
        if start <= taken < end:  # a cluster belongs to the part in which it begins
            kept.update(row["example_id"] for row in clusters[name])
        taken += len(clusters[name])
    if not kept:
        raise ImprintError(
            f"dataset '{settings.of}' has {len(source)} rows in {len(clusters)} clusters, of which the part "
            f"'{settings.part}' would get none; write a larger share"
        )
    return SynthesisedRows([row for row in source if row["example_id"] in kept], [])
