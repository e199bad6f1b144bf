"""Rewards: what each is worth, and that no response can hang or break them."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

import scored
from imprint.runtime import parquet, plugins, schemas
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.scores import LONGEST, math
from imprint.scores import format as form
from imprint.scoring import bounded, score_run, verification
from imprint.tables import dataset_rows
from imprint.training.rewards import Reward, Term

PLAN = Plug(name="prior_prompt", settings={"style": "plan", "boxed": True})
GOOD = "<plan>Add them.</plan>\n<answer>\\boxed{5}</answer>"


def reward(term, *contexts: Plug) -> Reward:
    return Reward(Term.model_validate(term), list(contexts))


# The rows of the note's reward table.
FORMS = [
    (GOOD, 1, 1),
    ("<plan>a</plan><answer>b</answer>", 1, 1),
    ("  <plan>\n\n</plan>  <answer></answer>\n", 1, 1),
    ("<plan>a</plan>", 0, 0),
    ("<answer>b</answer>", 0, 0),
    ("<think>a</think><answer>b</answer>", 0, 0),
    ("<answer>b</answer><plan>a</plan>", 0, 0),
    ("<plan>a<answer>b</answer></plan>", 0, 0),
    ("<plan>a</plan><plan>a</plan><answer>b</answer>", 0, 0),
    ("<plan>a</plan><answer>b</answer><answer>c</answer>", 0, 0),
    ("<plan>a<plan></plan><answer>b</answer>", 0, 0),
    ("<plan>a</plan></plan><answer>b</answer>", 0, 0),
    ("<plan>a</plan><answer>b</answer></answer>", 0, 0),
    ("<plan>a <answer>b</answer>", 0, 0),
    ("<plan>a</plan><answer>b", 0, 0),
    ("</plan>a<plan><answer>b</answer>", 0, 0),
    ("<plan>a</plan></answer>b<answer>", 0, 0),
    ("Sure: <plan>a</plan><answer>b</answer>", 0, 1),
    ("<plan>a</plan> so <answer>b</answer>", 0, 1),
    ("<plan>a</plan><answer>b</answer> Done.", 0, 1),
    ("<PLAN>a</PLAN><answer>b</answer>", 0, 0),
    ("", 0, 0),
]


@pytest.mark.parametrize(("text", "strict", "loose"), FORMS)
def test_form(text, strict, loose):
    assert form.well_formed(text, "plan") == bool(strict)
    assert form.well_formed(text, "plan", outside=True) == bool(loose)
    assert form.score({}, text, form.Settings(tag="plan"))[0].value == strict
    assert reward({"format": "plan"}, PLAN)(["p"], [text]) == [strict]


def test_a_prefilled_tag_is_put_back():
    settings = form.Settings(tag="plan", prefilled=True)
    for text, value in (("a</plan><answer>b</answer>", 1), (GOOD, 0), ("a<answer>b</answer>", 0)):
        assert form.score({}, text, settings)[0].value == value


@given(st.lists(st.sampled_from(["<plan>", "</plan>", "<answer>", "</answer>", "x", " "]), max_size=9))
@hypothesis_settings(max_examples=300, deadline=None)
def test_form_is_the_grammar(parts):
    """Against the grammar written as a regular expression."""
    import re

    text = "".join(parts)
    inner = r"(?:(?!</?(?:plan|answer)>)[\s\S])*"
    grammar = rf"\s*<plan>{inner}</plan>\s*<answer>{inner}</answer>\s*"
    assert form.well_formed(text, "plan") == bool(re.fullmatch(grammar, text))


# Accuracy 0.5 and form 0.5, as the paper's R.
@pytest.mark.parametrize(
    ("text", "right", "good"),
    [
        (GOOD, 1, 1),
        (GOOD.replace("5", "6"), 0, 1),
        ("<plan>a <answer>\\boxed{5}</answer>", 1, 0),
        ("<plan>a</plan><answer>5</answer>", 0, 1),
        ("<plan>\\boxed{5}</plan><answer>five</answer>", 0, 1),
        ("\\boxed{5}", 0, 0),
    ],
)
def test_accuracy_and_form_are_two_terms(text, right, good):
    columns = {"reference": ['{"answer": "5"}']}
    assert reward("math", PLAN)(["p"], [text], **columns) == [right]
    assert reward({"format": "plan"}, PLAN)(["p"], [text], **columns) == [good]


EQUAL = [
    ("0.5", "\\boxed{\\frac{1}{2}}", 1),
    ("\\frac{1}{2}", "thus \\boxed{0.5}.", 1),
    ("$33$", "\\boxed{33}", 1),
    ("033", "\\boxed{33}", 1),
    ("x+1", "\\boxed{1 + x}", 1),
    ("(1,2)", "\\boxed{(1, 2)}", 1),
    ("5", "first \\boxed{4}, no, \\boxed{5}", 1),
    ("\\frac{\\sqrt{3}}{2}", "\\boxed{\\frac{\\sqrt{3}}{2}}", 1),
    ("5", "\\boxed{6}", 0),
    ("5", "5", 0),
    ("5", "\\boxed{}", 0),
    ("5", "\\boxed{5", 0),
    ("5", "\\boxed{x}", 0),
]


@pytest.mark.parametrize(("gold", "text", "value"), EQUAL)
def test_answers_are_compared_as_mathematics(gold, text, value):
    (verdict,) = math.score({"reference": {"answer": gold}}, text, math.Settings())
    assert verdict.value == value


def test_a_final_formula_counts_only_where_that_is_allowed():
    row = {"reference": {"answer": "18"}}
    text = "She makes 9 * 2 = $18$."
    assert math.score(row, text, math.Settings())[0].unparsed
    assert math.score(row, text, math.Settings(boxed=False))[0].value == 1


def test_a_gold_that_cannot_be_read_is_null_and_a_missing_one_an_error():
    for text in ("\\boxed{1}", "none"):
        (verdict,) = math.score({"reference": {"answer": "$"}}, text, math.Settings())
        assert verdict.value is None
    assert reward("math")(["p"], ["\\boxed{1}"], reference=['{"answer": ""}']) == [None]
    with pytest.raises(ImprintError, match=r"reference\.answer: missing"):
        reward("math")(["p"], ["1"], reference=["{}"])


HOSTILE = [
    "\\boxed{" * 100_000,
    "\\boxed{" + "{" * 1_000_000,
    "\\boxed{9^{9^{9^{9^{9}}}}}",
    "\\boxed{\\sum_{n=1}^{10^{12}} \\frac{1}{n^2}}",
    "\\boxed{" + "(" * 900 + "}",
    "<plan>" * 200_000,
    "<answer>" * 150_000 + "</answer>" * 10,
    "a" * 1_000_000,
    "\ud800\udfff\x00 \\boxed{\ud800}",
    "".join(map(chr, range(1, 3000))),
    *("?!" * (size // 2) for size in (LONGEST, 1_000_000)),
    *("<plan>" + "A, " * (size // 3) for size in (LONGEST - 6, 1_000_000)),
]


def computed() -> float:
    """CPU seconds of this process and of the workers, those that were killed too."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for worker in bounded._workers.values():
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_response_takes_long_or_is_worth_anything(text):
    from imprint.datasets import reasoning_gym

    (puzzle,) = reasoning_gym.rows(reasoning_gym.Settings(task="chain_sum", n=1), {})
    references = {
        "math": {"answer": "3"},
        "format": {},
        "ifeval": {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["sea"]}]},
        "choice": {"options": ["a mop", "a fork"], "answer": 1},
        "reasoning_gym": puzzle["reference"],
    }
    for name, reference in references.items():
        columns = {"reference": [json.dumps(reference)]}
        asked = reward({"format": "plan"} if name == "format" else name, *([PLAN] if name == "math" else []))
        asked(["p"], [""], **columns)  # the process is there
        before = computed()
        assert asked(["p"], [text], **columns) == [0.0], name
        assert computed() - before < 2.0, name


