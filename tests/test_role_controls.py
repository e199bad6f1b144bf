"""The controls of self-prompt tuning: a role that is given, left out, or replaced by other words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import asking
import generated
from asking import Scripted, drive
from conftest import one_fit
from imprint.config import loading
from imprint.contexts import given_role, self_role
from imprint.engines import Prompt, Response
from imprint.policies import answers
from imprint.policies.dialogue import Request
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Plug
from imprint.tables.inputs import Read
from scored import generation

QUESTION: list[Any] = [{"role": "user", "content": "Why is the sky blue?"}]


def controlled(before_answer: str, role: str, **how: Any) -> tuple[Request, Request]:
    settings = self_role.Settings.model_validate({"before_answer": before_answer, "role_tokens": 9})
    first, last = drive(self_role.turns(Request(QUESTION, **how), {}, settings, Read()), role)
    return first, last


@pytest.mark.parametrize("control", ["nothing", "filler"])
@pytest.mark.parametrize("options", [(), ("dust", "light")])
def test_the_model_writes_its_role_and_does_not_see_it(control: str, options: tuple[str, ...]) -> None:
    first, last = controlled(control, " You are a physicist.\n", options=options, max_new_tokens=30)
    whole, _ = controlled("role", " You are a physicist.\n", options=("dust", "light"))
    assert first == whole, "the same role is written as where it stays"
    assert (first.max_new_tokens, first.prefill, first.stop) == (9, "[Role]", ("[Answer]",))
    assert "physicist" not in last.prefill and last.options == options and last.messages == QUESTION
    assert (last.opening, last.before, last.max_new_tokens) == ("", 0, 30), "the answer has all of its tokens"
    before = "" if control == "nothing" else "[Role] This text stands here\n"
    assert last.prefill == f"{before}[Answer]" + (" " if options else "")


@given(st.text(), st.sampled_from(["nothing", "filler"]))
def test_the_filler_has_as_many_words_as_the_role(role: str, control: str) -> None:
    _, last = controlled(control, role)
    assert last.prefill.endswith("[Answer]")
    words = last.prefill.removesuffix("[Answer]").removeprefix("[Role]").split()
    assert len(words) == (len(role.split()) if control == "filler" else 0)
    assert set(words) <= set(self_role.FILLER.split())


def test_a_response_without_its_role_is_the_answer() -> None:
    for control in ("nothing", "filler"):
        plug = Plug(name="self_role", settings={"before_answer": control})
        assert answers.answer([plug], " Light scatters. [Answer]") == ("Light scatters. [Answer]", True)
    with pytest.raises(ImprintError, match="before_answer: filler is about asking; write it under `apply`"):
        self_role.target({"example_id": "a-0"}, self_role.Settings(before_answer="filler"))


# A role that is given.


def asked(messages: list[Any], row: dict[str, Any], inputs: Read | None = None, **settings: Any) -> Request:
    chosen = given_role.Settings(**settings)
    (request,) = drive(given_role.turns(Request(messages), row, chosen, inputs or Read()))
    return request


def test_the_rows_role_stands_before_the_question() -> None:
    row = {"example_id": "a-0", "fields": {"role_prompt": " You are a physicist.\n"}}
    system = {"role": "system", "content": "Be brief."}
    request = asked([system, *QUESTION, {"role": "assistant", "content": "Light."}], row)
    assert [message["content"] for message in request.messages] == [
        "Be brief.",
        "You are a physicist.\n\nWhy is the sky blue?",
        "Light.",
    ]
    assert asked([], {"example_id": "a-0", "fields": {}}) == Request([]), "plain text stays as it is"
    for fields in ({}, {"role_prompt": " "}, {"role_prompt": 3}):
        with pytest.raises(ImprintError, match=r"example a-0 has no role in fields\.role_prompt"):
            asked(QUESTION, {"example_id": "a-0", "fields": fields})
    with pytest.raises(ImprintError, match="no user turn"):
        asked([system], row)


def test_another_arms_role_is_that_of_the_same_example(tmp_path: Path) -> None:
    path = tmp_path / "g.parquet"
    rows = [
        generation("0-0", "[Role] You are a cook.\n[Answer] Salt. [Answer]"),
        generation("0-0", "[Role] Another sample.\n[Answer] Salt.", sample=1),
        generation("1-0", " You are a pilot.\n", final=False),
        generation("1-0", "dust", turn=1, finish_reason=None),
        generation("2-0", "No role at all."),
        generation("3-0", None, error="it does not fit", finish_reason=None),
        generation("4-0", "[Role][Answer] Salt."),
        generation("5-0", "<plan>B</plan><answer>[Role] You are a nurse.\n[Answer] 5</answer>"),
    ]
    parquet.write(path, "generations", rows)
    inputs = Read(runs={("writer", "open"): path})

    def role(example: str) -> str:
        row = {"example_id": example, "fields": {"role_prompt": "The row's own."}}
        (message,) = asked(QUESTION, row, inputs, arm="writer", eval="open").messages
        return message["content"].removesuffix("\n\nWhy is the sky blue?")

    assert [role(f"{i}-0") for i in (0, 1, 5)] == ["You are a cook.", "You are a pilot.", "You are a nurse."]
    for missing in ("2-0", "3-0", "4-0", "9-0"):
        with pytest.raises(ImprintError, match=f"example {missing}: 'writer' wrote no role for it on 'open'"):
            role(missing)


def test_what_it_reads() -> None:
    assert given_role.inputs(given_role.Settings()) == Inputs()
    named = given_role.Settings(arm="writer", eval="open")
    assert given_role.inputs(named) == Inputs(runs=(("writer", "open"),))
    for half in ({"arm": "writer"}, {"eval": "open"}):
        with pytest.raises(ValidationError, match="arm and eval belong together"):
            given_role.Settings(**half)


def test_the_job_keeps_the_role_that_was_left_out(tmp_path: Path) -> None:
    """Its tokens are those of the context, and the answer's are the answer's."""

    def says(prompt: Prompt) -> Response:
        text = " You are a cook.\n" if prompt.text.endswith("[Role]") else " Salt."
        return Response(text, "stop", 9, 5, -1.0, 0.1, answer_tokens=5)

    engine = Scripted(says)
    data = asking.questions(tmp_path / "d.parquet", ["What?"])
    contexts = [Plug(name="self_role", settings={"before_answer": "filler"})]
    with pytest.MonkeyPatch.context() as patch:
        how = {"engine": engine.as_plugin(patch), "contexts": contexts}
        role, answer = asking.generate(asking.paper(tmp_path), data, tmp_path, **how)[0]
    assert (role["response"], role["final"], role["turn"]) == (" You are a cook.\n", False, 0)
    assert (answer["response"], answer["final"], answer["turn"]) == (" Salt.", True, 1)
    assert [one.max_new_tokens for one in engine.asked if isinstance(one, Prompt)] == [192, 8]


def test_a_config_whose_arm_is_given_another_arms_roles() -> None:
    given = {"parent": "base", "apply": {"context": {"given_role": {"arm": "tuned", "eval": "forms"}}}}
    raw = loading.merge(
        one_fit(),
        {
            "datasets": {"forms": {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"}},
            "evals": {"forms": {"dataset": "forms", "score": "ifeval"}},
            "arms": {"tuned": {"apply": {"context": "self_role"}}, "given": given},
            "seeds": [3, 5],
        },
    )
    generate = generated.plan(raw)["generate"]
    runs = {(job.arm, job.seed): generate.inputs(job)["runs"] for job in generate.jobs() if job.eval == "forms"}
    assert runs["given", 5] == ["results/generations/tuned/seed5/forms.parquet"], "once for each seed of the writer"
    raw["arms"]["given"]["apply"]["context"]["given_role"]["arm"] = "tune"
    with pytest.raises(ImprintError, match=r"arms\.given\.apply: no arm named 'tune'; did you mean 'tuned'"):
        loading.parse(raw)
