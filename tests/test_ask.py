"""`make ask`: one dialogue with an arm as it is applied, and what is said where a file is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import asking
from asking import Scripted, best_of, plugin, reviewed
from imprint import ask
from imprint.config import loading
from imprint.dag.experiment import Experiment
from imprint.engines import Prompt, Response, failed
from imprint.policies import conversation
from imprint.policies.dialogue import Outcome, Request, Turns
from imprint.runtime import frame
from imprint.runtime.plugins import Inputs, Plug
from imprint.tables import dataset_rows
from imprint.tables.inputs import Read

QUESTION = [{"role": "user", "content": "Why?"}]
ROLE = {"role_play": {"role": "You are a cook.", "feedback": "I am."}}


def echo(prompt: Prompt) -> str:
    """An answer that shows the prompt."""
    return f"<{prompt.text.replace(chr(10), '|')}>"


Converse = Callable[..., list[Any]]


@pytest.fixture
def converse(monkeypatch: pytest.MonkeyPatch) -> Converse:
    """A function that asks an arm with an engine, and gives the text or the error of each response."""

    def texts(engine: Scripted, **how: Any) -> list[Any]:
        spec = asking.policy_spec(engine=engine.as_plugin(monkeypatch), **how)
        responses = conversation.ask(spec, [Path("manifest")], Read(), QUESTION, 7, "cpu")
        return [response.error or response.text for response in responses]

    return texts


def test_every_response_and_the_answer_last(converse: Converse, monkeypatch: pytest.MonkeyPatch) -> None:
    review = plugin(monkeypatch, "contexts", "reviewed", turns=reviewed)
    role = Plug(name="role_play", settings=ROLE["role_play"])
    engine = Scripted(echo)
    assert converse(engine) == ["<Why?>"]
    first = "<You are a cook.|I am.|Why?>"
    both = [first, f"<You are a cook.|I am.|Why?|{first}|Improve it.>"]
    assert converse(engine, contexts=[role, review]) == both == converse(engine, contexts=[review, role])
    prompts = [one for one in engine.asked if isinstance(one, Prompt)]
    assert {(one.temperature, one.max_new_tokens) for one in prompts} == {(0.0, 7)}


def test_an_answer_that_was_chosen_or_made_stands_last(converse: Converse, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    engine = Scripted(lambda prompt: str(next(numbers)))
    decode = plugin(monkeypatch, "decoders", "best_of_2", turns=best_of(2))
    assert converse(engine, decode=decode) == ["0", "1", "0"]
    assert len({prompt.seed for prompt in engine.asked if isinstance(prompt, Prompt)}) == 2, "each draws on its own"

    def turns(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        (answer,) = yield [request]
        return Outcome(f"{answer.text}!")

    loud = plugin(monkeypatch, "contexts", "loud", turns=turns)
    assert converse(engine, contexts=[loud]) == ["2", "2!"]


def test_options_that_a_context_compares(converse: Converse, monkeypatch: pytest.MonkeyPatch) -> None:
    def turns(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        said, kind = yield [request, asking.asked("What kind?", options=("short", "long"))]
        yield [asking.asked(f"{said.text} {kind.text}")]
        return None

    route = plugin(monkeypatch, "contexts", "route", turns=turns)
    assert converse(Scripted(echo), contexts=[route]) == ["<Why?>", "long", "<<Why?> long>"]


def test_a_missing_response_ends_it(converse: Converse, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def turns(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        try:
            return (yield from reviewed(request, row, settings, inputs))
        finally:
            ended.append(row["messages"])

    review = plugin(monkeypatch, "contexts", "reviewed", turns=turns)
    assert converse(Scripted(lambda prompt: failed("too long")), contexts=[review]) == ["too long"]
    assert ended == [QUESTION]


# The command.


Main = Callable[..., str]


@pytest.fixture
def main(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """The command in a project, with an engine that shows its prompt; gives what it prints, or how it ends."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(frame, "prepare", lambda threads: None)  # the environment is this process's
    (project / "resources/local/pico").mkdir(parents=True)
    (project / "resources/local/pico/model.safetensors").touch()
    engine = Scripted(lambda prompt: Response(echo(prompt), "length", 9, 5, -1.0, 0.1)).as_plugin(monkeypatch)
    plugin(monkeypatch, "contexts", "reviewed", turns=reviewed)
    config = {
        "engine": {"name": engine, "device": "cpu"},
        "models": {"pico": {"path": "resources/local/pico"}},
        "datasets": {"general": {"bundled": "general.jsonl"}, "dialogues": {"bundled": "dialogues.jsonl"}},
        "evals": {"general": {"dataset": "general", "score": "options"}},
        "arms": {
            "base": {"model": "pico"},
            "chained": {"parent": "base", "apply": {"context": [ROLE, "reviewed"]}},
            "tuned": {"parent": "base", "fit": {"method": "sft", "data": "dialogues"}},
        },
    }

    def run(*arguments: str, **arms: Any) -> str:
        Path("config/config.yaml").write_text(yaml.safe_dump({**config, "arms": {**config["arms"], **arms}}))
        try:
            ask.main(list(arguments))
        except SystemExit as end:
            return str(end.code)
        captured = capsys.readouterr()
        return captured.out + captured.err

    return run


