"""config/paper/spt.yaml: the arms differ in what they are said to differ in, and train by LIMA's recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprint.config import graph, loading, strict_yaml
from imprint.config.schema import Config
from imprint.runtime.errors import ImprintError

PATH = Path(__file__).parent.parent / "config/paper/spt.yaml"
LIMA = {
    "epochs": 15,
    "batch_size": 32,
    "max_length": 2048,
    "learning_rate": 1e-5,
    "final_learning_rate": 1e-6,
    "schedule": "linear",
    "warmup_ratio": 0,
    "weight_decay": 0.1,
    "beta2": 0.95,
    "residual_dropout": 0.2,
    "lora": None,
}


@pytest.fixture(scope="module")
def config() -> Config:
    return loading.load([PATH])


def test_the_arms_differ_in_context_and_data_alone(config: Config) -> None:
    fits = {name: arm.fit for name, arm in config.arms.items() if arm.fit}
    assert set(fits) == {"instruct", "self_prompt", "self_prompt_shuffled"}
    settings = {name: fit.settings.model_dump() for name, fit in fits.items()}
    assert all(LIMA.items() <= values.items() for values in settings.values())
    assert settings["instruct"] == settings["self_prompt"]
    assert settings["self_prompt_shuffled"] == {**settings["instruct"], "data": "lima_shuffled"}
    assert fits["self_prompt"].context == fits["self_prompt_shuffled"].context != fits["instruct"].context
    for name in ("self_prompt", "self_prompt_shuffled"):
        assert config.arms[name].apply.context == fits[name].context


def test_it_asks_what_the_paper_asks(config: Config) -> None:
    sets = {"mmlu", "strategyqa", "commonsenseqa", "truthfulqa", "gsm8k", "humaneval"}
    for arm in ("base", "instruct", "self_prompt", "self_prompt_shuffled"):
        assert set(graph.evals_of(config, arm)) == sets
    assert not graph.evals_of(config, "annotator")
    assert {dataset for arm in config.arms for dataset in graph.sees(config, arm)} == {"lima_role", "lima_shuffled"}


def test_limas_licence_must_be_accepted() -> None:
    raw = strict_yaml.load(PATH)
    del raw["accept_licences"]
    with pytest.raises(ImprintError, match=r"'lima' is for non-commercial use .* write `accept_licences: \[lima\]`"):
        loading.parse(raw)


def test_the_try_on_the_embedded_model_is_a_config() -> None:
    """The overrides that the head of the file names."""
    smollm2 = {"model": "smollm2"}
    overrides = {"arms": {"base": smollm2, "annotator": smollm2}, "datasets": {"lima_role": {"min_yield": 0.25}}}
    config = loading.load([PATH], {**overrides, "limit": 8})
    assert {graph.root_model(config, arm) for arm in config.arms} == {"smollm2"}
