"""The responses of an experiment for the report: the table `generations` without its texts, which all fit into memory,
and the texts of those rows that the page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from imprint.runtime import parquet

LIGHT = (
    *("arm", "seed", "eval", "example_id", "sample", "turn", "final", "prompt_sha256", "finish_reason", "error"),
    *("response_tokens", "answer_tokens", "logprob_sum"),
)
"""The columns of `generations` that are kept for every response."""


class Responses(Protocol):
    """`rows` has the columns LIGHT, and `size`: the bytes of the response."""

    rows: pl.DataFrame

    def with_texts(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Some of `rows`, which may have further columns, in their order with the columns response, state and prompt.
        The prompt is null where a row has none."""
        ...


class InMemory:
    """The responses of the tables `generations` and `prompts`."""

    def __init__(self, tables: Mapping[str, pl.DataFrame]) -> None:
        self.rows = tables["generations"].with_columns(size=pl.col("response").str.len_bytes())
        self.prompts = tables["prompts"].unique("prompt_sha256").select("prompt_sha256", "prompt")

    def with_texts(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with their prompts."""
        return rows.join(self.prompts, "prompt_sha256", "left", maintain_order="left")


class OnDisk:
    """The responses of the files of `generations` and `prompts`. Each file is read once for its light columns, and
    again where it holds texts that are asked for. `file` and `row` say where a response or a prompt stands."""

    def __init__(self, generations: Sequence[Path], prompts: Sequence[Path]) -> None:
        self.generations, self.prompts = generations, prompts
        light = [_light(parquet.read(path, "generations", coded=True), place) for place, path in enumerate(generations)]
        nothing = _light(parquet.empty("generations", coded=True), -1)  # all there is where no arm takes an eval
        self.rows = pl.DataFrame(pl.from_arrow(pa.concat_tables([nothing, *light]).unify_dictionaries()))
        found: dict[str, tuple[int, int]] = {}
        for place, path in enumerate(prompts):
            of_file = parquet.read(path, "prompts", ("prompt_sha256",))["prompt_sha256"].to_pylist()
            found |= {digest: (place, row) for row, digest in enumerate(of_file) if digest not in found}
        digests = pl.Series("prompt_sha256", list(found), pl.String).cast(self.rows.schema["prompt_sha256"])
        places = pl.DataFrame(list(found.values()), {"file": pl.Int64, "row": pl.Int64}, orient="row")
        self.places = places.with_columns(digests)

    def with_texts(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with the texts of their files."""
        asked = self.places.join(rows.select("prompt_sha256").unique(), "prompt_sha256", "semi")
        prompts = asked.with_columns(_gathered(self.prompts, "prompts", ("prompt",), asked))
        texts = _gathered(self.generations, "generations", ("response", "state"), rows)
        prompts = prompts.select("prompt_sha256", "prompt")
        return rows.with_columns(texts).join(prompts, "prompt_sha256", "left", maintain_order="left")


def _light(table: pa.Table, place: int) -> pa.Table:
    """The light columns of the file at a place among the files."""
    columns = {
        "size": pc.binary_length(table["response"].cast(pa.string())),
        "file": pa.repeat(place, table.num_rows),
        "row": pa.array(range(table.num_rows), pa.int64()),
    }
    table = table.select(LIGHT)
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _gathered(paths: Sequence[Path], name: str, columns: Sequence[str], places: pl.DataFrame) -> pl.DataFrame:
    """These columns of the rows at `places` (columns file and row), in their order."""
    ordered = places.select("file", "row").with_row_index("place").sort("file", "row")
    parts = [
        parquet.read(paths[file], name, columns).take(pa.array(of_file["row"].to_numpy()))
        for (file,), of_file in ordered.partition_by("file", as_dict=True, maintain_order=True).items()
    ]
    texts = pl.DataFrame(pl.from_arrow(pa.concat_tables([parquet.empty(name, columns), *parts])))
    return texts[ordered["place"].arg_sort()]
