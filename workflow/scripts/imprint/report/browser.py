"""The data of the report's browser of responses: for every eval and pair of arms a sample of examples, with prompts,
responses and values, as plain data for JSON.

The first arm of a pair has won, lost or tied each example, by the eval's primary metric. If a pair has more than
PER_PAIR examples, the three outcomes get equal shares, and the others get what one does not use. The examples with the
smallest sha256 are taken, so that pairs share most examples, and a rerun takes the same ones. Only the first seed and
sample of an arm are shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import polars as pl

PER_PAIR = 60
LONGEST = 6_000  # characters of a text; the page cuts longer ones, and says so
OTHERS = 8  # responses of a dialogue that are shown beside the scored one
OUTCOMES = ("won", "lost", "tied")


def collect(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Mapping[str, str]) -> dict[str, Any]:
    """The browser's data, from the tables summary, scores, generations and prompts. `evals`: name -> "generate" or
    "loglikelihood"; with the latter, an example's responses are its options. Example ids are grouped by pair "i-j" of
    positions in `arms`, i < j, and by the outcome of arm i."""
    texts: dict[str, int] = {}
    browsable = {}
    primary = tables["summary"].filter(pl.col("primary"))
    for name, asks in evals.items():
        rows = primary.filter(pl.col("eval") == name)
        if not len(rows):
            continue
        metric, direction = rows["metric"][0], rows["direction"][0]
        scores = _first_run(tables["scores"].filter(pl.col("eval") == name), sample=True)
        values = _values(scores.filter(pl.col("metric") == metric), arms)
        pairs = {}
        for i, j in combinations(range(len(arms)), 2):
            outcomes = _outcomes(values.get(arms[i], {}), values.get(arms[j], {}), direction or 1)
            if any(outcomes.values()):
                sample = _stratified(outcomes, name)
                pairs[f"{i}-{j}"] = {**sample, "counts": {key: len(ids) for key, ids in outcomes.items()}}
        example_ids = sorted({i for pair in pairs.values() for key in OUTCOMES for i in pair[key]})
        if not example_ids:
            continue
        browsable[name] = {
            "metric": metric,
            "direction": direction,
            "asks": asks,
            "binary": _binary(tables, name),
            "pairs": pairs,
            "examples": _examples(tables, scores, name, asks, arms, example_ids, texts),
        }
    return {"arms": list(arms), "evals": browsable, "texts": list(texts), "longest": LONGEST}


def _binary(tables: Mapping[str, pl.DataFrame], name: str) -> list[str]:
    """The metrics of an eval for which 1 means right and 0 means wrong, and no arm has another value."""
    directed = tables["summary"].filter((pl.col("eval") == name) & (pl.col("direction") == 1))
    values = tables["scores"].filter((pl.col("eval") == name) & pl.col("metric").is_in(directed["metric"].to_list()))
    zero_one = values.drop_nulls("value").group_by("metric").agg(pl.col("value").is_in([0.0, 1.0]).all())
    return sorted(zero_one.filter(pl.col("value"))["metric"])


def _first_run(rows: pl.DataFrame, sample: bool) -> pl.DataFrame:
    """The rows of each arm's lowest seed, and with `sample` of its lowest sample only."""
    rows = rows.filter(pl.col("seed") == pl.col("seed").min().over("arm"))
    return rows.filter(pl.col("sample") == pl.col("sample").min().over("arm")) if sample else rows


def _values(scores: pl.DataFrame, arms: Sequence[str]) -> dict[str, dict[str, float]]:
    """arm -> example -> mean over items, without examples that could not be scored."""
    means = scores.drop_nulls("value").group_by("arm", "example_id").agg(pl.col("value").mean())
    values: dict[str, dict[str, float]] = {arm: {} for arm in arms}
    for arm, example_id, value in means.rows():
        if arm in values:
            values[arm][example_id] = value
    return values


