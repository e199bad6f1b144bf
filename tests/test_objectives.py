"""Learning coefficients without ordinary supervision: unlearning under a guard, and adapting to unlabelled options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fitting
import pico_arms
from conftest import one_fit
from fitting import curve, dialogues, table
from imprint.composition import learning, objectives, option_entropy
from imprint.config import graph, loading
from imprint.engines import Candidates
from imprint.engines.transformers import Engine
from imprint.methods import Fit, adamerging, atlas_adaptation, atlas_negation
from imprint.models import chains
from imprint.policies import policy
from imprint.policies.dialogue import Outcome, Request, step
from imprint.policies.policy import Draw
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug


def questions(n: int = 6) -> list[dict[str, Any]]:
    made = [
        {
            "messages": [{"role": "user", "content": f"What is {i} plus one?"}],
            "reference": {"options": [str(i + 1), str(i + 2), "q"][: 2 + i % 2], "answer": 0},
            "fields": {},
            "strata": {},
        }
        for i in range(n)
    ]
    return fitting.named(made)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, list[Path]]]:
    folder = tmp_path_factory.mktemp("arms")
    root = pico_arms.root(folder / "pico")
    return [root], {"a": pico_arms.full(root, folder / "a", 1, 0.05), "b": pico_arms.lora(root, folder / "b", 2)}


def job(made: Any, out: Path, name: str, **given: Any) -> Fit:
    chain, arms = made
    defaults = {"vectors": list(arms), "data": "q", "max_length": 300, "rows_at_once": 2, "batch_size": 4}
    datasets = {"d": dialogues(), "c": dialogues(14)[10:], "q": questions(), "r": questions(9)[6:]}
    return fitting.job(name, chain, out, arm="adapted", datasets=datasets, arms=arms, **{**defaults, **given})


def test_option_probabilities_are_an_evals_likelihoods(made: Any, tmp_path: Path) -> None:
    model, tokenizer = chains.load(made[0], "float32", "cpu")
    fit = job(made, tmp_path, "atlas_adaptation")
    asked = option_entropy.Questions(fit, model, tokenizer, fit.settings.data[0])
    with torch.no_grad():
        found = option_entropy.log_probabilities(model, asked.ask(asked.rows), "cpu")
    engine = Engine(model, tokenizer, 4)
    for row, ours in zip(questions(), found, strict=True):
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True)
        (answers,) = engine.loglikelihood([Candidates(text, tuple(row["reference"]["options"]))])
        expected = torch.tensor([answer.logprob_sum for answer in answers]).log_softmax(0)
        torch.testing.assert_close(ours, expected.float(), rtol=1e-4, atol=1e-4)


def test_entropy_falls_and_no_label_is_read(made: Any, tmp_path: Path) -> None:
    fit = job(made, tmp_path / "a", "atlas_adaptation", learning_rate=0.05, steps=15)
    metrics = atlas_adaptation.fit(fit)
    assert 0 < metrics["final_loss"] < metrics["first_loss"] < 1.1
    other = job(made, tmp_path / "b", "atlas_adaptation", learning_rate=0.05, steps=15)
    for row in other.inputs.datasets["q"]:
        row["reference"]["answer"] = 1
    assert atlas_adaptation.fit(other) == metrics


def test_pseudo_labels_count_above_the_threshold_only(made: Any, tmp_path: Path) -> None:
    common = {"objective": "pseudo_labels", "learning_rate": 0.05, "steps": 9}
    none = job(made, tmp_path / "none", "atlas_adaptation", **{**common, "threshold": 0.999999})
    atlas_adaptation.fit(none)
    assert {row["value"] for row in table(none, "coefficients")} == {0.0} and set(curve(none, "loss")) == {0.0}
    every = job(made, tmp_path / "every", "atlas_adaptation", **{**common, "threshold": 0.0})
    metrics = atlas_adaptation.fit(every)
    assert metrics["final_loss"] < metrics["first_loss"]


def test_adamerging_stays_between_0_and_1(made: Any, tmp_path: Path) -> None:
    fit = job(made, tmp_path, "adamerging", data=["q", "r"], steps=12, learning_rate=0.2)
    metrics = adamerging.fit(fit)
    assert metrics["steps"] == 12 and metrics["smallest"] >= 0 and metrics["largest"] <= 1
    assert metrics["largest"] > 0.3 and {"q", "r"} <= {row["quantity"] for row in table(fit, "curves")}


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 20))
def test_a_pass_has_so_many_options_or_one_question(counts: list[int], rows: int) -> None:
    asked = [option_entropy.Question([place], [[0]] * count) for place, count in enumerate(counts)]
    found = list(option_entropy.passes(asked, rows))
    assert [question for batch in found for question in batch] == asked
    sizes = [sum(len(question.options) for question in batch) for batch in found]
    assert all(size <= rows or len(batch) == 1 for size, batch in zip(sizes, found, strict=True))
    firsts = [len(batch[0].options) for batch in found[1:]]
    assert all(size + first > rows for size, first in zip(sizes, firsts, strict=False)), "no pass could take more"


def test_rows_without_options_are_an_error(made: Any, tmp_path: Path) -> None:
    fit = job(made, tmp_path, "atlas_adaptation")
    fit.inputs.datasets["q"][2]["reference"] = None
    with pytest.raises(ImprintError, match=r"dataset 'q', example .* has no reference.options"):
        atlas_adaptation.fit(fit)


def test_negation_forgets_the_target(made: Any, tmp_path: Path) -> None:
    given = {"data": "d", "control": "c", "learning_rate": 0.05, "steps": 10, "keep": 0.01}
    fit = job(made, tmp_path, "atlas_negation", **given)
    metrics = atlas_negation.fit(fit)
    target = curve(fit, "target")
    assert target[-1] < target[0] < 0 and not metrics["ended_by_check"]
    assert min(target) >= -torch.log(torch.tensor(283.0 * 2))  # bounded


def test_the_bound_stops_the_push(made: Any, tmp_path: Path) -> None:
    """With a bound below every token's loss the target has no gradient: only the control and decay move."""
    fit = job(made, tmp_path, "atlas_negation", data="d", control="c", steps=2, bound=1e-6, keep=0.01)
    atlas_negation.fit(fit)
    assert all(value == pytest.approx(-1e-6, rel=1e-2) for value in curve(fit, "target"))


