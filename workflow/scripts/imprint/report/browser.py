"""The data of the report's browser of responses: which examples of an eval the page holds, an index of them, and their
texts in blocks that the page unpacks when it shows them.

An arm has won, lost or tied an example against another arm by the eval's primary metric, in the mean over seeds,
samples and items. The page holds every example that an arm won or lost against one of its controls, or against the
other arm of a question, and then the others, in the order of their sha256, until the texts take a number of characters.
An eval that only samples has no scores, so its examples are shown without outcomes.
Where BUDGET is too small for the first of these, a page of responses, which has a larger budget, is written beside the
report. Of several seeds and samples of an arm, the responses of the first are shown.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from imprint.report import items
from imprint.report.facts import Eval, Spec
from imprint.report.responses import InMemory, Responses

BUDGET = 14_000_000  # characters of packed texts and indices; with tables and charts, a report then has about 15 MB
SIDE_BUDGET = 60_000_000  # the same, of the page of responses; a browser on a laptop still opens it
BLOCK = 200  # examples that are packed together
FIRST_WORDS = 100  # characters of the question in a line of the list
AT_ONCE = 100_000_000  # bytes of responses whose texts are in memory; more where a block has more


def collect(
    tables: Mapping[str, pl.DataFrame], facts: Spec, budget: int, responses: Responses | None = None
) -> dict[str, Any]:
    """The browser's data as plain data for JSON, from the tables answers, summary and scores, and from datasets, where
    that table is there: without it, questions, references and strata are not shown. `responses`: None for those of the
    tables generations and prompts. Private evals are left out, and those whose score has given no values. `budget`:
    characters that packed texts and indices may take.

    Each eval has `metric`, null where it only samples; `n`, the number of its examples; `discordant`, the number of
    those that an arm won or lost in a comparison; and `totals`: "i-j", a pair of positions in `arms` with i < j -> how
    many of all examples arm i won, lost and tied. `index` and `blocks` are packed."""
    shown = [ev for ev in facts.evals if not ev.private and (ev.score is None or _primary(tables, ev.name))]
    responses = responses or InMemory(tables)
    evals = {ev.name: _Eval(tables, facts, ev, responses) for ev in shown}
    blocks: dict[str, list[str]] = {name: [] for name, ev in evals.items() if ev.ids}
    room = budget
    # The discordant examples of all evals come first, so that a large eval does not take the room of other evals.
    places = [(n * BLOCK >= evals[name].discordant, n, name) for name in blocks for n in range(evals[name].n_blocks)]
    for ev, block in _packed_blocks([(evals[name], number) for _, number, name in sorted(places)], responses):
        room -= len(block) + ev.index_size
        if room < 0:
            break
        blocks[ev.ev.name].append(block)
    return {
        "arms": [arm.name for arm in facts.arms],
        "block": BLOCK,
        "evals": {name: evals[name].head(len(held)) | {"blocks": held} for name, held in blocks.items()},
    }


def _packed_blocks(order: Sequence[tuple[_Eval, int]], responses: Responses) -> Iterator[tuple[_Eval, str]]:
    """Each eval of `order` with its packed block of this number. Texts are read for several blocks at a time, because
    each reading opens the files of all arms."""
    sizes = [ev.size(number) for ev, number in order]
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and sum(sizes[start : end + 1]) <= AT_ONCE:
            end += 1
        parts = [ev.asked(number).with_columns(place=pl.lit(i)) for i, (ev, number) in enumerate(order[start:end])]
        texts = responses.with_texts(pl.concat(parts))
        for i, (ev, number) in enumerate(order[start:end]):
            yield ev, packed(ev.block(number, texts.filter(pl.col("place") == i)))
        start = end


def holds_differences(data: Mapping[str, Any]) -> bool:
    """Whether collected data hold every example that an arm won or lost against an arm that it is compared with."""
    return all(len(ev["blocks"]) * BLOCK >= ev["discordant"] for ev in data["evals"].values())


def packed(value: Any) -> str:
    """JSON text as gzip and base64. A lone surrogate, which UTF-8 cannot hold, becomes JSON's own escape for it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Level 9 takes two to five times as long as 6, and saves one to six parts in a hundred.
    return base64.b64encode(gzip.compress(text.encode("utf-8", "backslashreplace"), 6, mtime=0)).decode()


