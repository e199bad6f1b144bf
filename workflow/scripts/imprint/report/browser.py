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
from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from imprint.report import items
from imprint.report.facts import Eval, Spec

BUDGET = 14_000_000  # characters of packed texts and indices; with tables and charts, a report then has about 15 MB
SIDE_BUDGET = 60_000_000  # the same, of the page of responses; a browser on a laptop still opens it
BLOCK = 200  # examples that are packed together
FIRST_WORDS = 100  # characters of the question in a line of the list


def collect(tables: Mapping[str, pl.DataFrame], facts: Spec, budget: int) -> dict[str, Any]:
    """The browser's data as plain data for JSON, from the tables answers, summary, scores, generations and prompts, and
    from datasets, where that table is there: without it, questions, references and strata are not shown. Private
    evals are left out, and those whose score has given no values. `budget`: characters that packed texts and indices
    may take.

    Each eval has `metric`, null where it only samples; `n`, the number of its examples; `discordant`, the number of
    those that an arm won or lost in a comparison; and `totals`: "i-j", a pair of positions in `arms` with i < j -> how
    many of all examples arm i won, lost and tied. `index` and `blocks` are packed."""
    shown = [ev for ev in facts.evals if not ev.private and (ev.score is None or _primary(tables, ev.name))]
    evals = {ev.name: _Eval(tables, facts, ev) for ev in shown}
    blocks: dict[str, list[str]] = {name: [] for name, ev in evals.items() if ev.ids}
    room = budget
    index_sizes = {name: len(packed(evals[name].index(BLOCK))) for name in blocks}  # of a block's lines in the list
    # The discordant examples of all evals come first, so that a large eval does not take the room of other evals.
    places = [(n * BLOCK >= evals[name].discordant, n, name) for name in blocks for n in range(evals[name].n_blocks)]
    for _, number, name in sorted(places):
        block = packed(evals[name].block(number))
        room -= len(block) + index_sizes[name]
        if room < 0:
            break
        blocks[name].append(block)
    return {
        "arms": [arm.name for arm in facts.arms],
        "block": BLOCK,
        "evals": {name: evals[name].head(len(held)) | {"blocks": held} for name, held in blocks.items()},
    }


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

    def __init__(self, tables: Mapping[str, pl.DataFrame], facts: Spec, ev: Eval) -> None:
        primary = _primary(tables, ev.name) or {"metric": None, "direction": 0}
        self.facts, self.ev = facts, ev
        self.metric, self.direction = primary["metric"], primary["direction"]
        self.primary = pl.col("metric") == pl.lit(self.metric, pl.String)
        self.arms = [arm.name for arm in facts.arms]
        scores = tables["scores"].filter((pl.col("eval") == ev.name) & pl.col("arm").is_in(self.arms))
        of_eval = pl.col("eval") == (ev.responses or ev.name)
        responses = tables["generations"].filter(of_eval & pl.col("arm").is_in(self.arms))
        self.binary = _binary(scores, tables["summary"].filter(pl.col("eval") == ev.name))
        asked = scores if ev.score else responses
        self._order(asked["example_id"].unique().to_list(), scores, _compared(tables["answers"], facts, ev.name))
        self.scores = _first_run(self._ranked(scores), sample=True).sort("rank", maintain_order=True)
        prompts = tables["prompts"].unique("prompt_sha256").select("prompt_sha256", "prompt")
        responses = self._ranked(responses).join(prompts, "prompt_sha256", "left")
        self.responses = _first_run(responses, sample=ev.asks == "generate").sort("rank", maintain_order=True)
        self.rows = self._rows(tables.get("datasets"))

    def _order(self, ids: list[str], scores: pl.DataFrame, compared: list[tuple[str, str]]) -> None:
        """Set `ids`, `values` (arms x examples, NaN where a value is missing) and `discordant`."""
        ids.sort(key=lambda example_id: hashlib.sha256(f"{self.ev.name} {example_id}".encode()).digest())
        ranks = pl.DataFrame({"example_id": ids, "rank": range(len(ids))}, schema_overrides={"example_id": pl.String})
        # An example that lacks a value in one of an arm's runs is not compared: the statistics leave it out, too.
        mean = pl.when(pl.col("value").is_null().any()).then(None).otherwise(pl.col("value").mean())
        means = scores.filter(self.primary).group_by("arm", "example_id").agg(mean.alias("value"))
        values = np.full((len(self.arms), len(ids)), np.nan)
        for position, arm in enumerate(self.arms):
            arm_means = means.filter(pl.col("arm") == arm).join(ranks, "example_id").drop_nulls("value")
            values[position, arm_means["rank"].to_numpy()] = arm_means["value"].to_numpy()
        positions = [(self.arms.index(arm), self.arms.index(other)) for arm, other in compared]
        differs = np.zeros(len(ids), dtype=bool)
        for first, second in positions:
            differs |= np.isin(outcomes(values[first], values[second], self.direction), (1, -1))
        order = np.argsort(~differs, kind="stable")
        self.ids, self.values, self.discordant = [ids[i] for i in order], values[:, order], int(differs.sum())
        self.ranks = pl.DataFrame(
            {"example_id": self.ids, "rank": range(len(ids))}, schema_overrides={"example_id": pl.String}
        )
        self.n_blocks = -(-len(ids) // BLOCK)

    def _ranked(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.join(self.ranks, "example_id")

    def _rows(self, datasets: pl.DataFrame | None) -> pl.DataFrame:
        """The examples in order, with the columns rank, question (the user's last turn), reference, strata and first.
        Without the dataset's row, question, reference and strata are null. `first` is the beginning of the question,
        else of the prompt, else of the response."""
        user = pl.element().filter(pl.element().struct.field("role") == "user").struct.field("content")
        columns = {"question": pl.col("messages").list.eval(user).list.last()}
        if datasets is None:
            known = self.ranks.select(
                "rank", **dict.fromkeys(("question", "reference", "strata"), pl.lit(None, pl.String))
            )
        else:
            known = self._ranked(datasets.filter(pl.col("dataset") == self.ev.dataset).unique("example_id"))
            known = known.select("rank", "reference", "strata", **columns)
        texts = self.responses.group_by("rank").agg(pl.col("prompt", "response").first())
        rows = self.ranks.join(known, "rank", "left").join(texts, "rank", "left").sort("rank")
        stripped = pl.col("question", "prompt", "response").str.strip_chars()
        filled = rows.select("rank", pl.when(stripped != "").then(stripped).str.replace_all(r"\s+", " "))
        first = pl.coalesce("question", "prompt", "response").str.head(FIRST_WORDS)
        return rows.select("rank", "question", "reference", "strata").with_columns(filled.select(first.alias("first")))

    def head(self, n_blocks: int) -> dict[str, Any]:
        """What the page says of the eval, and the index of the examples in its first `n_blocks` blocks."""
        totals = {}
        for i, j in combinations(range(len(self.arms)), 2):
            signs = outcomes(self.values[i], self.values[j], self.direction)
            totals[f"{i}-{j}"] = [int((signs == sign).sum()) for sign in (1, -1, 0)]
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

    def index(self, held: int) -> dict[str, Any]:
        """Lists over the first `held` examples, or over all if they are fewer: ids, first words and strata; for each
        arm also the values, the lengths in tokens, and the marks. The marks are "truncated" and the statuses other than
        "scored"; null where the arm was not asked."""
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
        arms = []
        for position, arm in enumerate(self.arms):
            columns = self.ranks.head(held).join(marks.filter(pl.col("arm") == arm), "rank", "left")
            columns = columns.join(tokens.filter(pl.col("arm") == arm), "rank", "left").sort("rank")
            values = [None if np.isnan(value) else value for value in self.values[position, :held].tolist()]
            arms.append({"values": values, "marks": columns["marks"].to_list(), "tokens": columns["tokens"].to_list()})
        strata = [json.loads(text) if text else {} for text in rows["strata"]]
        return {"ids": self.ids[:held], "first": rows["first"].to_list(), "strata": strata, "arms": arms}

    def _unscored(self) -> pl.DataFrame:
        """The final responses of an eval that only samples, with the columns of `scores` that make up the marks."""
        return self.responses.filter("final").select(
            "arm",
            "rank",
            pl.when(pl.col("error").is_null()).then(pl.lit("scored")).otherwise(pl.lit("error")).alias("status"),
            (pl.col("finish_reason") == "length").fill_null(False).alias("truncated"),
        )

    def block(self, number: int) -> dict[str, Any]:
        """The examples of one block, with their texts."""

        def part(rows: pl.DataFrame) -> pl.DataFrame:  # rows are sorted by rank: a filter would read all of them
            start, end = rows["rank"].search_sorted(pl.Series([number * BLOCK, (number + 1) * BLOCK]))
            return rows.slice(start, end - start)

        return items.block(self.facts, self.ev, part(self.rows), part(self.responses), part(self.scores))


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
