"""Behaviours by rules, on rows that were labelled by hand."""

from __future__ import annotations

import time

import polars as pl
import pytest
from pydantic import ValidationError

from imprint import charts, config, tables
from imprint.charts import behaviours as chart
from imprint.scores import behaviours

# Text, and the behaviours that a reader sees in it.
LABELLED = [
    ("The answer is 12.", set()),
    ("", set()),
    ("Rain forms when warm air rises and cools.", set()),
    ("I checked in at the hotel, and my friend waited.", set()),
    ("A house has windows, and a step leads to its door.", set()),
    ("3 * 4 = 12. Let me check: 12 / 4 = 3.", {"verification"}),
    ("Verifying this, we find 7.", {"verification"}),
    ("I will double-check the sum.", {"verification"}),
    ("Plug it back into the equation.", {"verification"}),
    ("Wait, that is wrong. 5 + 8 is 13.", {"backtracking"}),
    ("This doesn't work. Instead, let us factor it.", {"backtracking"}),
    ("Hmm, let me try another way.", {"backtracking"}),
    ("First, we find the area. Then we halve it.", {"subgoals"}),
    ("1. Boil water.\n2. Add the rice.", {"subgoals"}),
    ("The next step is to sort the list.", {"subgoals"}),
    ("Working backwards from 24, the last factor is 4.", {"backward_chaining"}),
    ("To get 24, we need a product of 6 and 4.", {"backward_chaining"}),
    ("Let me think. If it rains, that means the road is wet.", {"style_think"}),
    ("<think>It is odd.</think><answer>7</answer>", {"style_think"}),
    ("<plan>Add them.</plan><answer>7</answer>", {"style_plan"}),
    ("The plan is simple.", {"style_plan"}),
    ("Step 1: add them.", {"subgoals", "style_plan"}),
    ("```python\nprint(3)\n```", {"style_code"}),
    ("def area(r):\n    return r * r", {"style_code"}),
    ("Recall that a prime is greater than 1.", {"style_knowledge"}),
    ("A triangle is defined as three joined points.", {"style_knowledge"}),
    ("For example, 2 is prime.", {"style_examples"}),
    ("As in the first example, we add.", {"style_examples"}),
    ("Let me check: 3 * 4 = 12. That is wrong, so let me try 4 * 4.", {"verification", "backtracking"}),
]


@pytest.mark.parametrize(("text", "seen"), LABELLED)
def test_rules_see_what_a_reader_sees(text, seen):
    found = behaviours.score({}, text, behaviours.Settings())
    assert {verdict.metric for verdict in found if verdict.value} == seen
    assert [verdict.metric for verdict in found] == list(behaviours.METRICS)


@pytest.mark.parametrize(
    "text", ["1. a\n" * 100_000, "first we " * 100_000, "to get a, " * 90_000, "\n" * 1_000_000], ids=range(4)
)
def test_rules_are_bounded(text):
    start = time.process_time()
    behaviours.score({}, text, behaviours.Settings())
    assert time.process_time() - start < 2


def test_an_eval_takes_descriptions_that_judge_nothing():
    raw = {"dataset": "d", "score": "ifeval"}
    assert config.Eval.model_validate({**raw, "describe": ["behaviours"]}).describe[0].name == "behaviours"
    for wrong, said in (
        ({"describe": ["numeric"]}, "says what is better"),
        ({"describe": ["behaviours", "behaviours"]}, "stands twice"),
        ({"describe": ["behaviours"], "score": "options"}, "needs written responses"),
    ):
        with pytest.raises(ValidationError, match=said):
            config.Eval.model_validate({**raw, **wrong})


def test_the_heat_map_shows_shares_with_intervals():
    blank = dict.fromkeys(tables.SCHEMAS["summary"].names)
    rows = [
        {**blank, "arm": arm, "eval": "e", "metric": metric, "mean": 0.25, "ci_low": 0.1, "ci_high": 0.5, "n_scored": 8}
        for arm in ("base", "ppe")
        for metric in (*behaviours.METRICS, "prompt_strict")
    ]
    table = pl.DataFrame(rows, infer_schema_length=None)
    text = charts.svg(chart.chart({"summary": table}, ["base", "ppe"], ["e"]))
    assert text.count(">0.10 to 0.50<") == 18 and "backward chaining" in text and "prompt_strict" not in text
    assert chart.facts({"summary": table}) == {"arms": 2, "fewest": 8}
    assert chart.chart({"summary": table.head(0)}, ["base"], ["e"]) is None
