"""Learning coefficients without ordinary supervision: unlearning under a guard, and adapting to unlabelled options."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

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
from imprint.runtime.errors import ImprintError


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
    with torch.no_grad():
        found = option_entropy.log_probabilities(model, option_entropy.questions(fit, tokenizer, "q"), "cpu")
    engine = Engine(model, tokenizer, 4)
    for row, ours in zip(questions(), found, strict=True):
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True)
        (answers,) = engine.loglikelihood([Candidates(text, tuple(row["reference"]["options"]))])
        expected = torch.tensor([answer.logprob_sum for answer in answers]).log_softmax(0)
        torch.testing.assert_close(ours, expected.float(), rtol=1e-4, atol=1e-4)


def test_entropy_falls_and_no_label_is_read(made: Any, tmp_path: Path) -> None:
    fit = job(made, tmp_path / "a", "atlas_adaptation", learning_rate=0.05, epochs=10)
    metrics = atlas_adaptation.fit(fit)
    assert 0 < metrics["final_loss"] < metrics["first_loss"] < 1.1
    other = job(made, tmp_path / "b", "atlas_adaptation", learning_rate=0.05, epochs=10)
    for row in other.inputs.datasets["q"]:
        row["reference"]["answer"] = 1
    assert atlas_adaptation.fit(other) == metrics


def test_pseudo_labels_count_above_the_threshold_only(made: Any, tmp_path: Path) -> None:
    common = {"objective": "pseudo_labels", "learning_rate": 0.05, "epochs": 6}
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


def test_rows_without_options_are_an_error(made: Any, tmp_path: Path) -> None:
    fit = job(made, tmp_path, "atlas_adaptation")
    fit.inputs.datasets["q"][2]["reference"] = None
    with pytest.raises(ImprintError, match=r"dataset 'q', example .* has no reference.options"):
        atlas_adaptation.fit(fit)


def test_negation_forgets_the_target(made: Any, tmp_path: Path) -> None:
    given = {"data": "d", "control": "c", "learning_rate": 0.05, "epochs": 4, "keep": 0.01}
    fit = job(made, tmp_path, "atlas_negation", **given)
    metrics = atlas_negation.fit(fit)
    target = curve(fit, "target")
    assert target[-1] < target[0] < 0 and not metrics["stopped_by_control"]
    assert min(target) >= -torch.log(torch.tensor(283.0 * 2))  # bounded


def test_the_bound_stops_the_push(made: Any, tmp_path: Path) -> None:
    """With a bound below every token's loss the target has no gradient: only the control and decay move."""
    fit = job(made, tmp_path, "atlas_negation", data="d", control="c", epochs=1, bound=1e-6, keep=0.01)
    atlas_negation.fit(fit)
    assert all(value == pytest.approx(-1e-6, rel=1e-2) for value in curve(fit, "target"))


def test_the_control_stops_learning_at_the_epoch_before(made: Any, tmp_path: Path, monkeypatch: Any) -> None:
    asked = iter([True, False])
    make = objectives.negation
    monkeypatch.setattr(objectives, "negation", lambda *a: make(*a)._replace(holds=lambda: next(asked)))
    given = {"data": "d", "control": "c", "learning_rate": 0.05, "keep": 1.0}
    two = job(made, tmp_path / "two", "atlas_negation", epochs=5, **given)
    metrics = atlas_negation.fit(two)
    assert metrics["stopped_by_control"] and metrics["steps"] == 6  # two epochs of three steps
    asked = iter([True])
    one = job(made, tmp_path / "one", "atlas_negation", epochs=1.2, **given)
    assert not atlas_negation.fit(one)["stopped_by_control"]
    assert table(one, "coefficients") == table(two, "coefficients")


def test_a_broken_off_fit_knows_what_the_control_was(made: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """The control is looked at after each epoch of three steps; the second look says no, in one process or in two."""
    make, backward = objectives.negation, learning.backward
    given = {"data": "d", "control": "c", "learning_rate": 0.05, "epochs": 5, "checkpoint_steps": 1}

    def negation(looks: list[bool], *arguments: Any) -> Any:
        objective = make(*arguments)

        def holds() -> bool:
            objective.metrics["control_accuracy"] = 0.5
            return looks.pop(0)

        return objective._replace(holds=holds)

    def failing(job: Fit, objective: Any, step: int) -> Any:
        if step == 4:
            raise RuntimeError("power cut")
        return backward(job, objective, step)

    whole, broken = (job(made, tmp_path / name, "atlas_negation", **given) for name in ("whole", "broken"))
    monkeypatch.setattr(objectives, "negation", partial(negation, [True, False]))
    metrics = atlas_negation.fit(whole)
    monkeypatch.setattr(objectives, "negation", partial(negation, [True]))
    with monkeypatch.context() as cut:
        cut.setattr(learning, "backward", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            atlas_negation.fit(broken)
    monkeypatch.setattr(objectives, "negation", lambda *arguments: make(*arguments)._replace(holds=lambda: False))
    assert atlas_negation.fit(broken) == metrics and metrics["stopped_by_control"]
    assert table(whole, "coefficients") == table(broken, "coefficients")


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
    marked = [name for name in made.arms if name in graph.transductive(made)]
    assert marked == ["adapted", "child", "prompted"], "what is made from an adapted arm has adapted too"
