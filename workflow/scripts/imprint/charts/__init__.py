"""Charts: functions from tables to a picture. A chart draws with Altair (`charts/_drawing.py`). It imports Altair
inside its functions, because the Snakefile imports every chart in use to read its TABLES."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from imprint.runtime import plugins

if TYPE_CHECKING:
    import polars as pl


class Eval(NamedTuple):
    """What a chart is told of an eval. `description` says in words whether some arm is trained on the eval's kinds of
    rows (such as types of instructions); it is "" if the rows have no kinds, or if no arm is trained on rows with such
    kinds. `held_out` has the kinds on which no arm is trained. `retention`: the eval measures what an arm may lose."""

    description: str = ""
    held_out: tuple[str, ...] = ()
    retention: bool = False


Evals = Mapping[str, Eval]


class Chart(plugins.Contract):
    """What a chart defines. Its caption is resources/captions/NAME.md."""

    Settings = plugins.Strict  # a chart takes no keys in the config

    TABLES: tuple[str, ...]
    """Names of the tables that it reads."""

    @staticmethod
    @abstractmethod
    def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
        """The picture, an Altair chart; None if there is nothing to show. `arms` and `evals` are in the config's
        order."""

    @staticmethod
    @abstractmethod
    def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
        """Numbers for the caption."""


CONTRACT = Chart
