"""Contexts: what is asked, what is scored, what is trained on."""

from __future__ import annotations

import pytest

from asking import drive
from imprint.contexts import instruction, plain, role_play, self_role
from imprint.policies import answers
from imprint.policies.dialogue import Request
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.tables.inputs import Read

QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
OPTIONS = ("dust", "light")


def turns(module, messages, settings=None, **how):
    """A context at work on messages."""
    return module.turns(Request(messages, **how), {}, settings or module.Settings(), Read())


def test_plain_asks_what_the_example_asks():
    for options in ((), OPTIONS):
        (request,) = drive(turns(plain, QUESTION, options=options))
        assert request == Request(QUESTION, options=options) and request.prefill == ""


def test_role_play_puts_two_rounds_before_the_question_and_after_a_system_turn():
    settings = role_play.Settings(role="You are a physicist.", feedback="I am.")
    system = {"role": "system", "content": "Be brief."}
    (request,) = drive(turns(role_play, [system, *QUESTION], settings))
    assert [m["role"] for m in request.messages] == ["system", "user", "assistant", "user"]
    assert [m["content"] for m in request.messages] == [
        "Be brief.",
        "You are a physicist.",
        "I am.",
        "Why is the sky blue?",
    ]
    (request,) = drive(turns(role_play, QUESTION, options=OPTIONS))
    assert [m["role"] for m in request.messages] == ["user", "assistant", "user"] and request.options == OPTIONS


@pytest.mark.parametrize("module", [plain, role_play, self_role])
@pytest.mark.parametrize("options", [(), OPTIONS])
def test_plain_text_has_no_context(module, options):
    (request,) = drive(turns(module, [], options=options))
    assert request.messages == [] and request.prefill == "" and request.options == options


def test_self_role_generates_in_one_pass():
    (request,) = drive(turns(self_role, QUESTION, self_role.Settings(role_tokens=7)))
    assert request == Request(QUESTION, opening="[Answer]", before=7) and request.prefill == ""


def test_self_role_writes_the_role_before_options_are_scored():
    steps = turns(self_role, QUESTION, self_role.Settings(role_tokens=7), options=OPTIONS)
    first, last = drive(steps, " You are a physicist.\n")
    assert (first.options, first.prefill, first.stop, first.max_new_tokens) == ((), "[Role]", ("[Answer]",), 7)
    assert (first.temperature, first.top_p) == (0.0, 1.0), "greedy"
    assert last.options == OPTIONS and last.prefill == "[Role] You are a physicist.\n[Answer] "


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("[Role] You are a cook.\n[Answer] Salt.", ("Salt.", True)),
        ("[Role] A.\n[Answer] Use [Answer] twice.", ("Use [Answer] twice.", True)),
        ("[Role][Answer] x", ("x", True)),
        ("[Role] A.\n[Answer]", ("", True)),
        ("Salt.", ("Salt.", False)),
        ("", ("", False)),
    ],
)
def test_self_role_splits_at_the_first_delimiter(response, expected):
    assert self_role.answer(response, self_role.Settings()) == expected


def dialogue(role="You are a cook.", answers=("Salt.", "Pepper.")):
    messages = [m for a in answers for m in ({"role": "user", "content": "What?"}, {"role": "assistant", "content": a})]
    return {"example_id": "abc-0", "messages": messages, "fields": {} if role is None else {"role_prompt": role}}


def test_self_role_target_puts_the_role_on_the_first_assistant_turn_only():
    row = dialogue()
    messages = self_role.target(row, self_role.Settings())
    assert messages[1]["content"] == "[Role] You are a cook.\n[Answer] Salt."
    assert messages[3]["content"] == "Pepper."
    assert row == dialogue(), "the row itself is left alone"
    cut = [dict(m, content=m["content"].removeprefix("[Role] You are a cook.\n[Answer] ")) for m in messages]
    assert cut == plain.target(row, plain.Settings()), "without the role block it is the plain target"
    assert self_role.answer(messages[1]["content"], self_role.Settings()) == ("Salt.", True)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (dialogue(role=None), "no role prompt"),
        (dialogue(role="  "), "no role prompt"),
        (dialogue(role="You [Answer] all."), r"\[Answer\]"),
        (dialogue(answers=("See [Role] here.",)), r"\[Role\]"),
        ({**dialogue(), "messages": QUESTION}, "no assistant turn"),
    ],
)
def test_self_role_target_refuses_rows_by_name(row, said):
    with pytest.raises(ImprintError, match=f"abc-0.*{said}"):
        self_role.target(row, self_role.Settings())


def test_role_play_target_keeps_the_role_in_the_context():
    messages = role_play.target(dialogue(), role_play.Settings())
    assert [m["role"] for m in messages] == ["user", "assistant"] * 3


SELF, PLAN, PLAIN = Plug(name="self_role"), Plug(name="prior_prompt", settings={"style": "plan"}), Plug(name="plain")


@pytest.mark.parametrize(
    ("contexts", "response", "expected", "rewarded"),
    [
        ([], "Salt.", ("Salt.", True), "Salt."),
        ([PLAIN, SELF], "[Role] A.\n[Answer] Salt.", ("Salt.", True), "Salt."),
        # The last context is the nearest to the model, so it reads the response first.
        ([PLAN, SELF], "[Role] A.\n[Answer] <plan>B.</plan>\n<answer>5</answer>", ("5", True), "5"),
        ([SELF, PLAN], "<plan>B.</plan>\n<answer>[Role] A.\n[Answer] 5</answer>", ("5", True), "5"),
        ([PLAN, SELF], "<plan>B.</plan>\n<answer>5</answer>", ("5", False), "5"),
        ([PLAN, SELF], "[Role] A.\n[Answer] <answer>5", ("5", False), ""),
        ([SELF, PLAN], "[Role] A.\n[Answer] 5", ("5", False), ""),
    ],
)
def test_the_answer_under_a_chain_of_contexts(contexts, response, expected, rewarded):
    assert answers.answer(contexts, response) == expected
    assert answers.rewarded("answer", contexts, response) == rewarded


def test_the_form_that_a_chain_of_contexts_asks_for():
    think = Plug(name="prior_prompt", settings={"style": "think"})
    none = Plug(name="prior_prompt", settings={"style": "none"})
    assert answers.form([]) is None and answers.form([PLAIN, SELF]) is None
    assert answers.form([PLAN, PLAIN]) == answers.form([PLAN, none]) == "plan"
    assert answers.form([PLAN, think]) == "think"


def test_an_instruction_stands_behind_the_last_user_turn():
    settings = instruction.Settings(text="Be brief.")
    said = [*QUESTION, {"role": "assistant", "content": "Light."}, {"role": "user", "content": "Why?"}]
    (request,) = drive(turns(instruction, said, settings))
    assert [m["content"] for m in request.messages] == ["Why is the sky blue?", "Light.", "Why? Be brief."]
    assert said[-1]["content"] == "Why?", "the example itself is as it was"
    (plain_text,) = drive(turns(instruction, [], settings, prefill="Light", options=OPTIONS))
    assert plain_text == Request([], prefill="Light", options=OPTIONS)
    with pytest.raises(ImprintError, match="no user turn to which it could be added"):
        drive(turns(instruction, [{"role": "system", "content": "x"}], settings))
