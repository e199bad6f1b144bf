"""The looks that were taken at an experiment's data, in the file looks.json of its results folder.

A look is a set of answers. Answers about more examples or more seeds of the same experiment are another look. The same
experiment at the same amounts is the same look, however often it is computed. An experiment is the same while its
questions, and what the config says of their arms and evals, stay the same. Otherwise it is another version. Other
versions are counted, and no interval accounts for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pydantic

from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_json, write_json
from imprint.runtime.plugins import Strict
from imprint.statistics.looks import Look, spent_by


class Amounts(Strict):
    """How much was looked at. `clusters`: question -> clusters of examples. `seeds`: 0 where no arm is fitted."""

    clusters: dict[str, int]
    seeds: int

    def share_of(self, more: Amounts) -> float:
        """These amounts as a share of `more`: the smallest share over questions and seeds, at most 1. A question
        without a cluster does not count, and neither do seeds where no arm is fitted."""
        shares = [n / more.clusters[name] for name, n in self.clusters.items() if n]
        return min([*shares, self.seeds / more.seeds if self.seeds else 1.0, 1.0])

    def within(self, more: Amounts) -> bool:
        """Whether these amounts are a part of `more`, and not all of it."""
        fewer = all(n <= more.clusters[name] for name, n in self.clusters.items()) and self.seeds <= more.seeds
        return fewer and self != more


class Seen(Strict):
    """A look: its amounts, and the error that was spent by then, over all looks."""

    amounts: Amounts
    spent: float


class History(pydantic.RootModel[dict[str, list[Seen]]]):
    """Version of the experiment -> its looks."""


def read(path: Path) -> Mapping[str, Sequence[Seen]]:
    """The looks of an experiment; empty before the first one. Raises ImprintError for a file of another form."""
    if not path.is_file():
        return {}
    try:
        return History.model_validate(read_json(path), strict=True).root
    except pydantic.ValidationError as error:
        raise ImprintError(
            f"{path} is no history of looks ({error.error_count()} problems); move the file away"
        ) from error


class Taken(NamedTuple):
    """A look as the statistics take it. `share`: its share of the planned data. `before`: the earlier looks, at parts
    of its data. `other_versions`: how many other versions of the experiment were looked at."""

    share: float
    before: Sequence[Look]
    other_versions: int

    @property
    def spent_before(self) -> float:
        """The error that was spent before this look."""
        return max((look.spent for look in self.before), default=0.0)

    @property
    def spent(self) -> float:
        """The error that is spent by now."""
        return spent_by(self.share, self.before)


WHOLE = Taken(1.0, (), 0)
"""The first look, at all planned data."""


def take(history: Mapping[str, Sequence[Seen]], version: str, now: Amounts, planned: Amounts) -> Taken:
    """The look at `now`, after those in the history."""
    share = now.share_of(planned)
    parts = [look for look in history.get(version, ()) if look.amounts.within(now)]
    # Two looks at one share, such as more examples of fewer seeds, count as one with the error of both.
    by_share = {look.amounts.share_of(now) * share: look.spent for look in sorted(parts, key=lambda look: look.spent)}
    before = [Look(earlier, spent) for earlier, spent in sorted(by_share.items()) if earlier < share]
    return Taken(share, before, len(history.keys() - {version}))


def add(path: Path, version: str, look: Seen) -> None:
    """Write the look to the history, unless the history has a look at the same amounts."""
    history = {name: list(looks) for name, looks in read(path).items()}
    looks = history.setdefault(version, [])
    if all(seen.amounts != look.amounts for seen in looks):
        looks.append(look)
        write_json(path, History(history).model_dump())
