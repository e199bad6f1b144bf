"""Dialogues: how contexts, decoders and environments nest, and what each of them and the table receive."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asking
from asking import Scripted, asked, best_of, plugin, reviewed, said
from imprint.contexts import prior_prompt
from imprint.draws import seed_of
from imprint.engines import Candidates, Prompt, Response, failed
from imprint.policies.dialogue import Outcome, Request, Turns, chain, layer, one, single, step
from imprint.policies.policy import Draw, Policy
from imprint.policies.policy import start as start_policy
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug, Strict
from imprint.tables import dataset_rows
from imprint.tables.inputs import Read

ROLE = Plug(name="role_play", settings={"role": "You are a cook.", "feedback": "I am."})
SELF = Plug(name="self_role")
PLAN = Plug(name="prior_prompt", settings={"style": "plan"})
PLAN_PROMPT = prior_prompt.prompt(prior_prompt.Settings(style="plan"))
ROW = {"example_id": "a-0", "messages": [{"role": "user", "content": "Why?"}], "reference": "secret", "fields": {}}
TWO = ["Why?", "How?"]


def talk(turns: Turns, says: Callable[[Request], str] = lambda request: "yes") -> tuple[Outcome, list[list[Request]]]:
    """Take a dialogue to its end: its outcome, and its requests round by round."""
    rounds: list[list[Request]] = []
    answers: list[Outcome] | None = None
    while not isinstance(going := step(turns, answers), Outcome):
        rounds.append(going)
        answers = [Outcome.of(said(says(request))) for request in going]
    return going, rounds


def of(*rounds: list[Request], returned: Outcome | None = None) -> Turns:
    """A dialogue that asks round by round."""
    for requests in rounds:  # noqa: UP028  # a tuple cannot be sent anything
        yield requests
    return returned


def through(contexts: list[Plug], request: Request, says: Callable[[Request], str] = lambda request: "yes") -> Any:
    """What `talk` gives of a request that is put through contexts."""
    return talk(chain(one(request), [layer("contexts", plug, ROW, Read()) for plug in contexts]), says)


def contents(request: Request) -> list[str]:
    return [message["content"] for message in request.messages]


def guesses(row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
    """The turns of an environment that says no three times."""
    messages, tried = row["messages"], []
    for _ in range(3):
        (answer,) = yield [Request(messages)]
        tried.append(answer.text)
        no = [{"role": "assistant", "content": answer.text}, {"role": "user", "content": "No."}]
        messages = [*messages, *no]
    return Outcome(tried[-1], {"tried": tried, "secret": row["reference"]["options"][1]}, answer)


# Chains of contexts.


def test_two_contexts_that_change_the_prompt_do_so_in_order() -> None:
    outcome, ((prompt_first,),) = through([PLAN, ROLE], asked("Why?"))
    assert contents(prompt_first) == ["You are a cook.", "I am.", f"{PLAN_PROMPT}\n\nWhy?"] and outcome.text == "yes"
    _, ((role_first,),) = through([ROLE, PLAN], asked("Why?"))
    assert contents(role_first) == [f"{PLAN_PROMPT}\n\nYou are a cook.", "I am.", "Why?"]


def test_no_context_and_a_plain_one_are_the_same() -> None:
    request = asked("Why?", prefill="B", options=("a", "b"))
    for contexts in ([], [Plug(name="plain")], [Plug(name="plain")] * 3):
        assert through(contexts, request) == (Outcome.of(said("yes")), [[request]])


def test_a_context_of_two_requests_inside_and_outside_of_another() -> None:
    def says(request: Request) -> str:
        return {"[Role]": " a cook", "<plan>": "think"}.get(request.prefill, "")

    options = ("salt", "pepper")
    for contexts in ([SELF, ROLE], [ROLE, SELF]):
        _, ((first,), (last,)) = through(contexts, asked("Why?", options=options), says)
        assert contents(first) == contents(last) == ["You are a cook.", "I am.", "Why?"]
        assert (first.prefill, last.prefill) == ("[Role]", "[Role] a cook\n[Answer] ")
        assert (first.options, last.options) == ((), options)
    # Two of them: what the first one asks for is put through the second.
    outside, inside = (
        through(contexts, asked("Why?", options=options), says) for contexts in ([PLAN, SELF], [SELF, PLAN])
    )
    assert [[request.prefill for request in requests] for requests in outside[1]] == [
        ["<plan>"],
        ["[Role]"],
        ["[Role] a cook\n[Answer] <plan>think</plan>\n<answer>"],
    ]
    assert [[request.prefill for request in requests] for requests in inside[1]] == [
        ["[Role]"],
        ["<plan>"],
        ["<plan>think</plan>\n<answer>[Role] a cook\n[Answer] "],
    ]
    for _, rounds in (outside, inside):
        assert [request.options for (request,) in rounds] == [(), (), options], "options are carried through"


def test_a_context_inside_of_another_takes_part_in_each_of_its_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    review = plugin(monkeypatch, "contexts", "reviewed", turns=reviewed)
    counted = iter("abcd")
    outcome, rounds = through([review, review], asked("Why?"), lambda request: next(counted))
    assert [contents(request) for (request,) in rounds] == [
        ["Why?"],
        ["Why?", "a", "Improve it."],
        ["Why?", "b", "Improve it."],
        ["Why?", "b", "Improve it.", "c", "Improve it."],
    ]
    assert outcome.text == "d", "a layer without an outcome of its own leaves it to the one inside"


def test_a_context_sees_the_row_without_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []

    def turns(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        rows.append((row, inputs))
        yield [request]
        return None

    curious = plugin(monkeypatch, "contexts", "curious", turns=turns)
    drawing = plugin(monkeypatch, "decoders", "drawing", turns=turns)
    inputs = Read({"d": []})
    talk(Policy(Scripted(lambda prompt: ""), [curious], drawing, inputs).turns(ROW, asked("Why?")))
    single([curious], ROW, asked("Why?"), inputs)
    shown = {"example_id": "a-0", "messages": ROW["messages"], "fields": {}}
    assert rows == [(shown, inputs)] * 3


# Steps, outcomes, and ends.


def test_what_a_dialogue_returns_and_what_it_does_not() -> None:
    answer = said("yes")
    assert talk(of([asked("a")])) == (Outcome("yes", None, answer), [[asked("a")]])
    assert talk(of([asked("a")], returned=Outcome("no", 3)))[0] == Outcome("no", 3)
    assert talk(of(returned=Outcome("no request at all"))) == (Outcome("no request at all"), [])
    for layers in ([], [one], [one, one]):
        with pytest.raises(ImprintError, match="ended without a request"):
            talk(chain(of(), layers))
        with pytest.raises(ImprintError, match="went on without a request"):
            talk(chain(of([asked("a")], []), layers))
        with pytest.raises(ImprintError, match="ended after 2 responses at once without saying which one counts"):
            talk(chain(of([asked("a"), asked("b")]), layers))
        with pytest.raises(ImprintError, match="ended after 2 responses"):  # an inner dialogue
            talk(chain(one(asked("a")), [*layers, lambda request: of([request, request])]))
        assert talk(chain(of([asked("a"), asked("b")], [asked("c")]), layers))[0].text == "yes"


def test_an_inner_outcome_is_what_the_outer_layer_receives() -> None:
    received: list[Response] = []

    def outer() -> Turns:
        received.extend((yield [asked("a"), asked("b"), asked("c")]))
        return Outcome("done", "outer state")

    def inner(request: Request) -> Turns:
        (answer,) = yield [request]
        text = contents(request)[0]
        if text == "a":
            return None
        return Outcome("made up", "inner state", answer if text == "b" else None)

    outcome, _ = talk(chain(outer(), [inner]))
    assert outcome == Outcome("done", "outer state")
    assert received[0] == said("yes"), "the response as it is"
    assert received[1] == received[2] == Response("made up", "stop", None, None, None, 0.0)


def test_the_state_of_an_inner_layer_is_kept_where_the_outer_one_says_nothing() -> None:
    def inner(request: Request) -> Turns:
        (answer,) = yield [request]
        return Outcome("text", {"steps": 1}, answer)

    assert talk(chain(one(asked("a")), [one, inner]))[0].state == {"steps": 1}


def test_layers_that_ask_nothing() -> None:
    def cached(request: Request) -> Turns:
        return of(returned=Outcome(f"known {contents(request)[0]}"))

    def some(request: Request) -> Turns:
        return cached(request) if contents(request) == ["a"] else one(request)

    assert talk(chain(one(asked("a")), [cached])) == (Outcome("known a"), [])
    received: list[list[str | None]] = []

    def outer() -> Turns:
        for _ in range(2):
            received.append([answer.text for answer in (yield [asked("a"), asked("b")])])
        return Outcome("done")

    assert talk(chain(outer(), [some]))[1] == [[asked("b")]] * 2 and received == [["known a", "yes"]] * 2


def test_generators_are_closed_however_a_dialogue_ends() -> None:
    open_now: list[str] = []

    def watched(name: str, fails: bool = False) -> Callable[[Request], Turns]:
        def turns(request: Request) -> Turns:
            open_now.append(name)
            try:
                yield [request, request]
                if fails and open_now.count(name) == 1:
                    raise KeyError("mine")
                yield [request]
            finally:
                open_now.remove(name)
            return None

        return turns

    def nest(fails: bool = False) -> Turns:
        return chain(watched("outer")(asked("a")), [watched("middle"), watched("inner", fails)])

    talk(nest())
    assert not open_now
    closed = nest()
    assert len(step(closed, None)) == 8 and sorted(open_now) == ["inner"] * 4 + ["middle"] * 2 + ["outer"]
    closed.close()
    assert not open_now
    with pytest.raises(KeyError, match="mine"):
        talk(nest(fails=True))
    assert not open_now


# The property of every nest.


@given(st.integers(0, 2**32), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_a_layer_receives_the_responses_to_its_own_requests_in_order(seed: int, depth: int) -> None:
    """Random nests. A request's text is its place in the nest, so that each has another."""
    outcomes: dict[str, str] = {}
    open_now: set[str] = set()

    def counts(place: str) -> list[int]:
        """Requests of each round that the layer at a place makes."""
        chosen = random.Random(f"{seed}/{place}")
        return [chosen.randint(1, 3) for _ in range(chosen.randint(0 if "/" in place else 1, 3))]

    def work(request: Request) -> Turns:
        (place,) = contents(request)
        answers: list[Response] = []
        open_now.add(place)
        try:
            for number, count in enumerate(counts(place)):
                places = [f"{place}/{number}.{i}" for i in range(count)]
                answers = yield [asked(place) for place in places]
                assert [answer.text for answer in answers] == [outcomes[place] for place in places]
        finally:
            open_now.remove(place)
        if len(answers) == 1 and random.Random(f"{seed}:{place}").random() < 0.5:
            outcomes[place] = str(answers[0].text)
            return None
        outcomes[place] = f"the outcome at {place}"
        return Outcome(outcomes[place])

    def length(place: str, below: int) -> int:
        """Rounds that the engine is asked in, when the requests of a list are worked on side by side."""
        if below < 0:
            return 1
        return sum(
            max(length(f"{place}/{number}.{i}", below - 1) for i in range(count))
            for number, count in enumerate(counts(place))
        )

    def says(request: Request) -> str:
        (place,) = contents(request)
        assert place.count("/") == depth + 1 and place not in outcomes
        outcomes[place] = f"said at {place}"
        return outcomes[place]

    outcome, rounds = talk(chain(work(asked("top")), [work] * depth), says)
    assert outcome.text == outcomes["top"] and not open_now
    assert len(rounds) == length("top", depth)
    for requests in rounds:
        places = [contents(request)[0] for request in requests]
        assert places == sorted(places), "in the order of the nest"


