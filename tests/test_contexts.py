"""Contexts: what is asked, what is scored, what is trained on."""

from __future__ import annotations

import pytest

from imprint.contexts import plain, role_play, self_role
from imprint.errors import ImprintError

QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]


def drive(steps, *responses):
    """The requests that a context makes when it is sent `responses`."""
    requests = [next(steps)]
    for response in responses:
        requests.append(steps.send(response))
    with pytest.raises(StopIteration):
        steps.send("")
    return requests


def test_plain_asks_what_the_example_asks():
    (request,) = drive(plain.turns(QUESTION, plain.Settings()))
    assert request.messages == QUESTION and request.final and request.prefill == ""


def test_role_play_puts_two_rounds_before_the_question_and_after_a_system_turn():
    settings = role_play.Settings(role="You are a physicist.", feedback="I am.")
    system = {"role": "system", "content": "Be brief."}
    (request,) = drive(role_play.turns([system, *QUESTION], settings))
    assert [m["role"] for m in request.messages] == ["system", "user", "assistant", "user"]
    assert [m["content"] for m in request.messages] == [
        "Be brief.",
        "You are a physicist.",
        "I am.",
        "Why is the sky blue?",
    ]
    (request,) = drive(role_play.turns(QUESTION, role_play.Settings()))
    assert [m["role"] for m in request.messages] == ["user", "assistant", "user"]


@pytest.mark.parametrize("module", [plain, role_play, self_role])
@pytest.mark.parametrize("ask", ["generate", "loglikelihood"])
def test_plain_text_has_no_context(module, ask):
    (request,) = drive(module.turns([], module.Settings(), ask=ask))
    assert request.messages == [] and request.prefill == "" and request.final


def test_self_role_generates_in_one_pass():
    (request,) = drive(self_role.turns(QUESTION, self_role.Settings()))
    assert request.messages == QUESTION and request.final and request.prefill == ""


def test_self_role_writes_the_role_before_options_are_scored():
    steps = self_role.turns(QUESTION, self_role.Settings(role_tokens=7), ask="loglikelihood")
    first, last = drive(steps, " You are a physicist.\n")
    assert (first.final, first.prefill, first.stop, first.max_new_tokens) == (False, "[Role]", ("[Answer]",), 7)
    assert last.final and last.prefill == "[Role] You are a physicist.\n[Answer] "


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
