"""Prior prompts: one skeleton, one template for training and prompting, and a form that never gates the answer."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

import pico
from asking import drive
from imprint.config import graph, loading
from imprint.contexts import plain, prior_prompt
from imprint.models import model_files
from imprint.policies import answers
from imprint.policies.dialogue import Request
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.tables.inputs import Read

STYLES = ("think", "plan", "code", "knowledge", "examples")
QUESTION = [{"role": "user", "content": "What is 2 + 3?"}]


def settings(style: str, **given):
    return prior_prompt.Settings(style=style, **given)


def turns(messages, settings, **how):
    """The context at work on messages."""
    return prior_prompt.turns(Request(messages, **how), {}, settings, Read())


def rewarded(text: str, style: str) -> str:
    """What a reward reads under this one context."""
    return answers.rewarded("answer", [Plug(name="prior_prompt", settings={"style": style})], text)


def test_the_styles_differ_in_clause_and_tag_only():
    for boxed in (False, True):
        texts = {style: prior_prompt.prompt(settings(style, boxed=boxed)) for style in STYLES}
        for style, text in texts.items():
            assert text.count(f"<{style}>") == text.count(f"</{style}>") == text.count("<answer>") == 1
            assert ("\\boxed{}" in text) == boxed
            bare = text.replace(f"<{style}>", "<x>").replace(f"</{style}>", "</x>")
            assert bare.replace(prior_prompt.CLAUSES[style], "...") == texts["think"].replace("<think>", "<x>").replace(
                "</think>", "</x>"
            ).replace(prior_prompt.CLAUSES["think"], "...")


def test_the_styles_are_of_like_length(tmp_path: Path):
    tokenizer = model_files.load_tokenizer(pico.make(tmp_path / "pico"))
    words = {style: len(prior_prompt.prompt(settings(style)).split()) for style in STYLES}
    for one, two in combinations(STYLES, 2):
        assert abs(words[one] - words[two]) <= 3, words
    # Bytes differ with the tag's length alone; every real tokenizer merges more than this one.
    size = {s: len(tokenizer(prior_prompt.CLAUSES[s])["input_ids"]) for s in STYLES}
    assert max(size.values()) - min(size.values()) <= 10, size


def test_the_prompt_stands_before_the_first_user_turn():
    system = {"role": "system", "content": "Be brief."}
    (request,) = drive(turns([system, *QUESTION], settings("plan")))
    text = prior_prompt.prompt(settings("plan"))
    assert request.messages == [system, {"role": "user", "content": f"{text}\n\nWhat is 2 + 3?"}]
    assert request.prefill == "" and request.stop == () and request.options == ()


def test_no_style_is_no_prompt():
    (request,) = drive(turns(QUESTION, settings("none")))
    assert request.messages == QUESTION and prior_prompt.prompt(settings("none")) == ""
    for text in ("<answer>5</answer>", "five", ""):
        assert prior_prompt.answer(text, settings("none")) == (text, True)
        assert rewarded(text, "none") == text
    row = {"example_id": "a-0", "messages": QUESTION}
    assert prior_prompt.target(row, settings("none")) == plain.target(row, plain.Settings())


def test_plain_text_layout_for_base_models():
    (request,) = drive(turns(QUESTION, settings("code", layout="text")))
    text = prior_prompt.prompt(settings("code"))
    assert request.messages == [] and request.stop == ("\nUser:",)
    assert request.prefill == f"User: {text}\n\nWhat is 2 + 3?\nAssistant:"
    with pytest.raises(ImprintError, match="layout: chat"):
        prior_prompt.target({"example_id": "a-0", "messages": QUESTION}, settings("code", layout="text"))


def test_options_are_scored_behind_the_first_part():
    steps = turns(QUESTION, settings("plan", first_part_tokens=9), options=("5", "6"))
    first, last = drive(steps, " Add them. ")
    assert (first.options, first.prefill, first.max_new_tokens) == ((), "<plan>", 9)
    assert first.stop == ("</plan>", "<answer>") and (first.temperature, first.top_p) == (0.0, 1.0)
    assert last.options == ("5", "6") and last.prefill == "<plan> Add them.</plan>\n<answer>"
    assert last.messages == first.messages


@pytest.mark.parametrize("options", [(), ("5", "6")])
def test_a_text_without_messages_stays_as_it_is(options):
    (request,) = drive(turns([], settings("think"), options=options))
    assert request == Request([], options=options) and request.prefill == ""


@pytest.mark.parametrize(
    ("response", "text", "form", "trained"),
    [
        ("<plan>Add.</plan>\n<answer> 5 </answer>", "5", True, "5"),
        ("The result is 5.", "The result is 5.", False, ""),
        ("<plan>Add.</plan> 5", "<plan>Add.</plan> 5", False, ""),
        ("<plan>Add. <answer>5</answer>", "5", False, "5"),
        ("<answer>4</answer> or <answer>5</answer>", "5", False, "5"),
        ("<plan>Add.</plan><answer>5", "5", False, ""),  # cut off: counts when tested, not while training
        ("<answer>5</answer><plan>Add.</plan>", "5", False, "5"),
        ("", "", False, ""),
    ],
)
def test_the_form_never_gates_the_answer(response, text, form, trained):
    assert prior_prompt.answer(response, settings("plan")) == (text, form)
    assert prior_prompt.rewarded(response, settings("plan")) == trained == rewarded(response, "plan")


WORDS = st.text(max_size=40).filter(lambda text: not any(mark in text for mark in ("<", ">")))


@given(st.sampled_from(STYLES), WORDS, WORDS)
@hypothesis_settings(max_examples=200, deadline=None)
def test_what_has_the_form_gives_its_answer_back(style, first, result):
    """The same answer in training and in tests, with the form that the reward judges; cut anywhere, it has it no more,
    and training reads an answer only once its block is closed."""
    whole = f"<{style}>{first}</{style}>\n<answer>{result}</answer>"
    assert prior_prompt.answer(whole, settings(style)) == (result.strip(), True)
    assert prior_prompt.rewarded(whole, settings(style)) == result.strip()
    for cut in range(len(whole)):
        assert not prior_prompt.answer(whole[:cut], settings(style))[1]
        assert prior_prompt.rewarded(whole[:cut], settings(style)) == ""


@given(st.sampled_from((*STYLES, "none")), st.text(), st.sampled_from(["chat", "text"]))
@hypothesis_settings(max_examples=200, deadline=None)
def test_every_question_stands_unchanged_behind_the_prompt(style, question, layout):
    asked = settings(style, layout=layout)
    (request,) = drive(turns([{"role": "user", "content": question}], asked))
    text = prior_prompt.prompt(asked)
    shown = request.messages[-1]["content"] if layout == "chat" else request.prefill
    assert shown.removeprefix("User: ").removesuffix("\nAssistant:") == (f"{text}\n\n{question}" if text else question)


def test_a_training_row_must_have_the_form():
    said = {"role": "assistant", "content": "<plan>Add.</plan><answer>5</answer>"}
    row = {"example_id": "a-0", "messages": [*QUESTION, said]}
    made = prior_prompt.target(row, settings("plan"))
    assert made[1] == said and made[0]["content"].endswith("\n\nWhat is 2 + 3?") and row["messages"][0] == QUESTION[0]
    with pytest.raises(ImprintError, match="example a-0: an assistant turn has no <think> part"):
        prior_prompt.target(row, settings("think"))


def test_settings_name_a_known_style():
    with pytest.raises(ValidationError):
        settings("dream")
    assert all(field.description for field in prior_prompt.Settings.model_fields.values())


def test_the_papers_arms_share_their_templates():
    found = loading.load([Path(__file__).parent.parent / "config/paper/ppe.yaml"])
    arms, math = found.arms, {"boxed": True}

    def reward(name):
        return [(term.name, term.settings.model_dump()) for term in arms[name].fit.settings.reward]

    for style in STYLES:
        ipe, ppe = arms[f"ipe_{style}"], arms[f"ppe_{style}"]
        assert ipe.fit is None and ppe.fit.context == ppe.apply.context == ipe.apply.context
        (context,) = ppe.fit.context
        assert context.settings.style == style and ppe.control == [f"ipe_{style}", "base"]
        assert reward(f"ppe_{style}") == [
            ("math", math),
            ("format", {"tag": style, "outside": False, "prefilled": False}),
        ]
    assert [name for name, _ in reward("no_prior")] == ["math"]
    (context,) = arms["no_prior"].fit.context
    assert context.settings.style == "none"
    # The prompt without its reward: all else as in ppe_think.
    alone, both = arms["ppe_think_accuracy"].fit, arms["ppe_think"].fit
    assert reward("ppe_think_accuracy") == [("math", math)] and alone.context == both.context
    same = {key: value for key, value in alone.settings.model_dump().items() if key != "reward"}
    assert same == {key: value for key, value in both.settings.model_dump().items() if key != "reward"}
    recipe = both.settings
    assert recipe.completions // recipe.updates_per_rollout == 512 and recipe.loss == "grpo"
    assert {"aime24", "amc23", "math500", "humaneval", "gpqa"} <= set(found.evals)
    assert found.evals["math500"].judge in arms and not graph.evals_of(found, found.evals["math500"].judge)


def test_the_papers_config_for_one_card(tmp_path: Path):
    """Its commented lines, taken as they stand in place of those above them."""
    lines = (Path(__file__).parent.parent / "config/paper/ppe.yaml").read_text(encoding="utf-8").splitlines()
    mark = next(i for i, line in enumerate(lines) if line.startswith("      # One 80 GB card"))
    own = [line.replace("# ", "", 1) for line in lines[mark + 1 : mark + 4]]
    (tmp_path / "one_card.yaml").write_text("\n".join([*lines[: mark - 2], *own, *lines[mark + 4 :]]), encoding="utf-8")
    full, one = (
        loading.load([path]).arms["ppe_code"].fit.settings.model_dump()
        for path in (Path(__file__).parent.parent / "config/paper/ppe.yaml", tmp_path / "one_card.yaml")
    )
    assert {key for key in full if full[key] != one[key]} == {"completion_tokens", "learning_rate", "lora"}
