"""Imports: readers of logs that other harnesses have written.

A log holds the responses of one model to one eval, with the values that the other harness gave them. A million
responses must fit, so a log's samples are columns of a polars frame and not objects. What a log holds is hostile input:
a reader parses it as data, and limits its size.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from imprint.runtime import plugins

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("question", "detail", "reference", "response", "options", "sample", "seed", "cluster", "error", "truncated")
"""The columns of a log's samples. A row is one response.

- `question`: the text by which an example is known, without the words that a harness puts around the text;
- `detail`: tells examples with one question apart, or null; a text that is equal in all logs of the eval;
- `reference`: the right answer as text, or null;
- `response`: what the model wrote, complete, or null;
- `options`: where options were compared, a list of {text, logprob} in the order of the log, else null;
- `sample`: which of several responses to the example it is, from 0;
- `seed`: the training run that wrote the response, or null where the log does not say;
- `cluster`: examples of one cluster depend on each other; null where the question alone says so;
- `error`: why there is no response, or null;
- `truncated`: whether the response was cut at the limit of tokens, or null where the log does not say.
"""


class Log(NamedTuple):
    """What a reader makes of one file. `values` has the rows of `samples`, and a column of floats for each metric, null
    where the log has no finite number. `metrics`: metric -> 1 if higher is better, else -1; the first is the primary
    one. `left_out`: metrics that are not one number an example."""

    eval: str
    samples: pl.DataFrame
    values: pl.DataFrame
    metrics: dict[str, int]
    left_out: tuple[str, ...] = ()


class Fields(plugins.Strict):
    """The settings of every reader: the fields that differ from log to log."""

    question: str | None = Field(None, description="field that holds the question; null lets the reader choose")
    cluster: str | None = Field(
        None, description="field whose values are the clusters of examples that depend on each other"
    )


class Reader(plugins.Contract):
    """What a reader defines."""

    @staticmethod
    @abstractmethod
    def suits(path: Path) -> bool:
        """Whether a file is such a log, by its name and its beginning. Every file suits at most one reader."""

    @staticmethod
    @abstractmethod
    def read(path: Path, settings: Any) -> Log:
        """The log. Raises ImprintError with the file, the line, and what to do."""


CONTRACT = Reader