def looks(monkeypatch: Any, measured: list[float | None], target: str = "negation") -> None:
    """Let the checks of a fit measure these values in turn; None ends it."""
    make = getattr(objectives, target)

    def check() -> dict[str, float] | None:
        value = measured.pop(0)
        return None if value is None else {"measured": value}

    monkeypatch.setattr(objectives, target, lambda *arguments: make(*arguments)._replace(check=check))


@pytest.mark.parametrize(
    ("measured", "best"), [([0.9, 0.3, 0.5, None], 3), ([0.9, 0.95, None], 0), ([0.9, 0.8, 0.8, 0.8], 3)]
)
def test_the_best_check_is_taken(made: Any, tmp_path: Path, monkeypatch: Any, measured: Any, best: int) -> None:
    """The start is checked, and then every third step; of equal checks the first counts."""
    given = {"data": "d", "control": "c", "learning_rate": 0.05, "check_steps": 3, "steps": 9}
    until = job(made, tmp_path / "until", "atlas_negation", **{**given, "steps": max(best, 1)})
    ended = measured[-1] is None
    looks(monkeypatch, [*measured])
    fit = job(made, tmp_path / "fit", "atlas_negation", **given)
    metrics = atlas_negation.fit(fit)
    assert (metrics["best_step"], metrics["ended_by_check"]) == (best, ended)
    assert metrics["measured"] == measured[best // 3] and metrics["steps"] == (3 * (len(measured) - 1) if ended else 9)
    monkeypatch.undo()
    if best:
        looks(monkeypatch, [1.0, 0.0])
        atlas_negation.fit(until)
        assert table(until, "coefficients") == table(fit, "coefficients")
    else:
        assert {row["value"] for row in table(fit, "coefficients")} == {0.0}


def test_a_broken_off_fit_knows_its_best_check(made: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """The fit is checked every third step; it breaks off between two checks."""
    backward = learning.backward
    given = {"data": "d", "control": "c", "learning_rate": 0.05, "check_steps": 3, "steps": 9, "checkpoint_steps": 1}

    def failing(job: Fit, composition: Any, objective: Any, step: int) -> Any:
        if step == 4:
            raise RuntimeError("power cut")
        return backward(job, composition, objective, step)

    whole, broken = (job(made, tmp_path / name, "atlas_negation", **given) for name in ("whole", "broken"))
    with monkeypatch.context() as once:
        looks(once, [0.9, 0.3, 0.5, None])
        metrics = atlas_negation.fit(whole)
    with monkeypatch.context() as once:
        looks(once, [0.9, 0.3])
        once.setattr(learning, "backward", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            atlas_negation.fit(broken)
    looks(monkeypatch, [0.5, None])
    assert atlas_negation.fit(broken) == metrics and metrics["best_step"] == 3
    assert table(whole, "coefficients") == table(broken, "coefficients")


def test_negation_checks_both_sides(made: Any, tmp_path: Path) -> None:
    """The lowest target accuracy is taken of the checks at which the control was kept."""
    given = {"data": "d", "control": "c", "learning_rate": 0.3, "check_steps": 1, "steps": 12, "keep": 0.8}
    fit = job(made, tmp_path, "atlas_negation", **given)
    metrics = atlas_negation.fit(fit)
    assert metrics["control_accuracy"] >= 0.8 * metrics["control_accuracy_start"]
    assert metrics["target_accuracy"] == min(curve(fit, "target_accuracy"))


ROLES = [Plug(name="self_role", settings={"role_tokens": 6})]


def test_options_are_asked_as_an_eval_asks_them(made: Any, tmp_path: Path) -> None:
    """Under a context that lets the model write first: the role is the one that the engine writes, and the options
    stand behind it."""
    model, tokenizer = chains.load(made[0], "float32", "cpu")
    fit = replace(job(made, tmp_path, "atlas_adaptation"), contexts=ROLES)
    asked = option_entropy.Questions(fit, model, tokenizer, fit.settings.data[0])
    attention = model.config._attn_implementation
    with torch.no_grad():
        found = option_entropy.log_probabilities(model, asked.ask(asked.rows), "cpu")
    assert model.config._attn_implementation == attention
    arm = policy.over(model, tokenizer, 4, ROLES)
    for row, ours in zip(questions(), found, strict=True):
        turns = arm.turns(row, Request(row["messages"], options=tuple(row["reference"]["options"])))
        (writes,) = step(turns, None)
        (role,) = arm.engine.generate([arm.prompt_for(writes, Draw(0))])
        (compares,) = step(turns, [Outcome.of(role)])
        (answers,) = arm.engine.loglikelihood([arm.prompt_for(compares, Draw(0))])
        expected = torch.tensor([answer.logprob_sum for answer in answers]).log_softmax(0)
        torch.testing.assert_close(ours, expected.float(), rtol=1e-4, atol=1e-4)


def test_a_fit_under_a_context_that_writes_learns(made: Any, tmp_path: Path) -> None:
    given = {"data": {"q": {"self_role": {"role_tokens": 6}}}, "learning_rate": 0.05, "steps": 12, "batch_size": 6}
    fit = job(made, tmp_path, "atlas_adaptation", **given)
    metrics = atlas_adaptation.fit(fit)
    assert metrics["final_loss"] < metrics["first_loss"] and metrics["tokens"] > 0
    long = job(made, tmp_path / "long", "atlas_adaptation", **{**given, "max_length": 20})
    with pytest.raises(ImprintError, match=r"dataset 'q', example .* may have \d+ tokens, more than max_length: 20"):
        atlas_adaptation.fit(long)


def test_adapting_arms_are_marked_transductive() -> None:
    raw = one_fit()
    raw["arms"]["adapted"] = {
        "parent": "base",
        "fit": {"method": "adamerging", "vectors": ["tuned"], "data": "general"},
    }
    with pytest.raises(ImprintError, match=r"arms.adapted: adamerging .* write `transductive: true`"):
        loading.parse(raw)
    raw["arms"]["adapted"]["transductive"] = True
    child = {"parent": "base", "fit": {"method": "ties", "vectors": ["adapted", "tuned"]}}
    raw["arms"] |= {"child": child, "prompted": {"parent": "child", "apply": {"context": "role_play"}}}
    made = loading.parse(raw)
    marked = [name for name, adapted in graph.transductive(made).items() if adapted]
    assert marked == ["adapted", "child", "prompted"], "what is made from an adapted arm has adapted too"