@given(
    st.text(st.one_of(st.characters(exclude_categories=()), st.sampled_from('<>/ae3{}$"\\')), max_size=20),
    st.lists(st.sampled_from(["<plan>", "</plan>", "<answer>", "</answer>", "\\boxed{3}", "3", "B"]), max_size=6),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_reward_is_what_the_score_says_in_an_evaluation(noise, parts):
    """Any text, halves of characters too, is worth 0 or 1, and the same within and without the process."""
    text = noise + noise.join(parts)
    row = {
        "reference": {
            "answer": "3",
            "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
            "kwargs": [{}, {}],
        }
    }
    for term in ("ifeval", "math", {"format": "plan"}):
        asked = reward(term)
        module, settings = plugins.load("scores", asked.term.score), asked.term.settings
        (verdict,) = (v for v in module.score(row, text, settings) if v.metric == asked.term.metric)
        assert asked.value(row, text) == verdict.value and verdict.value in (0.0, 1.0)
        assert asked.failed == 0


def test_a_check_without_a_verdict_is_worth_nothing_and_stops_no_fit(monkeypatch):
    """A trainer that is given None ends."""

    def late(*_):
        raise bounded.Timeout("late")

    monkeypatch.setattr(verification, "verdicts", late)
    asked = reward("choice")
    assert asked.value({"reference": {}}, "A") == 0.0 and asked.failed == 1
    with pytest.raises(bounded.Timeout, match="late"):
        asked.verified({"reference": {}}, "A")


def test_a_metric_where_lower_is_better_is_no_reward(monkeypatch):
    """A trainer seeks what is high, and turns no sign. A metric that only describes may be a reward."""
    assert Term.model_validate("choice.chance").metric == "chance"
    said = r"lower is better in 'choice\.bad_rate', .*; write choice\.METRIC with one of: accuracy, chance, picked"
    with pytest.raises(ValidationError, match=said):
        Term.model_validate("choice.bad_rate")
    monkeypatch.setattr(plugins.load("scores", "numeric"), "METRICS", {"accuracy": -1})
    with pytest.raises(ValidationError, match=r"lower is better in 'numeric\.accuracy', .*; write another score"):
        Term.model_validate("numeric")


def test_a_killed_process_is_replaced():
    assert bounded.call("math:sqrt", [4]) == 2
    start = time.perf_counter()
    with pytest.raises(bounded.Failure, match=r"did not answer within 0\.3 s"):
        bounded.call("time:sleep", [60], limit=0.3)
    assert time.perf_counter() - start < 30
    with pytest.raises(bounded.Failure):
        bounded.call("os:_exit", [1])
    with pytest.raises(bounded.Failure, match="ValueError"):
        bounded.call("math:sqrt", [-1])
    with pytest.raises(bounded.Failure, match="MemoryError"):
        bounded.call("builtins:bytearray", [1 << 34])
    assert bounded.call("math:sqrt", [9]) == 3
    assert bounded.call("builtins:print", ["noise"]) is None, "what is printed does not get between the replies"
    bounded.close()


def test_a_call_is_limited_by_the_time_it_computes():
    """In one piece of compiled code too; waiting for the processor costs nothing, and calls do not add up."""
    with pytest.raises(bounded.Failure, match=r"did not answer within 0\.3 s of CPU time"):
        bounded.call("re:fullmatch", ["(a*)*b", "a" * 60], limit=0.3)
    assert bounded.call("time:sleep", [0.5], limit=0.3) is None
    for _ in range(4):
        assert bounded.call("builtins:sum", [list(range(100_000))], limit=0.3) == 4999950000
    bounded.close()


def test_the_share_of_instructions_and_all_of_them():
    row = {"instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"], "kwargs": [{}, {}]}
    columns = {"reference": [json.dumps(row)] * 4}
    texts = ["there is no comma in this sentence", "There is one in this Sentence", "One, and two", ""]
    assert reward("ifeval.instruction_strict")(["p"] * 4, texts, **columns) == [1.0, 0.5, 0.0, 0.0]
    assert reward("ifeval")(["p"] * 4, texts, **columns) == [1.0, 0.0, 0.0, 0.0]
    assert reward("ifeval.instruction_strict").__name__ == "ifeval.instruction_strict"


