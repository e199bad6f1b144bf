"""Which rows of several logs are the same example: rows with the same question. Numbers of rows do not count.

A question is compared as leakage is judged, by its words in small letters. Where some log has several examples with one
question, the rows' `detail` tells them apart. All examples with one question are one cluster, unless the log names
clusters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import polars as pl

from imprint.runtime.errors import ImprintError
from imprint.tables import content

LEAST = 0.5
"""The smallest share of the examples of one side that the other side must have too."""
NAMED = 3
"""How many examples without a partner are named."""


def key(question: str) -> str:
    """What a question is known by: 16 hex digits of the sha256 of its words, or of its characters if it has none."""
    words = content.normal(question) or question
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def matched(logs: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """The samples of all logs of one eval, with `example_id` and a `cluster` in every row. The same example has the
    same id in all logs. Raises ImprintError if logs put an example into different clusters."""
    questions = pl.concat([samples["question"] for samples in logs]).unique()
    keys = pl.DataFrame({"question": questions, "key": pl.Series([key(text) for text in questions], dtype=pl.String)})
    keyed = [samples.join(keys, on="question", how="left", maintain_order="left") for samples in logs]
    ambiguous = pl.concat(
        [
            samples.group_by("key").agg(pl.col("detail").n_unique()).filter(pl.col("detail") > 1).select("key")
            for samples in keyed
        ]
    ).unique()
    identified = [_identified(samples, ambiguous) for samples in keyed]
    _agree(identified)
    return [samples.with_columns(pl.col("cluster").fill_null(pl.col("key"))) for samples in identified]


def _identified(samples: pl.DataFrame, ambiguous: pl.DataFrame) -> pl.DataFrame:
    """The samples with an `example_id`: the question's key; for a key in `ambiguous`, which several examples have, also
    a hash of the detail; and a number for rows that are still alike."""
    is_ambiguous = pl.col("key").is_in(ambiguous["key"].implode())
    details = samples.filter(is_ambiguous)["detail"].unique().drop_nulls()
    hashes = [hashlib.sha256(text.encode()).hexdigest()[:8] for text in details]
    short = pl.DataFrame({"detail": details, "short": pl.Series(hashes, dtype=pl.String)})
    samples = samples.join(short, on="detail", how="left", maintain_order="left").with_columns(
        example_id=pl.when(is_ambiguous)
        .then(pl.concat_str("key", pl.col("short").fill_null(""), separator="-"))
        .otherwise("key")
    )
    place = ["example_id", "seed", "sample"]
    number = pl.int_range(pl.len()).over(place) if samples.select(place).is_duplicated().any() else pl.lit(0)
    return samples.with_columns(example_id=pl.concat_str("example_id", number.cast(pl.String), separator="-")).drop(
        "short"
    )


def _agree(logs: Sequence[pl.DataFrame]) -> None:
    """Raise unless every example has one cluster."""
    named = pl.concat([samples.select("example_id", "cluster", "question").drop_nulls("cluster") for samples in logs])
    torn = named.unique(["example_id", "cluster"]).filter(pl.col("example_id").is_duplicated())
    if torn.height:
        rows = torn.sort("example_id").head(2).to_dicts()
        raise ImprintError(
            f"{rows[0]['question']!r:.80} is in the cluster {rows[0]['cluster']!r:.40} and in "
            f"{rows[1]['cluster']!r:.40}; write one cluster for each example"
        )