def _outcomes(left: Mapping[str, float], right: Mapping[str, float], direction: int) -> dict[str, list[str]]:
    outcomes: dict[str, list[str]] = {key: [] for key in OUTCOMES}
    for example_id in sorted(set(left) & set(right)):
        gap = (left[example_id] - right[example_id]) * direction
        near = abs(gap) <= 1e-9 * max(1.0, abs(left[example_id]))
        outcomes["tied" if near else "won" if gap > 0 else "lost"].append(example_id)
    return outcomes


def _stratified(outcomes: Mapping[str, list[str]], eval_name: str) -> dict[str, list[str]]:
    """Outcome -> ids in the order of their hash, at most PER_PAIR in all."""
    shares = dict.fromkeys(OUTCOMES, 0)
    unassigned = PER_PAIR
    for place, key in enumerate(sorted(OUTCOMES, key=lambda key: len(outcomes[key]))):
        shares[key] = min(len(outcomes[key]), unassigned // (len(OUTCOMES) - place))
        unassigned -= shares[key]
    return {
        key: sorted(outcomes[key], key=lambda i: hashlib.sha256(f"{eval_name} {i}".encode()).digest())[: shares[key]]
        for key in OUTCOMES
    }


def _examples(
    tables: Mapping[str, pl.DataFrame],
    scores: pl.DataFrame,
    eval_name: str,
    asks: str,
    arms: Sequence[str],
    example_ids: Sequence[str],
    texts: dict[str, int],
) -> dict[str, dict[int, dict[str, Any]]]:
    """example -> position of the arm -> its prompt (index into `texts`, which grows), responses and values.

    A dialogue with more responses than the scored one has `others`, the first OTHERS of them with their prompts, and
    `left_out`, how many more there are. A dialogue in an environment may have a `state`. A text that was composed of
    several responses has no prompt of its own, and is shown with the prompt of the first response."""

    def text(content: str | None) -> int:
        return texts.setdefault((content or "")[: LONGEST + 1], len(texts))

    rows = tables["generations"].filter((pl.col("eval") == eval_name) & pl.col("example_id").is_in(list(example_ids)))
    rows = _first_run(rows, sample=asks == "generate")
    rows = rows.join(
        tables["prompts"].unique("prompt_sha256").select("prompt_sha256", "prompt"), "prompt_sha256", "left"
    )
    position = {arm: i for i, arm in enumerate(arms)}
    examples: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows.sort("example_id", "arm", "turn", "sample", maintain_order=True).iter_rows(named=True):
        if row["arm"] not in position:
            continue
        side = examples.setdefault(row["example_id"], {}).setdefault(
            position[row["arm"]], {"prompt": text(row["prompt"]), "responses": [], "values": []}
        )
        response = {"text": text(row["response"])}
        response |= {key: row[key] for key in ("finish_reason", "error") if row[key]}
        if not row["final"]:
            others = side.setdefault("others", [])
            if len(others) < OTHERS:
                others.append({**response, "prompt": text(row["prompt"])})
            else:
                side["left_out"] = side.get("left_out", 0) + 1
            continue
        if row["prompt"] is not None:
            side["prompt"] = text(row["prompt"])
        elif row["error"] is None:
            response["composed"] = True
        if asks == "loglikelihood" and row["logprob_sum"] is not None:
            response["logprob"] = round(row["logprob_sum"], 4)
        if row["state"] is not None:
            side["state"] = text(row["state"])
        side["responses"].append(response)
    shown = scores.filter(pl.col("example_id").is_in(list(example_ids))).sort("example_id", "arm", "metric", "item")
    for row in shown.iter_rows(named=True):
        arm_side = examples.get(row["example_id"], {}).get(position.get(row["arm"], -1))
        if arm_side is not None:
            value = None if row["value"] is None else float(f"{row['value']:.6g}")
            arm_side["values"].append([row["metric"], row["item_label"], value, row["status"]])
    return examples