def test_choices_and_verifiers_are_rewards_too():
    reference = json.dumps({"options": ["a mop", "a fork"], "answer": 1})
    assert reward("choice")(["p"] * 2, ["B", "A"], reference=[reference] * 2) == [1.0, 0.0]
    from imprint.datasets import reasoning_gym

    (row,) = reasoning_gym.rows(reasoning_gym.Settings(task="chain_sum", n=1), {})
    answer = row["reference"]["entry"]["answer"]
    columns = {"reference": [json.dumps(row["reference"])] * 2}
    assert reward("reasoning_gym.solved")(["p"] * 2, [f"<answer>{answer}</answer>", "no"], **columns) == [1.0, 0.0]


def test_dialogues_and_texts_are_the_same_to_a_reward():
    columns = {"reference": [{"answer": "5"}] * 2}
    said = [[{"role": "assistant", "content": "\\boxed{5}"}], [{"role": "assistant", "content": "\\boxed{4}"}]]
    assert reward("math")([[]] * 2, said, trainer_state=None, completion_ids=[[1], [2]], **columns) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("contexts", "text", "read"),
    [
        ([], "a", "a"),
        ([Plug(name="plain")], "a", "a"),
        ([Plug(name="self_role")], "[Role] x\n[Answer] a", "a"),
        ([PLAN], "<plan>x</plan><answer>a</answer>", "a"),
        ([PLAN], "a", ""),
        ([PLAN, Plug(name="self_role")], "[Role] x\n[Answer] <plan>y</plan><answer>a</answer>", "a"),
    ],
)
def test_what_a_term_reads(contexts, text, read):
    assert reward("math", *contexts).read(text) == read
    assert reward({"format": "plan"}, *contexts).read(text) == text


def test_a_score_of_the_whole_response_sees_it_in_evaluation_too(tmp_path):
    dataset_rows.write(tmp_path / "d.parquet", "d", [{"messages": [], "reference": {"answer": "5"}}], "0")
    (row,) = dataset_rows.read(tmp_path / "d.parquet")
    blank = dict.fromkeys(schemas.SCHEMAS["generations"].names)
    generation = {**blank, "arm": "a", "seed": 0, "eval": "e", "example_id": row["example_id"], "sample": 0, "turn": 0}
    generation |= {"final": True, "response": GOOD, "finish_reason": "stop", "response_tokens": 9}
    parquet.write(tmp_path / "g.parquet", "generations", [generation])
    for score, metric, value in (
        (Plug(name="format", settings={"tag": "plan"}), "well_formed", 1.0),
        (Plug(name="math"), "accuracy", 1.0),
    ):
        spec = score_run.Spec(
            arm="a",
            seed=0,
            eval="e",
            score=score,
            describe=[],
            contexts=[Plug(name="prior_prompt", settings={"style": "plan"})],
            limit=None,
        )
        found = {row["metric"]: row["value"] for row in scored.run(tmp_path, spec)}
        assert found[metric] == value and found["delimiter_missing"] == 0
