"""The curves of a fit: the one place through which every value of the table `curves` goes, and so to the tracker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from imprint.runtime import parquet

if TYPE_CHECKING:
    from imprint.methods import Fit


class Curves:
    """The curves of one fit. `rows` are those of the table, in the order in which they came."""

    def __init__(self, job: Fit) -> None:
        self.job = job
        self.rows: list[dict[str, Any]] = []

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of a step: quantity -> number."""
        at = {"arm": self.job.arm, "seed": self.job.seed, "step": step}
        numbers = {name: float(value) for name, value in values.items()}
        self.rows += [{**at, "quantity": name, "value": number} for name, number in numbers.items()]
        self.job.tracking.add(step, numbers)

    def go_on(self, rows: Iterable[dict[str, Any]]) -> None:
        """Begin with the rows of a killed attempt, as its checkpoint has them."""
        for step, of_step in groupby(rows, key=lambda row: int(row["step"])):
            self.add(step, {row["quantity"]: row["value"] for row in of_step})

    def of(self, quantity: str) -> list[float]:
        """The values of a quantity, in the order in which they came."""
        return [row["value"] for row in self.rows if row["quantity"] == quantity]

    def write(self) -> None:
        """Write the table `curves`, sorted by step."""
        rows = sorted(self.rows, key=lambda row: int(row["step"]))
        parquet.write(self.job.out / "curves.parquet", "curves", rows)
