"""Behaviours by rules, on rows that were labelled by hand."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from imprint.charts import Eval, _drawing
from imprint.charts import behaviours as chart
from imprint.config import evals
from imprint.runtime import plugins, schemas
from imprint.scores import behaviours, judged_behaviours

EVALS = {"e": Eval()}
CAPTION = Path(__file__).parents[1] / "resources/captions/behaviours.md"

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
    ("The sum is 15. To verify this, count the apples again: 15.", {"verification"}),
    ("We should confirm that both roots are positive.", {"verification"}),
    ("The cheque was confirmed by the bank before noon.", set()),
    ("Actually, the train leaves at nine, not at eight, so the trip takes two hours.", {"backtracking"}),
    ("I made a mistake in the second line; the sign is negative.", {"backtracking"}),
    ("The waiter waits by the window and goes back to the kitchen.", set()),
    ("Part 1: find the radius. Part 2: find the volume.", {"subgoals"}),
    ("First, let us sort the names. Next, we remove the doubles.", {"subgoals"}),
    ("The first goal is to isolate x.", {"subgoals"}),
    ("Of the seven runners, the first one over the line won.", set()),
    ("Start from the answer: 24 is 6 times 4.", {"backward_chaining"}),
    ("To reach 100, you would need ten tens.", {"backward_chaining"}),
    ("He walked backwards out of the room.", set()),
    ("I wonder whether it is prime. So if it is odd, try 3.", {"style_think"}),
    ("Plan: add the costs, then divide by four.", {"style_plan"}),
    ("The plane lands on the plain.", set()),
    ("import math\nprint(math.pi)", {"style_code"}),
    ("The dress code asks for a tie.", set()),
    ("We know that light is faster than sound.", {"style_knowledge"}),
    ("Mercury is known as quicksilver.", {"style_knowledge"}),
    ("Do you remember the summer of that year?", set()),
    ("Fruit, e.g. apples, keeps well in a cool place.", {"style_examples"}),
    ("<examples>2 + 2 = 4</examples><answer>4</answer>", {"style_examples"}),
    ("Lead by example, and others will follow.", set()),
    (
        "Step 1: recall that 7 is prime. Step 2: check that it divides 42.",
        {"subgoals", "style_plan", "style_knowledge"},
    ),
]

# What a reader sees and no set phrase gives away: the rules miss it, which is why a judge may be asked as well.
MISSED = [
    ("12 / 4 = 3, and the question asks for 3. It fits.", {"verification"}),
    ("17 is odd. No: it has to be even, so 18.", {"backtracking"}),
    ("We need the area before the volume. The area is 9.", {"subgoals"}),
    ("Which two numbers end at 24? 4 and 6. Which give 6? 2 and 3.", {"backward_chaining"}),
    ("Water boils at 100 degrees, so at 90 it is still liquid.", {"style_knowledge"}),
]


@pytest.mark.parametrize(("text", "seen"), MISSED)
def test_rules_miss_what_no_set_phrase_gives_away(text, seen):
    found = behaviours.score({}, text, behaviours.Settings())
    assert seen and not any(verdict.value for verdict in found)


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


def test_an_eval_takes_descriptions_that_judge_nothing(monkeypatch):
    found = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, name: found(kind, "behaviours" if name == "copy" else name))
    raw = {"dataset": "d", "score": "ifeval"}
    assert evals.Eval.model_validate({**raw, "describe": ["behaviours"]}).describe[0].name == "behaviours"
    for wrong, said in (
        ({"describe": ["numeric"]}, "says what is better; add it to `score`"),
        ({"describe": ["behaviours", "behaviours"]}, "is written twice"),
        ({"describe": ["behaviours", "copy"]}, "has a metric that another score here has"),
        ({"describe": ["behaviours"], "score": "options"}, "needs written responses"),
    ):
        with pytest.raises(ValidationError, match=said):
            evals.Eval.model_validate({**raw, **wrong})


def test_the_heat_map_tells_rules_and_judge_apart():
    blank = dict.fromkeys(schemas.SCHEMAS["summary"].names)
    shown = {
        "mean": 0.25,
        "ci_low": 0.1,
        "ci_high": 0.5,
        "n_attempted": 8,
        "n_scored": 8,
        "n_unparsed": 0,
        "n_error": 0,
    }
    asked = {"mean": None, "n_attempted": 8, "n_scored": 0, "n_unparsed": 7, "n_error": 1}
    judged = {"base": {**shown, "mean": 0.75}, "ppe": asked}
    rows = [
        {**blank, "arm": arm, "eval": "e", "metric": metric, **(judged[arm] if metric.startswith("judged") else shown)}
        for arm in ("base", "ppe")
        for metric in (*behaviours.METRICS, *judged_behaviours.METRICS, "prompt_strict")
    ]
    table = pl.DataFrame(rows, infer_schema_length=None)
    text = _drawing.svg(chart.chart({"summary": table}, ["base", "ppe"], EVALS))
    assert text.count(">0.10 to 0.50<") == 27 and text.count(">0.75<") == 9 and text.count(">none scored<") == 9
    assert text.count(", by rules<") == text.count(", by judge<") == 9
    assert ">backward chaining, by rules<" in text and "prompt_strict" not in text
    facts = {"arms": 2, "fewest": 8, "asked": 144, "unparsed": 63, "failed": 9, "unjudged": False}
    assert chart.facts({"summary": table}) == facts
    assert "144 questions, of which 63" in _drawing.caption(CAPTION, facts)
    none = table.with_columns(n_attempted=pl.when(pl.col("metric").str.starts_with("judged")).then(0).otherwise(8))
    assert chart.facts({"summary": none})["unjudged"]
    assert ">not judged<" in _drawing.svg(chart.chart({"summary": none}, ["base", "ppe"], EVALS))
    only = table.filter(~pl.col("metric").str.starts_with("judged"))
    assert "by judge" not in _drawing.svg(chart.chart({"summary": only}, ["base", "ppe"], EVALS))
    assert "judge" not in _drawing.caption(CAPTION, chart.facts({"summary": only}))
    assert chart.chart({"summary": table.head(0)}, ["base"], EVALS) is None
    assert chart.ROWS.keys() == {*behaviours.METRICS, *judged_behaviours.METRICS}