def experiment() -> Experiment:
    return Experiment(loading.load([loading.DEFAULT]))


def touch(path: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()
    return path


def missing(path: str) -> str:
    command = f"snakemake --cores all {path} --configfile config/config.yaml"
    return f"imprint.ask: {path} is not there yet; run `{command}` first"


def test_the_command_asks_through_a_chain_of_contexts(main: Main) -> None:
    told = main("chained", "Why?")
    (manifest,) = experiment().chain("base", 0)
    assert told == missing(touch(manifest))
    cut = "[cut at 5 tokens; --max-new-tokens takes more]\n"
    assert main("--max-new-tokens", "5", "base", "Why?") == f"<Why?>\n{cut}"
    first = "<You are a cook.|I am.|Why?>"
    told = main("--max-new-tokens", "5", "chained", "Why?")
    assert told == f"{first}\n<You are a cook.|I am.|Why?|{first}|Improve it.>\n{cut}"


def test_each_missing_file_is_named_with_the_command_that_makes_it(
    main: Main, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[Read] = []

    def turns(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        received.append(inputs)
        yield [request]
        return None

    reads = Inputs(datasets=("general",), arms=("tuned",), runs=(("base", "general"),))
    plugin(monkeypatch, "contexts", "reader", turns=turns, inputs=lambda settings: reads)
    arms = {"reading": {"parent": "base", "evals": [], "apply": {"context": ["reader", "plain"]}}}
    assert main("tuned", "Why?", **arms) == missing(touch(experiment().chain("base", 0)[0]))
    made = experiment()
    chain = made.chain("tuned", 0)
    generations = made.path("generate", "generations", arm="base", seed=0, eval="general")
    assert main("tuned", "Why?", **arms) == missing(chain[1])
    for path in (made.dataset("general"), chain[1], generations):
        assert main("reading", "Why?", **arms) == missing(touch(path))
    rows = [{"messages": [{"role": "user", "content": "?"}], "reference": None}]
    dataset_rows.write(Path(made.dataset("general")), "general", rows, "0")
    assert main("reading", "Why?", **arms).startswith("<Why?>\n")
    (inputs,) = received
    assert [row["messages"] for row in inputs.datasets["general"]] == [rows[0]["messages"]]
    assert inputs.arms == {"tuned": [Path(path) for path in chain]}
    assert inputs.runs == {("base", "general"): Path(generations)}


def test_questions_that_cannot_be_put(main: Main) -> None:
    assert "no arm named 'bass'; did you mean 'base'?" in main("bass", "Why?")
    assert "the question is empty" in main("base", "  ")
    assert "--seed: found 3; write one of 0" in main("--seed", "3", "base", "Why?")
    assert "--max-new-tokens: found 0; write at least 1" in main("--max-new-tokens", "0", "base", "Why?")
