"""The contract of each kind of plug-in: what does not keep it is told at once, what is left out has its default."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from conftest import one_fit
from imprint.config import loading
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Plug, Strict

Add = Callable[[str, str, str], None]
KINDS = sorted(
    path.parent.name for path in plugins.PACKAGE.glob("*/__init__.py") if "\nCONTRACT = " in path.read_text()
)
SHIPPED = [(kind, name) for kind in KINDS for name in plugins.names(kind)]
HEAD = """
from __future__ import annotations

from imprint.runtime.plugins import Strict


class Settings(Strict):
    size: int = 3


"""
CONTEXT = (
    HEAD
    + """
def turns(request, row, settings, inputs):
    return (yield [request])
"""
)
SCORE = (
    HEAD
    + """
from imprint.scores import Verdict

ASKS = "generate"
VERSION = "1"
PRIMARY = "length"
METRICS = {"length": 1}


def score(row, response, settings):
    return [Verdict("length", float(len(response)))]
"""
)


def refused(add: Add, kind: str, text: str) -> str:
    add(kind, "tiny", text)
    with pytest.raises(ImprintError) as caught:
        plugins.load(kind, "tiny")
    assert f"tiny.py is no {kind} plug-in: " in str(caught.value)
    assert f"imprint/{kind}/__init__.py says what one is" in str(caught.value)
    return str(caught.value)


def test_there_are_all_kinds() -> None:
    assert KINDS == [
        "analyses", "artifacts", "charts", "contexts", "datasets", "decoders", "engines", "environments", "hooks",
        "imports", "methods", "scores", "synthesis", "trackers",
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), SHIPPED, ids="/".join)
def test_every_shipped_plug_in_keeps_its_contract_and_says_what_it_is(kind: str, name: str) -> None:
    module = plugins.load(kind, name)
    assert inspect.getdoc(module)
    for part in plugins._parts(plugins.contract(kind)):
        assert part in vars(module), part


def test_what_is_left_out_has_the_contracts_default(plug_in: Add) -> None:
    plug_in("contexts", "tiny", CONTEXT)
    plug_in("scores", "tiny", SCORE)
    context, score = plugins.load("contexts", "tiny"), plugins.load("scores", "tiny")
    settings = context.Settings()
    assert context.inputs(settings) == Inputs()
    assert context.answer("It is four.", settings) == ("It is four.", True)
    assert (context.draws(settings), context.rewarded("a", settings), context.form(settings)) == (False, None, None)
    assert context.target({}, settings) is None
    assert (score.READS, score.QUESTIONS, score.JAILED, score.SECONDS) == ("answer", {}, False, 1.8)
    assert score.warm() is None and score.ahead({}) is None


def test_what_is_defined_stays(plug_in: Add) -> None:
    plug_in("scores", "tiny", SCORE + "\nREADS = 'response'\nSECONDS = 9\n")
    assert (plugins.load("scores", "tiny").READS, plugins.load("scores", "tiny").SECONDS) == ("response", 9)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("contexts", HEAD, "it defines no turns"),
        ("contexts", CONTEXT.replace("class Settings", "class Setting"), "it defines no Settings"),
        ("contexts", CONTEXT.replace("Settings(Strict)", "Settings"), "its Settings are no class below plugins.Strict"),
        (
            "contexts",
            CONTEXT.replace("(request, row, settings, inputs)", "(messages, settings, ask)"),
            "turns(messages, settings, ask) should be turns(request, row, settings, inputs)",
        ),
        (
            "contexts",
            CONTEXT.replace("(request, row, settings, inputs)", "(row, request, settings, inputs)"),
            "turns(row, request, settings, inputs) should be turns(request, row, settings, inputs)",
        ),
        ("contexts", CONTEXT + "\ndef inputs():\n    return None\n", "inputs() should be inputs(settings)"),
        ("contexts", CONTEXT + "\ndraws = True\n", "draws, which is no function, should be draws(settings)"),
        ("contexts", CONTEXT + "\ndef draw(settings):\n    return True\n", "it defines draw, which looks like draws"),
        ("scores", SCORE.replace("METRICS", "METRIC"), "it defines no METRICS; it defines METRIC, which looks like"),
        ("scores", SCORE + "\nQUESTION = {'kind': '{response}'}\n", "it defines QUESTION, which looks like QUESTIONS"),
        ("scores", SCORE + "\nJAIL = True\n", "it defines JAIL, which looks like JAILED"),
        ("scores", SCORE + "\nSECOND = 4\n", "it defines SECOND, which looks like SECONDS"),
        ("engines", "CAN = frozenset()\n", "it defines no start"),
        ("trackers", "PACKAGE = 'json'\n", "it defines no start"),
        ("charts", HEAD + "\ndef chart(tables, arms, evals):\n    pass\n", "it defines no TABLES; it defines no facts"),
    ],
)  # fmt: skip
def test_what_does_not_keep_the_contract_is_refused(kind: str, text: str, said: str, plug_in: Add) -> None:
    assert said in refused(plug_in, kind, text)


def test_names_of_its_own_are_a_plug_ins_business(plug_in: Add) -> None:
    """A number is no misspelt text, an imported function and a private one are none either."""
    own = "\nREAD = 20\nfrom glob import glob as rewarde\n\ndef _draw():\n    pass\n\ndef rows():\n    pass\n"
    plug_in("scores", "tiny", SCORE + own)
    plug_in("contexts", "tiny", CONTEXT + own)
    assert plugins.load("scores", "tiny").READ == 20
    assert plugins.load("contexts", "tiny").rewarded("a", None) is None


def test_an_unknown_name_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImprintError, match=r"no contexts plug-in named 'plane'; did you mean 'plain'\? write one of: "):
        plugins.load("contexts", "plane")
    monkeypatch.setattr(plugins, "names", lambda kind: ())
    with pytest.raises(ImprintError, match=r"no hooks plug-in named 'steer'; write one of: \(there is none yet\)"):
        plugins.path("hooks", "steer")


@pytest.mark.parametrize("written", ["tiny", {"tiny": 4}, {"tiny": {"size": 4}}])
@pytest.mark.parametrize("place", ["fit", "apply"])
def test_a_broken_plug_in_is_told_with_its_place_in_the_config(written: Any, place: str, plug_in: Add) -> None:
    plug_in("contexts", "tiny", HEAD)
    raw = one_fit()
    raw["arms"]["tuned"].setdefault(place, {})["context"] = written
    with pytest.raises(
        ImprintError, match=rf"^arms\.tuned\.{place}\.context\[0\]: .*is no contexts plug-in: it defines no turns"
    ):
        loading.parse(raw)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evals": {"general": {"score": "tiny"}}}, r"^evals\.general\.score: .*is no scores plug-in"),
        ({"arms": {"tuned": {"fit": {"method": "tiny"}}}}, r"^arms\.tuned\.fit: .*is no methods plug-in"),
        ({"arms": {"tuned": {"apply": {"hooks": "tiny"}}}}, r"^arms\.tuned\.apply\.hooks\[0\]: .*is no hooks plug-in"),
        ({"arms": {"tuned": {"apply": {"decode": "tiny"}}}}, r"^arms\.tuned\.apply\.decode: .*is no decoders plug-in"),
        ({"evals": {"general": {"environment": "tiny"}}}, r"^evals\.general\.environment: .*is no environments "),
        ({"analyses": {"odd": {"tiny": {"size": 1}}}}, r"^analyses\.odd: .*is no analyses plug-in"),
        ({"datasets": {"odd": {"generated": "tiny"}}}, r"^datasets\.odd: .*is no datasets plug-in"),
        ({"datasets": {"odd": {"synth": "tiny"}}}, r"^datasets\.odd: .*is no synthesis plug-in"),
        ({"charts": ["tiny"]}, r"^charts: .*is no charts plug-in"),
        ({"track": "tiny"}, r"^track: .*is no trackers plug-in"),
        ({"engine": {"name": "tiny"}}, r"^engine\.name: .*is no engines plug-in"),
        ({"models": {"m1": {"engine": "tiny"}}}, r"^models\.m1\.engine: .*is no engines plug-in"),
    ],
)  # fmt: skip
def test_a_broken_plug_in_of_any_kind_is_told_with_its_place(change: dict, said: str, plug_in: Add) -> None:
    for kind in KINDS:
        plug_in(kind, "tiny", HEAD)
    with pytest.raises(ImprintError, match=said):
        loading.parse(loading.merge(one_fit(), change))


def test_a_plug_in_is_opened_with_its_settings(plug_in: Add) -> None:
    plug_in("contexts", "tiny", CONTEXT)
    module, settings = Plug(name="tiny", settings={"size": 5}).open("contexts")
    assert (module.__name__, settings.size) == ("imprint.contexts.tiny", 5)
    assert Plug(name="tiny").open("contexts")[1].size == 3
    with pytest.raises(ValueError, match="siz"):
        Plug(name="tiny", settings={"siz": 5}).open("contexts")


def test_inputs_are_added_name_by_name() -> None:
    one = Inputs(datasets=("a1", "b1"), arms=("x1",), runs=(("x1", "e1"),))
    two = Inputs(datasets=("b1", "c1"), runs=(("x1", "e1"), ("x1", "e2")), plugins=(("scores", "math"),))
    assert one + two == Inputs(("a1", "b1", "c1"), ("x1",), (("x1", "e1"), ("x1", "e2")), (("scores", "math"),))
    assert sum([one, two], Inputs()) == one + two


def test_people_read_a_models_own_keys_first() -> None:
    class Base(Strict):
        steps: int = 3
        rate: float = 1.0

    class Own(Base):
        data: str
        rate: float = 2.0

    assert list(plugins.fields(Own)) == ["data", "rate", "steps"] and plugins.fields(Own)["rate"].default == 2.0
    assert set(plugins.fields(Own)) == set(Own.model_fields)


def test_each_key_of_training_is_said_once() -> None:
    from imprint.methods import best_of_n, dpo, grpo, sft
    from imprint.training import fits

    for method in (sft.Settings, dpo.Settings, best_of_n.Settings):
        assert issubclass(method, fits.RowTraining)
        assert not {*fits.RowTraining.model_fields} & {*inspect.get_annotations(method)}
    assert {*fits.Training.model_fields} & {*inspect.get_annotations(grpo.Settings)} == {"schedule", "checkpoint_steps"}