# The one request that a fit takes.


def test_single_gives_the_request_and_refuses_others(monkeypatch: pytest.MonkeyPatch) -> None:
    request = single([PLAN, ROLE], ROW, asked("Why?"), Read())
    assert contents(request) == ["You are a cook.", "I am.", f"{PLAN_PROMPT}\n\nWhy?"]
    assert single([], ROW, asked("Why?"), Read()) == asked("Why?")
    closed = []

    def many(*rounds: int) -> Callable[..., Turns]:
        def turns(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
            try:
                for number in rounds:
                    yield [request] * number
            finally:
                closed.append(rounds)
            return Outcome("said") if 2 in rounds or not rounds else None

        return turns

    for rounds in ((1, 1), (2,), (1, 2), (2, 1)):
        name = f"many{'_'.join(map(str, rounds))}"
        context = plugin(monkeypatch, "contexts", name, turns=many(*rounds))
        with pytest.raises(ImprintError, match=f"context 'plain, {name}' makes more than one request; write another"):
            single([Plug(name="plain"), context], ROW, asked("Why?"), Read())
        assert closed.pop() == rounds and not closed
    silent = plugin(monkeypatch, "contexts", "silent", turns=many())
    with pytest.raises(ImprintError, match="context 'silent' makes no request"):
        single([silent], ROW, asked("Why?"), Read())
    with pytest.raises(ImprintError, match="'self_role' makes more than one request"):
        single([SELF], ROW, asked("Why?", options=("a", "b")), Read())


# What a policy asks its engine.


class Strength(Strict):
    """Settings of a hook."""

    strength: int


def test_what_a_request_leaves_open_is_the_evals() -> None:
    policy = Policy(Scripted(lambda prompt: ""), [], None, Read())
    draw = Draw(9, 0.7, 0.9)
    assert policy.prompt_for(asked("Why?", prefill="B"), draw, 5) == Prompt("Why?B", 9, (), 0.7, 0.9, 5)
    own = asked("Why?", max_new_tokens=3, stop=(".",), temperature=0.0, top_p=1.0)
    assert policy.prompt_for(own, draw) == Prompt("Why?", 3, (".",), 0.0, 1.0, 0)
    assert policy.prompt_for(asked("Why?", options=("a", "b")), draw) == Candidates("Why?", ("a", "b"))
    with pytest.raises(ValueError, match="must say max_new_tokens when options are scored"):
        policy.prompt_for(asked("Why?"), Draw(0))


def test_an_arm_is_opened_with_its_hooks_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    engine = Scripted(lambda prompt: "")

    def start(chain: list[Path], dtype: str, device: str, batch_size: int, ranks: int = 1) -> Scripted:
        opened.append((chain, dtype, device, batch_size))
        return engine

    def install(model: Any, settings: Any, inputs: Read, passing: Any) -> None:
        opened.append((settings.strength, model is engine.model, inputs))

    plugin(monkeypatch, "engines", "recorded", CAN=frozenset({"generate", "hooks"}), start=start)
    plugin(monkeypatch, "hooks", "steered", Settings=Strength, install=install)
    hooks = [Plug(name="steered", settings={"strength": strength}) for strength in (2, 1)]
    spec = asking.policy_spec(engine="recorded", hooks=hooks, contexts=[ROLE], decode=Plug(name="none"))
    manifests, inputs = [Path("model"), Path("fit")], Read({"d": []})
    policy = start_policy(spec, manifests, "cpu", inputs)
    assert opened == [(manifests, "float32", "cpu", 4), (2, True, inputs), (1, True, inputs)]
    assert policy == Policy(engine, [ROLE], Plug(name="none"), inputs)
    assert start_policy(asking.policy_spec(engine="recorded"), manifests, "cpu").inputs == Read()


# Dialogues in the tables.


Tables = Callable[..., list[list[dict[str, Any]]]]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """Runs a generate job on the questions TWO with an engine that a test writes down; gives the rows of each
    dialogue."""

    def run(engine: Scripted, **changes: Any) -> list[list[dict[str, Any]]]:
        dataset = asking.questions(tmp_path / "d.parquet", TWO)
        rows, prompts = asking.generate(
            asking.paper(tmp_path), dataset, tmp_path, engine=engine.as_plugin(monkeypatch), **changes
        )
        texts = {row["prompt_sha256"]: row["prompt"] for row in prompts}
        for row in rows:
            row["prompt"] = texts.get(row.pop("prompt_sha256"))
        ids = [row["example_id"] for row in dataset_rows.read(dataset)]
        samples = range(changes.get("samples", 1)) if changes.get("ask") != "loglikelihood" else [None]
        dialogues = [
            [row for row in rows if row["example_id"] == name and sample in (None, row["sample"])]
            for name in ids
            for sample in samples
        ]
        assert [row for dialogue in dialogues for row in dialogue] == rows, "in the order of the dataset"
        return dialogues

    return run


def context_of(monkeypatch: pytest.MonkeyPatch, name: str, work: Callable[[Request], Turns]) -> Plug:
    """A context that reads nothing but the request."""
    return plugin(monkeypatch, "contexts", name, turns=lambda request, row, settings, inputs: work(request))


def finals(rows: Sequence[dict[str, Any]]) -> list[Any]:
    return [row["response"] for row in rows if row["final"]]


def counting() -> Callable[[Prompt], str]:
    """An engine's words: how many it has said."""
    numbers = iter(range(1000))
    return lambda prompt: str(next(numbers))


def test_a_decoder_chooses_one_of_its_draws(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    # By sum the second is the likeliest, by mean the third.
    drawn = {1: ("a", -6.0, 3), 2: ("b", -4.0, 1), 3: ("c", -5.0, 5)}
    seen: Counter[str] = Counter()

    def says(prompt: Prompt) -> Response:
        seen[prompt.text] += 1
        return said(*drawn[seen[prompt.text]])

    engine = Scripted(says)
    decode = plugin(monkeypatch, "decoders", "best_of_3", turns=best_of(3))
    dialogues = table(engine, decode=decode, contexts=[ROLE])
    for question, rows in zip(TWO, dialogues, strict=True):
        assert [row["response"] for row in rows] == ["a", "b", "c"] and finals(rows) == ["c"]
        assert {(row["turn"], row["sample"], row["state"]) for row in rows} == {(0, 0, None)}
        assert {row["prompt"] for row in rows} == {f"You are a cook.\nI am.\n{question}"}
    assert {(one.temperature, one.max_new_tokens) for one in engine.asked} == {(1.0, 8)}


def test_a_decoder_inside_a_context_of_two_requests(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = plugin(monkeypatch, "decoders", "best_of_2", turns=best_of(2))
    review = plugin(monkeypatch, "contexts", "reviewed", turns=reviewed)
    (rows, _) = table(Scripted(counting()), decode=decode, contexts=[review])
    assert [(row["turn"], row["response"], row["final"]) for row in rows] == [
        (0, "0", False), (0, "1", False), (1, "4", True), (1, "5", False)
    ]  # fmt: skip
    assert rows[2]["prompt"] == "Why?\n0\nImprove it.", "the draft that was chosen"


def test_an_environment_of_three_turns_around_a_context(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = plugin(monkeypatch, "environments", "guesses", turns=guesses)
    first, second = table(Scripted(counting()), environment=environment, contexts=[ROLE])
    assert [(row["turn"], row["response"], row["final"]) for row in first] == [
        (0, "0", False), (1, "2", False), (2, "4", True)
    ]  # fmt: skip
    assert [row["prompt"] for row in first] == [
        "You are a cook.\nI am.\nWhy?",
        "You are a cook.\nI am.\nWhy?\n0\nNo.",
        "You are a cook.\nI am.\nWhy?\n0\nNo.\n2\nNo.",
    ]
    assert [row["state"] for row in first[:2]] == [None, None], "the final row alone has the state"
    assert json.loads(first[2]["state"]) == {"tried": ["0", "2", "4"], "secret": "no"}
    assert json.loads(second[2]["state"])["tried"] == ["1", "3", "5"] and finals(second) == ["5"]


def test_an_environment_around_a_context_of_two_requests_and_a_decoder(
    table: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = plugin(monkeypatch, "environments", "guesses", turns=guesses)
    review = plugin(monkeypatch, "contexts", "reviewed", turns=reviewed)
    decode = plugin(monkeypatch, "decoders", "best_of_2", turns=best_of(2))
    rows, _ = table(Scripted(counting()), environment=environment, contexts=[review], decode=decode)
    assert [row["turn"] for row in rows] == [turn for turn in range(6) for _ in range(2)]
    assert [row["response"] for row in rows if row["final"]] == [rows[10]["response"]]
    assert json.loads(rows[10]["state"])["tried"] == [rows[place]["response"] for place in (2, 6, 10)]


def test_a_text_that_no_response_holds_is_a_row_without_a_prompt(
    table: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turns(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        first, second = yield [request, request]
        return Outcome(f"{first.text} and {second.text}", [1, {"é": None}], second)

    joined = plugin(monkeypatch, "contexts", "joined", turns=turns)
    rows, _ = table(Scripted(counting()), contexts=[joined])
    assert [(row["turn"], row["response"], row["final"]) for row in rows] == [
        (0, "0", False), (0, "1", False), (1, "0 and 1", True)
    ]  # fmt: skip
    made = rows[2]
    assert json.loads(made["state"]) == [1, {"é": None}] and made["error"] is None
    unknown = ("prompt", "prompt_tokens", "response_tokens", "logprob_sum")
    assert [made[key] for key in unknown] == [None] * 4 and made["finish_reason"] == "stop"


def test_a_dialogue_that_asks_for_nothing_has_its_text(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    known = context_of(monkeypatch, "known", lambda request: of(returned=Outcome("42")))
    engine = Scripted(counting())
    for rows in table(engine, contexts=[known]):
        assert [(row["turn"], row["response"], row["final"], row["prompt"]) for row in rows] == [(0, "42", True, None)]
    assert not engine.asked


@pytest.mark.parametrize(("contexts", "before"), [([], 0), ([SELF], 1), ([PLAN, SELF], 2), ([SELF, PLAN, ROLE], 2)])
def test_options_are_scored_where_the_contexts_put_them(table: Tables, contexts: list[Plug], before: int) -> None:
    engine = Scripted(lambda prompt: "well")
    dialogues = table(engine, contexts=contexts, ask="loglikelihood", max_new_tokens=0)
    for question, rows in zip(TWO, dialogues, strict=True):
        written, scored = rows[:before], rows[before:]
        assert [(row["turn"], row["final"], row["sample"]) for row in written] == [(i, False, 0) for i in range(before)]
        assert [(row["turn"], row["final"], row["sample"], row["response"]) for row in scored] == [
            (before, True, number, text) for number, text in enumerate((f"yes {question}", "no", "perhaps the sea"))
        ]
        assert len({row["prompt"] for row in scored}) == 1
    assert all(one.temperature == 0.0 for one in engine.asked if isinstance(one, Prompt))


def test_a_decoder_is_given_what_is_left_open(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Request] = []

    def turns(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        received.append(request)
        return (yield from best_of(2)(request, row, settings, inputs))

    decode = plugin(monkeypatch, "decoders", "best_of_2", turns=turns)
    greedy, left_open = asked("Who?", max_new_tokens=4, temperature=0.0), asked("Where?", max_new_tokens=4)
    context = context_of(monkeypatch, "asks_more", lambda request: of([greedy], [left_open], [request]))
    rows, _ = table(Scripted(counting()), decode=decode, contexts=[context], ask="loglikelihood", max_new_tokens=0)
    assert [(row["turn"], row["final"]) for row in rows] == [(0, False), *[(1, False)] * 2, *[(2, True)] * 3]
    assert received == [left_open] * 2


def test_options_that_no_request_carries_on_are_an_error(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = context_of(monkeypatch, "lost", lambda request: of([Request(request.messages, max_new_tokens=2)]))
    for rows in table(Scripted(counting()), contexts=[lost], ask="loglikelihood", max_new_tokens=0):
        assert [row["final"] for row in rows] == [False, True]
        assert rows[1]["error"].startswith("ImprintError: the options were not compared")


def test_options_of_a_contexts_own(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are compared too, and the likeliest is the response; in the table they are intermediate texts."""

    def turns(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        hard, tone = yield [asked("Hard?", options=("yes", "no")), asked("Tone?", options=("dry", "vivid"))]
        yield [asked(f"{hard.text}, {tone.text}: {request.messages[0]['content']}")]
        return None

    route = plugin(monkeypatch, "contexts", "route", turns=turns)
    dialogues = table(Scripted(lambda prompt: "well"), contexts=[route], samples=2, temperature=1.0)
    for (question, sample), rows in zip(product(TWO, (0, 1)), dialogues, strict=True):
        assert [(row["turn"], row["response"], row["sample"], row["final"]) for row in rows] == [
            *((0, text, sample, False) for text in ("yes", "no", "dry", "vivid")),
            (1, "well", sample, True),
        ]
        assert rows[-1]["prompt"] == f"no, dry: {question}", "the scripted engine likes short ones"
    chosen = context_of(monkeypatch, "chosen", lambda request: of([asked("Hard?", options=("yes", "no"))]))
    for rows in table(Scripted(counting()), contexts=[chosen]):
        assert [(row["response"], row["final"]) for row in rows] == [("yes", False), ("no", True)]
    # Where an eval compares options, those of the request that counts are the final ones.
    both = context_of(monkeypatch, "both", lambda request: of([asked("Hard?", options=("yes", "no"))], [request]))
    for rows in table(Scripted(counting()), contexts=[both], ask="loglikelihood", max_new_tokens=0):
        assert [(row["turn"], row["sample"], row["final"]) for row in rows] == [
            (0, 0, False), (0, 1, False), (1, 0, True), (1, 1, True), (1, 2, True)
        ]  # fmt: skip


def test_an_error_in_one_of_several_responses_ends_that_dialogue_alone(
    table: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[str] = []

    def watched(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        try:
            return (yield from reviewed(request, row, settings, inputs))
        finally:
            ended.append(request.messages[0]["content"])

    places = iter(range(100))

    def says(prompt: Prompt) -> str | Response:
        return failed("too long", 7) if prompt.text == "Why?" and next(places) in (1, 2) else "fine"

    context = plugin(monkeypatch, "contexts", "watched", turns=watched)
    decode = plugin(monkeypatch, "decoders", "best_of_4", turns=best_of(4))
    broken, whole = table(Scripted(says), contexts=[context], decode=decode)
    assert [(row["error"], row["final"], row["response"]) for row in broken] == [
        (None, False, "fine"), ("too long", True, None), ("too long", False, None), (None, False, "fine")
    ]  # fmt: skip
    assert len(whole) == 8 and finals(whole) == ["fine"] and not any(row["error"] for row in whole)
    assert ended == ["Why?", "How?"], "it is closed at once"
    assert "base/questions: 1 of 2 responses failed, the first because of: too long" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda request: of([request, request]), "ended after 2 responses at once"),
        (lambda request: of([request], []), "went on without a request"),
        (lambda request: of([request], returned=Outcome("x", {1, 2})), "set is not JSON serializable"),
        (lambda request: of([request], [Request([{"role": "user"}])]), "KeyError"),
        (lambda request: of([request], [request, 5]), "AttributeError"),
    ],
)
def test_a_layer_that_breaks_the_rules_is_an_error_of_its_example(
    table: Tables, monkeypatch: pytest.MonkeyPatch, work: Callable[[Request], Turns], told: str
) -> None:
    closed: list[str] = []

    def sometimes(request: Request) -> Turns:
        (question,) = contents(request)
        try:
            return (yield from (one if question == "How?" else work)(request))
        finally:
            closed.append(question)

    context = context_of(monkeypatch, "sometimes", sometimes)
    broken, whole = table(Scripted(lambda prompt: "fine"), contexts=[context])
    assert told in broken[-1]["error"] and broken[-1]["final"] and broken[-1]["prompt"] is None
    assert not any(row["final"] for row in broken[:-1]) and finals(whole) == ["fine"]
    assert sorted(closed) == ["How?", "Why?"]


def test_seeds(table: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request of a dialogue draws as one without layers does, and every other one draws on its own."""
    environment = plugin(monkeypatch, "environments", "guesses", turns=guesses)
    decode = plugin(monkeypatch, "decoders", "best_of_3", turns=best_of(3))
    review = plugin(monkeypatch, "contexts", "reviewed", turns=reviewed)
    how = {"samples": 2, "temperature": 1.0, "seed": 5}

    def seeds(**changes: Any) -> list[int]:
        engine = Scripted(lambda prompt: "same", batch_size=1000)
        table(engine, **how, **changes)
        return [prompt.seed for prompt in engine.asked if isinstance(prompt, Prompt)]

    ids = [row["example_id"] for row in dataset_rows.read(asking.questions(tmp_path / "d.parquet", TWO))]
    alone = [seed_of(example_id, sample, 5) for example_id in ids for sample in range(2)]
    assert seeds() == alone
    for changes, requests in (
        ({"contexts": [review]}, 2),
        ({"decode": decode}, 3),
        ({"environment": environment}, 3),
        ({"environment": environment, "contexts": [review], "decode": decode}, 3 * 2 * 3),
    ):
        drawn = seeds(**changes)
        assert len(drawn) == len(set(drawn)) == 4 * requests
        width = 3 if "decode" in changes else 1
        assert drawn[: 4 * width : width] == alone
