"""Datasets: readers of public files and generators of rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imprint.runtime import plugins


class Dataset(plugins.Contract):
    """What a reader or generator defines."""

    @staticmethod
    @abstractmethod
    def rows(settings: Any, paths: dict[str, Path]) -> Iterable[dict[str, Any]]:
        """The rows, as `tables.dataset_rows` describes them: `messages`, and optionally `reference`, `fields`,
        `strata`, `cluster` and `example_id`. `paths` maps the names to the files of the catalog entry, of the bundled
        file or folder, or of what `files` names.

        Rows that are made from one template, item or source document say so with one text as their `cluster`. Without
        it the statistics take the rows for independent, and the intervals are too narrow. Rows that name no cluster
        form one where their messages and references are equal."""

    @staticmethod
    def files(settings: Any) -> str | None:
        """What a generator reads: `bundled/FOLDER` or a catalog entry; None for one that reads no file."""
        return None

    @staticmethod
    def kinds(settings: Any) -> tuple[str, frozenset[str]]:
        """A name for the kinds of rows of this dataset, and the ids of its kinds. The report compares them with those
        of the training sets, and says which kinds are held out."""
        return "", frozenset()


CONTRACT = Dataset
