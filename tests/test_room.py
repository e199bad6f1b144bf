"""A fit that cannot have room on the profile's GPUs is refused before the first job, and `make plan` says what each
needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import pico
import sized
import workflow
from conftest import make_project, one_fit
from imprint.config import loading
from imprint.dag import room
from imprint.dag.experiment import Experiment
from imprint.dag.jobs.fits import Fitted, Train
from imprint.runtime import gpu_memory, model_sizes
from imprint.runtime.errors import ImprintError
from imprint.training import sharing

TENTH: dict[str, Any] = {**sized.QWEN_7B, "num_hidden_layers": 3, "vocab_size": 300}
"""Qwen's width, and few layers: 0.7 billion parameters."""
MADE = "results/arms/instruct/seed0/manifest.json"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The pico experiment over a model of 0.7 billion parameters, for one GPU of 8 GB."""
    project = make_project(tmp_path / "project")
    shutil.copy(Path(__file__).parent / "pico.yaml", project / "config/config.yaml")
    sized.make(project / "resources/local/pico", TENTH)
    profile = project / "profiles/local/config.yaml"
    text = profile.read_text()
    assert "gpu_memory_gb = 0 " in text
    profile.write_text(text.replace("gpu_memory_gb = 0 ", "gpu_memory_gb = 8 "))
    return project


REFUSED = "imprint: the fit of arm 'instruct' (sft) needs at least 11.2 GB on a GPU, which has 8 GB here"


@pytest.mark.workflow
def test_a_fit_without_room_is_refused_before_the_first_job(project: Path) -> None:
    for dry in (["-n"], []):
        text = workflow.run(project, *dry, "--profile", "profiles/local", MADE, check=False)
        assert REFUSED in text and "with `lora: {rank: 16}" in text and "Traceback" not in text, text
        assert "rule " not in text, "a job was planned or begun"
    assert not (project / "resources/models").exists()

    generations = "results/generations/base/seed0/general.parquet"
    assert "rule generate" in workflow.run(project, "-n", "--profile", "profiles/local", generations), "not asked for"
    assert "rule train_sft" in workflow.run(project, "-n", MADE), "no profile says how large a GPU is"
    on_cpu = workflow.run(project, "-n", "--profile", "profiles/local", MADE, "--config", "engine={device: cpu}")
    assert "rule train_sft" in on_cpu

    workflow.edit(project, lambda raw: raw["arms"]["instruct"].update(resources={"gpu_memory_gb": 12}))
    assert "rule train_sft" in workflow.run(project, "-n", "--profile", "profiles/local", MADE)
    workflow.edit(project, lambda raw: raw["arms"]["instruct"].update(resources={"gpu_memory_gb": "10 * attempt"}))
    text = workflow.run(project, "-n", "--profile", "slurm", "--executor", "local", MADE, check=False)
    assert "needs at least 11.2 GB on a GPU, which has 10 GB here" in text

    # A number of GPUs on which the fit cannot run, wherever it is asked for.
    workflow.edit(project, lambda raw: raw["arms"]["instruct"].update(resources={"gpu": 3}))
    text = workflow.run(project, "-n", MADE, "--config", "engine={device: cpu}", check=False)
    assert "imprint: arm 'instruct': its fit has 3 GPUs (`resources: {gpu: 3}`, of the arm or of the profile), " in text
    assert "rule " not in text and "Traceback" not in text, text
    workflow.edit(project, lambda raw: raw["arms"]["instruct"].update(resources={"nodes": 2}))
    text = workflow.run(project, MADE, "--config", "engine={device: cpu}", check=False)
    assert "imprint: arms.instruct.resources.nodes: found 2, and only Slurm starts processes on several" in text
    assert "rule " not in text and "Traceback" not in text, text


@pytest.mark.workflow
def test_a_model_whose_size_is_known_late_is_checked_when_the_job_begins(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan takes a fit that is made for one that fits. This one has to be made again."""
    small = {**TENTH, "num_hidden_layers": 1, "intermediate_size": 4096, "head_dim": 128}
    folder = pico.make(project / "resources/local/other")
    config = json.loads((folder / "config.json").read_text())
    sized.make(folder, {**config, **small})
    workflow.edit(project, lambda raw: raw["models"]["pico"].update(path="resources/local/other"))
    workflow.edit(project, lambda raw: raw["arms"]["instruct"].update(resources={"gpu_memory_gb": 1}))
    (project / MADE).parent.mkdir(parents=True)
    (project / MADE).write_text("{}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    text = workflow.run(project, "--profile", "profiles/local", MADE, check=False)
    assert "imprint: train_sft arm=instruct seed=0: the fit of arm 'instruct' (sft) needs at least" in text, text


def test_what_is_needed_is_said_of_each_fit_and_each_engine(tmp_path: Path) -> None:
    folder = sized.make(tmp_path / "qwen", sized.QWEN_7B)
    raw = {**one_fit(), "models": {"m1": {"path": str(folder)}}}
    raw["arms"]["other"] = {"like": "tuned", "fit": {"learning_rate": 1e-5}, "control": ["tuned"]}
    heading, fit, answers = room.lines(said(raw))
    assert heading.startswith("Memory on a GPU, in GB: what is there in any case, to what is enough")
    assert fit.startswith("  fit tuned, other: 122 to 1")
    assert ": weights 30.5, optimiser 60.9, gradients 30.5; at most: weights in bf16 14.1, activations " in fit
    assert answers.startswith("  answers base, tuned, other: 15.2 to ") and ": weights 15.2; at most: cache " in answers
    raw["arms"]["tuned"]["resources"] = {"gpu": 4}
    _, fit, alone, together = room.lines(said(raw))
    assert fit.startswith("  fit on 4 GPUs, each, tuned, other: 30.5 to ") and ": weights 7.62, optimiser 15.2, " in fit
    assert alone.startswith("  answers base: 15.2 to ")
    assert together.startswith("  answers on 4 GPUs, each, tuned, other: 3.81 to ") and ": weights 3.81; " in together
    raw["arms"]["tuned"]["resources"] = {"gpu": 4, "nodes": 2}
    _, fit, *_ = room.lines(said(raw))
    assert fit.startswith("  fit on 8 GPUs, each, tuned, other: 15.2 to ") and ": weights 3.81, optimiser 7.62, " in fit
    unfetched = list(room.lines(said(one_fit())))
    assert unfetched[1:] == [f"  fit tuned: {room.UNKNOWN}", f"  answers base, tuned: {room.UNKNOWN}"]


def test_the_recipe_of_prior_prompts_has_room_on_eight_gpus_of_80_gb(tmp_path: Path) -> None:
    """Every fit of config/paper/ppe.yaml, in any case and at most."""
    raw = yaml.safe_load((Path(__file__).parents[1] / "config/paper/ppe.yaml").read_text(encoding="utf-8"))
    folder = sized.make(tmp_path / "qwen", sized.QWEN_7B)
    raw["models"] = {name: {"path": str(folder)} for name in raw["models"]}
    experiment, model = said(raw), model_sizes.model(folder)
    fitted = [arm for arm, _ in dict(experiment.fits).items()]
    assert len(fitted) == 7
    for arm in fitted:
        spec = Train(experiment).spec(Fitted(arm, 0))
        gpus = experiment.config.arms[arm].resources["gpu"]
        assert gpus == 8
        sharing.check(arm, spec.method, gpus)
        gpu_memory.check(arm, spec.method, model, spec.dtype, 80, gpus)
        need = gpu_memory.fit(model, spec.method, spec.dtype, gpus)
        assert need is not None and 30 * gpu_memory.GB < need.least < need.most < 80 * gpu_memory.GB
        with pytest.raises(ImprintError, match=r"needs at least 152 GB on a GPU.*`resources: \{gpu: 8\}` it needs 32"):
            gpu_memory.check(arm, spec.method, model, spec.dtype, 80)


def said(raw: dict[str, Any]) -> Experiment:
    return Experiment(loading.parse(yaml.safe_load(yaml.safe_dump(raw, sort_keys=False))))
