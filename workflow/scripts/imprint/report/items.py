"""What the report's browser shows of examples: the question, the reference, and each arm's responses with their values.

One list holds every text of a block of examples once. An example refers to a text by the text's place in the list."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from imprint.policies import answers
from imprint.report.facts import Eval, Spec
from imprint.runtime import plugins

LONGEST = 6_000  # characters of a text; a longer text is cut, and says so
READ_OF_RESPONSES = (
    "rank",
    "arm",
    "final",
    "prompt",
    "response",
    "finish_reason",
    "error",
    "response_tokens",
    "answer_tokens",
    "logprob_sum",
    "state",
)
READ_OF_SCORES = ("rank", "arm", "metric", "item", "item_label", "value", "status")
OTHERS = 8  # at most so many responses of a dialogue are shown beside the scored one


class Texts:
    """The distinct texts of a block, in the order of their first use."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def place(self, text: str | None) -> int:
        """The place of a text in the list. None counts as the empty text."""
        shown = text or ""
        if len(shown) > LONGEST:
            shown = f"{shown[:LONGEST]}\n[cut here after {LONGEST} characters; the tables hold all of it]"
        return self.places.setdefault(shown, len(self.places))


def block(facts: Spec, ev: Eval, rows: pl.DataFrame, responses: pl.DataFrame, scores: pl.DataFrame) -> dict[str, Any]:
    """`texts` and `items`, an item for each of `rows` (columns rank, question, reference), in their order. `responses`
    and `scores` are those of the first run of each arm, with the column `rank`; `responses` also has the column
    `prompt`. The `sides` of an item are keyed by the position of the arm."""
    texts = Texts()
    items = {row["rank"]: _item(ev, row, texts) for row in rows.iter_rows(named=True)}
    arms = {arm.name: (position, arm) for position, arm in enumerate(facts.arms)}
    reads_answer = ev.scorer is None or plugins.load("scores", ev.scorer.name).READS == "answer"
    responses = responses.sort("rank", "arm", "turn", "sample", maintain_order=True)
    for row in responses.select(READ_OF_RESPONSES).iter_rows(named=True):
        position, arm = arms[row["arm"]]
        side = items[row["rank"]]["sides"].setdefault(
            position, {"prompt": texts.place(row["prompt"]), "responses": [], "values": []}
        )
        contexts = arm.contexts if ev.score and reads_answer and ev.asks != "loglikelihood" else []
        _add(side, row, contexts, texts)
    for row in scores.sort("rank", "arm", "metric", "item").select(READ_OF_SCORES).iter_rows(named=True):
        side = items[row["rank"]]["sides"].get(arms[row["arm"]][0])
        if side is not None:
            value = None if row["value"] is None else float(f"{row['value']:.6g}")
            side["values"].append([row["metric"], row["item"], row["item_label"], value, row["status"]])
    listed = list(texts.places)
    if ev.scorer is not None:
        for row in rows.iter_rows(named=True):
            _add_faults(items[row["rank"]], row, ev.scorer.name, listed)
    return {"texts": listed, "items": list(items.values())}


def _item(ev: Eval, row: Mapping[str, Any], texts: Texts) -> dict[str, Any]:
    """An example without its sides. `required` says in words what each item of the verdicts asks for. `right` is the
    number of the right option, where the reference names one."""
    item: dict[str, Any] = {"sides": {}}
    if row["question"] is not None:
        item["question"] = texts.place(row["question"])
    reference = None if row["reference"] is None else json.loads(row["reference"])
    if reference is not None:
        shown = reference if isinstance(reference, str) else json.dumps(reference, ensure_ascii=False, indent=1)
        item["reference"] = texts.place(shown)
        if ev.asks == "loglikelihood" and isinstance(reference, dict) and isinstance(reference.get("answer"), int):
            item["right"] = reference["answer"]
        if ev.scorer is not None:
            required = plugins.load("scores", ev.scorer.name).required({"reference": reference})
            item["required"] = [texts.place(words) for words in required]
    return item


def _add(side: dict[str, Any], row: Mapping[str, Any], contexts: list[plugins.Plug], texts: Texts) -> None:
    """Add a response to an arm's side. Where a dialogue has responses beside the scored one, `others` holds the first
    OTHERS of these with their prompts, and `left_out` says how many more there are. A text that was composed of several
    responses has no prompt of its own, and is shown with the prompt of the first response. Where only a part of a
    response is scored, `before` and `after` hold what stands around this part."""
    ending = {key: row[key] for key in ("finish_reason", "error") if row[key]}
    if not row["final"]:
        others = side.setdefault("others", [])
        if len(others) < OTHERS:
            others.append({"text": texts.place(row["response"]), "prompt": texts.place(row["prompt"]), **ending})
        else:
            side["left_out"] = side.get("left_out", 0) + 1
        return
    if contexts and row["error"] is None:
        before, scored, after = _parts(row["response"] or "", contexts)
        response: dict[str, Any] = {"text": texts.place(scored), **ending}
        response |= {name: texts.place(part) for name, part in (("before", before), ("after", after)) if part.strip()}
    else:
        response = {"text": texts.place(row["response"]), **ending}
    if row["prompt"] is not None:
        side["prompt"] = texts.place(row["prompt"])
    elif row["error"] is None:
        response["composed"] = True
    for key, column in (("tokens", "response_tokens"), ("answer_tokens", "answer_tokens")):
        if row[column] is not None:
            response[key] = row[column]
    if row["logprob_sum"] is not None:
        response["logprob"] = round(row["logprob_sum"], 4)
    if row["state"] is not None:
        side["state"] = texts.place(row["state"])
    side["responses"].append(response)


def _add_faults(item: dict[str, Any], row: Mapping[str, Any], scorer: str, texts: list[str]) -> None:
    """Add `faults` to each side that has a single response: where the response fails, as [start, end] in UTF-16 units,
    in which the page's script counts."""
    if row["reference"] is None:
        return
    find, reference = plugins.load("scores", scorer).faults, {"reference": json.loads(row["reference"])}
    for side in item["sides"].values():
        failed = sorted({place for _, place, _, value, _ in side["values"] if value == 0 and place is not None})
        if not failed or len(side["responses"]) != 1:
            continue
        text = texts[side["responses"][0]["text"]]
        spans = sorted({span for place in failed for span in find(reference, place, text)})
        if spans:
            side["faults"] = [[_units(text[:end]) for end in span] for span in spans]


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _parts(response: str, contexts: list[plugins.Plug]) -> tuple[str, str, str]:
    """(text before the answer, the answer that the contexts find in a response, text after the answer). If the answer
    is no part of the response, the complete response stands before it."""
    answer, _ = answers.answer(contexts, response)
    start = response.rfind(answer)
    if start < 0:
        return response, answer, ""
    return response[:start], answer, response[start + len(answer) :]