def _primary(tables: Mapping[str, pl.DataFrame], name: str) -> dict[str, Any] | None:
    """A row of the eval's primary metric; None if the eval has no scores."""
    rows = tables["summary"].filter(pl.col("primary") & (pl.col("eval") == name))
    return rows.row(0, named=True) if rows.height else None


class _Eval:
    """The examples of one eval in the order in which the page holds them: `ids`. The first `discordant` of them differ
    between arms that are compared. The rank of an example is its position in this order."""

    def __init__(self, tables: Mapping[str, pl.DataFrame], facts: Spec, ev: Eval, responses: Responses) -> None:
        primary = _primary(tables, ev.name) or {"metric": None, "direction": 0}
        self.facts, self.ev = facts, ev
        self.metric, self.direction = primary["metric"], primary["direction"]
        self.primary = pl.col("metric") == pl.lit(self.metric, pl.String)
        self.arms = [arm.name for arm in facts.arms]
        scores = tables["scores"].filter((pl.col("eval") == ev.name) & pl.col("arm").is_in(self.arms))
        of_eval = pl.col("eval") == (ev.responses or ev.name)
        rows = responses.rows.filter(of_eval & pl.col("arm").is_in(self.arms))
        self.binary = _binary(scores, tables["summary"].filter(pl.col("eval") == ev.name))
        asked = scores if ev.score else rows
        self._order(asked["example_id"].unique().to_list(), scores, _compared(tables["answers"], facts, ev.name))
        scores = _first_run(_ranked(scores, self.ranks), sample=True)
        self.scores = scores.select(*items.READ_OF_SCORES, "truncated").sort("rank", maintain_order=True)
        rows = _first_run(_ranked(rows, self.ranks), sample=ev.asks == "generate")
        self.responses = rows.sort("rank", maintain_order=True)
        self.rows = self._rows(tables.get("datasets"))
        self.first: dict[int, list[str | None]] = {}

    def _order(self, ids: list[str], scores: pl.DataFrame, compared: list[tuple[str, str]]) -> None:
        """Set `ids`, `values` (arms x examples, NaN where a value is missing) and `discordant`."""
        ids.sort(key=lambda example_id: hashlib.sha256(f"{self.ev.name} {example_id}".encode()).digest())
        ranks = _numbered(ids)
        # An example that lacks a value in one of an arm's runs is not compared: the statistics leave it out, too.
        mean = pl.when(pl.col("value").is_null().any()).then(None).otherwise(pl.col("value").mean())
        means = scores.filter(self.primary).group_by("arm", "example_id").agg(mean.alias("value")).drop_nulls("value")
        values = np.full((len(self.arms), len(ids)), np.nan)
        for (arm,), of_arm in _ranked(means, ranks).partition_by("arm", as_dict=True).items():
            values[self.arms.index(arm), of_arm["rank"].to_numpy()] = of_arm["value"].to_numpy()
        positions = [(self.arms.index(arm), self.arms.index(other)) for arm, other in compared]
        differs = np.zeros(len(ids), dtype=bool)
        for first, second in positions:
            differs |= np.isin(outcomes(values[first], values[second], self.direction), (1, -1))
        order = np.argsort(~differs, kind="stable")
        self.ids, self.values, self.discordant = [ids[i] for i in order], values[:, order], int(differs.sum())
        self.ranks = _numbered(self.ids)
        self.n_blocks = -(-len(ids) // BLOCK)

    def _rows(self, datasets: pl.DataFrame | None) -> pl.DataFrame:
        """The examples in order, with the columns rank, question (the user's last turn), reference and strata. Without
        the dataset's row, question, reference and strata are null."""
        user = pl.element().filter(pl.element().struct.field("role") == "user").struct.field("content")
        columns = {"question": pl.col("messages").list.eval(user).list.last()}
        if datasets is None:
            known = self.ranks.select(
                "rank", **dict.fromkeys(("question", "reference", "strata"), pl.lit(None, pl.String))
            )
        else:
            known = datasets.filter(pl.col("dataset") == self.ev.dataset).unique("example_id")
            known = _ranked(known, self.ranks)
            known = known.select("rank", "reference", "strata", **columns)
        return self.ranks.join(known, "rank", "left").sort("rank").drop("example_id")

    def _first_words(self, rows: pl.DataFrame, responses: pl.DataFrame) -> list[str | None]:
        """For each of `rows` the beginning of the question, else of the prompt, else of the response."""
        texts = responses.group_by("rank").agg(pl.col("prompt", "response").first())
        stripped = pl.col("question", "prompt", "response").str.strip_chars()
        filled = rows.join(texts, "rank", "left", maintain_order="left").select(
            pl.when(stripped != "").then(stripped).str.replace_all(r"\s+", " ")
        )
        return filled.select(pl.coalesce("question", "prompt", "response").str.head(FIRST_WORDS)).to_series().to_list()

    def head(self, n_blocks: int) -> dict[str, Any]:
        """What the page says of the eval, and the index of the examples in its first `n_blocks` blocks."""
        totals: dict[str, list[int]] = {}
        for i in range(len(self.arms)):
            signs = outcomes(self.values[i], self.values[i + 1 :], self.direction)
            of_pairs = np.stack([(signs == sign).sum(axis=1) for sign in (1, -1, 0)], axis=1)
            totals |= {f"{i}-{j}": counts for j, counts in enumerate(of_pairs.tolist(), i + 1)}
        return {
            "metric": self.metric,
            "direction": self.direction,
            "asks": self.ev.asks,
            "binary": self.binary,
            "n": len(self.ids),
            "discordant": self.discordant,
            "totals": totals,
            "index": packed(self.index(n_blocks * BLOCK)),
        }

    @cached_property
    def index_size(self) -> int:
        """Characters that a block's lines in the list take; known after the first block."""
        return len(packed(self.index(BLOCK)))

    def index(self, held: int) -> dict[str, Any]:
        """Lists over the first `held` examples, whose blocks have been made, or over all if they are fewer: ids, first
        words and strata; for each arm also the values, the lengths in tokens, and the marks. The marks are "truncated"
        and the statuses other than "scored"; null where the arm was not asked."""
        held = min(held, len(self.ids))
        rows = self.rows.head(held)
        status = pl.col("status").filter(pl.col("status") != "scored").unique().sort()
        cut = pl.when(pl.col("truncated").any()).then(pl.lit("truncated")).otherwise(pl.lit(""))
        marks = (
            (self.scores.filter(self.primary) if self.ev.score else self._unscored())
            .filter(pl.col("rank") < held)
            .group_by("arm", "rank")
            .agg(pl.format("{} {}", cut, status.str.join(" ")).str.strip_chars().alias("marks"))
        )
        # The length of an option in tokens says nothing about the model.
        written = pl.col("final") & (self.ev.asks == "generate")
        final = self.responses.filter((pl.col("rank") < held) & written)
        tokens = final.group_by("arm", "rank").agg(pl.col("response_tokens").first().alias("tokens"))
        arms: dict[str, dict[str, list[Any]]] = {}
        for arm, of_arm in zip(self.arms, self.values[:, :held].tolist(), strict=True):
            values = [None if math.isnan(value) else value for value in of_arm]
            arms[arm] = {"values": values, "marks": [None] * held, "tokens": [None] * held}
        for name, column in (("marks", marks), ("tokens", tokens)):
            for arm, rank, value in column.select("arm", "rank", name).iter_rows():
                arms[arm][name][rank] = value
        first = [words for number in range(-(-held // BLOCK)) for words in self.first[number]]
        strata = [json.loads(text) if text else {} for text in rows["strata"]]
        return {"ids": self.ids[:held], "first": first[:held], "strata": strata, "arms": list(arms.values())}

    def _unscored(self) -> pl.DataFrame:
        """The final responses of an eval that only samples, with the columns of `scores` that make up the marks."""
        return self.responses.filter("final").select(
            "arm",
            "rank",
            pl.when(pl.col("error").is_null()).then(pl.lit("scored")).otherwise(pl.lit("error")).alias("status"),
            (pl.col("finish_reason") == "length").fill_null(False).alias("truncated"),
        )

    def size(self, number: int) -> int:
        """The bytes of the responses of one block."""
        return int(self.asked(number)["size"].sum())

    def asked(self, number: int) -> pl.DataFrame:
        """The responses of one block."""
        return _part(self.responses, number)

    def block(self, number: int, responses: pl.DataFrame) -> dict[str, Any]:
        """The examples of one block; `responses`: those of the block, with their texts."""
        rows = _part(self.rows, number)
        self.first[number] = self._first_words(rows, responses)
        return items.block(self.facts, self.ev, rows, responses, _part(self.scores, number))


def _numbered(ids: list[str]) -> pl.DataFrame:
    """The ids with their places, `rank`."""
    return pl.DataFrame({"example_id": ids, "rank": range(len(ids))}, schema_overrides={"example_id": pl.String})


def _ranked(rows: pl.DataFrame, ranks: pl.DataFrame) -> pl.DataFrame:
    """The rows whose examples have a rank, with the rank in place of the id."""
    ranks = ranks.with_columns(pl.col("example_id").cast(rows.schema["example_id"]))
    return rows.join(ranks, "example_id", maintain_order="left").drop("example_id")


def _part(rows: pl.DataFrame, number: int) -> pl.DataFrame:
    """The rows of one block. They are sorted by rank: a filter would read all of them."""
    start, end = rows["rank"].search_sorted(pl.Series([number * BLOCK, (number + 1) * BLOCK]))
    return rows.slice(start, end - start)


Outcomes = npt.NDArray[np.float64]


def outcomes(left: Outcomes, right: Outcomes, direction: Literal[-1, 0, 1]) -> Outcomes:
    """1 where the first arm won, -1 where it lost, 0 where both tied, NaN where a value is missing. Where a
    metric has no direction, higher counts as better."""
    gap = (left - right) * (direction or 1)
    return np.where(np.abs(gap) <= 1e-9 * np.maximum(1.0, np.abs(left)), 0.0, np.sign(gap))


def _compared(answers: pl.DataFrame, facts: Spec, name: str) -> list[tuple[str, str]]:
    """(arm, other arm) of the eval's questions, and (arm, control) of all arms: the page holds their differences."""
    asked = answers.filter(pl.col("eval") == name).select("arm", "control").rows()
    controlled = [(arm.name, control) for arm in facts.arms for control in arm.control]
    known = {arm.name for arm in facts.arms}
    return [pair for pair in dict.fromkeys([*asked, *controlled]) if known.issuperset(pair)]


def _binary(scores: pl.DataFrame, summary: pl.DataFrame) -> list[str]:
    """The metrics of an eval whose values are all 0 or 1, where 1 means right and 0 means wrong."""
    directed = summary.filter(pl.col("direction") == 1)["metric"].to_list()
    values = scores.filter(pl.col("metric").is_in(directed)).drop_nulls("value")
    zero_one = values.group_by("metric").agg(pl.col("value").is_in([0.0, 1.0]).all())
    return sorted(zero_one.filter(pl.col("value"))["metric"])


def _first_run(rows: pl.DataFrame, sample: bool) -> pl.DataFrame:
    """The rows of each arm's lowest seed; with `sample`, only those of its lowest sample."""
    rows = rows.filter(pl.col("seed") == pl.col("seed").min().over("arm"))
    return rows.filter(pl.col("sample") == pl.col("sample").min().over("arm")) if sample else rows
