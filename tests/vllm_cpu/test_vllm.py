"""vLLM itself, on a CPU and a pico model: it is asked what every engine is asked, answers what `transformers` answers,
and ends when it must."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import fitting
import pico
import pico_arms
import test_grpo
import workflow
from conftest import ROOT, make_project
from fitting import curve, table, weights
from imprint.engines import Candidates, Running, _vllm_process, transformers, vllm
from imprint.methods import grpo
from imprint.models import chains
from imprint.runtime import job_record, parquet, processes
from imprint.runtime.errors import ImprintError
from test_engine_contract import *  # noqa: F403  # all of its tests, on this file's engine
from test_engine_contract import BATCH, OPTIONS, prompts, same

WIDTH = 128
"""Of the model: vLLM's attention on a CPU takes heads of 32 and more."""
SEED = 6
"""Of the model: its end token comes now and then."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_arms.root(tmp_path_factory.mktemp("model") / "pico", SEED, width=WIDTH)


@pytest.fixture(scope="module", params=["vllm"])
def engine(root: Path) -> Running:
    return vllm.start([root], "float32", "cpu", BATCH)


def agree(engine: Running, chain: list[Path]) -> None:
    """Assert that an engine has the greedy answers and the likelihoods of transformers."""
    reference = transformers.start(chain, "float32", "cpu", BATCH)
    assert engine.limit == reference.limit
    same(engine.generate(prompts(engine, 40)), reference.generate(prompts(engine, 40)))
    candidates = [Candidates(one.text, OPTIONS, one.breaks) for one in prompts(engine)]
    for ours, theirs in zip(engine.loglikelihood(candidates), reference.loglikelihood(candidates), strict=True):
        same(ours, theirs)


def test_it_answers_in_fp32_as_transformers_does(root: Path, engine: Running) -> None:
    agree(engine, [root])


def test_an_option_may_end_at_the_models_last_position(root: Path, engine: Running) -> None:
    reference = transformers.start([root], "float32", "cpu", BATCH)
    assert engine.limit == 2048
    for length, answered in ((2044, True), (2045, False)):
        asked = [Candidates("x" * length, ("yes!",))]  # of four tokens
        assert len(engine.tokens("yes!")) == 4
        ((ours,),), ((theirs,),) = engine.loglikelihood(asked), reference.loglikelihood(asked)
        assert (ours.error is None, theirs.error is None) == (answered, answered)
        if answered:
            assert ours.logprob_sum == pytest.approx(theirs.logprob_sum, abs=1e-3)


def test_a_chain_with_an_adapter_and_its_killed_process(root: Path, tmp_path: Path) -> None:
    chain = pico_arms.lora(root, tmp_path / "lora", below=pico_arms.full(root, tmp_path / "full"))
    engine = vllm.Engine(chain, "float32", "cpu", BATCH)
    agree(engine, chain)
    os.kill(engine._process._process.pid, signal.SIGKILL)
    with pytest.raises(ImprintError, match=r"the process of vLLM was ended by SIGKILL .*run again"):
        engine.generate(prompts(engine))


def renewed(chain: list[Path], names: str = "") -> list[tuple[str, torch.Tensor]]:
    """The weights of a chain whose names have this text in them."""
    model, _ = chains.load(chain, "float32", "cpu")
    return [(name, weight) for name, weight in model.named_parameters() if names in name]


def test_it_takes_over_weights(root: Path, tmp_path: Path) -> None:
    """All of them, then those of one layer, then all again."""
    full = pico_arms.full(root, tmp_path / "full", size=0.05)
    engine: Any = vllm.sampler([root], "float32", "cpu", BATCH, 40)
    agree(engine, [root])
    engine.renew(renewed(full))
    agree(engine, full)
    engine.renew(renewed([root]))
    engine.renew(renewed(pico_arms.lora(root, tmp_path / "lora"), ".layers.0."))
    agree(engine, pico_arms.lora(root, tmp_path / "again"))
    engine.renew(renewed([root]))
    agree(engine, [root])
    asked = prompts(engine, 40)
    tokens = [engine.tokens(one.text, one.breaks) for one in asked]
    drawn = [(row.text(), row.reason, len(row.tokens)) for row in engine.decode(asked, tokens)]
    assert drawn == [(one.text, one.finish_reason, one.response_tokens) for one in engine.generate(asked)]


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_a_fit_that_draws_with_it_goes_on_to_the_same_bits(root: Path, tmp_path: Path, lora: Any) -> None:
    settings = {"sampler": "vllm", "lora": lora, "learning_rate": 1e-3, "steps": 4, "checkpoint_steps": 2}
    whole, killed = (test_grpo.job(root, tmp_path / name, **settings) for name in ("whole", "killed"))
    expected = grpo.fit(whole)
    assert expected["steps"] == 4 and any(curve(whole, "grad_norm"))
    fitting.kill("grpo", killed, ("imprint.training.grpo_trainer.Trainer", "training_step"), 2)
    assert grpo.fit(killed) == expected
    assert weights(killed) == weights(whole)
    assert table(killed, "rollouts") == table(whole, "rollouts")


def test_the_benchmark_beside_vllm_alone_has_the_same_tokens(root: Path, tmp_path: Path) -> None:
    asked = tmp_path / "prompts.jsonl"
    asked.write_text(
        "".join(json.dumps({"prompt": f"Write about {word}."}) + "\n" for word in ("rain", "bread", "sea"))
    )
    sizes = ["--rows", "3", "--tokens", "12", "--sequences", "2", "--rounds", "1", "--dtype", "float32"]
    done = subprocess.run(
        [sys.executable, "benchmarks/vllm_generation.py", str(root.parent), str(asked), "--device", "cpu", *sizes],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/workflow/scripts"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same_tokens"] == found["prompts"] == 3 and found["tokens_per_second"] > 0


JOB = """
import json, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from imprint.engines import vllm
from test_engine_contract import mixed
engine = vllm.start([Path(sys.argv[1])], "bfloat16", "cpu", 4)
answers = [[(one.text, one.logprob_sum) for one in engine.generate(mixed(engine))] for _ in range(2)]
print(json.dumps([engine.name, engine._process._process.pid, answers]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_in_bf16_the_same_shard_has_the_same_bits_and_a_killed_job_leaves_no_process(root: Path) -> None:
    told = []
    for _ in range(2):
        job = subprocess.run(
            [sys.executable, "-c", JOB, str(root)],
            env={**os.environ, "PYTHONPATH": f"{ROOT}/workflow/scripts:{ROOT}/tests"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert job.returncode == -signal.SIGKILL, job.stderr
        name, pid, answers = json.loads(job.stdout)
        deadline = time.monotonic() + 20
        while processes.started(pid) is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert processes.started(pid) is None
        told += answers
    assert name.endswith(" bfloat16 cpu")
    assert all(answers == told[0] for answers in told)


@pytest.mark.workflow
def test_a_workflow_with_it(tmp_path: Path) -> None:
    """One arm answers through vLLM, and one through transformers; greedy answers are the same."""
    project = make_project(tmp_path / "project")
    workflow.shorten(project, 4)
    pico.make(project / "resources/local/pico", SEED, width=WIDTH)
    (project / ".venv-vllm").symlink_to(_vllm_process.PYTHON.parents[1])
    config = {
        "engine": {"dtype": "float32", "batch_size": 4, "device": "cpu"},
        "models": {
            "pico": {"path": "resources/local/pico"},
            "quick": {"path": "resources/local/pico", "engine": "vllm"},
        },
        "datasets": {"forms": {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"}},
        "evals": {"forms": {"dataset": "forms", "score": "ifeval", "max_new_tokens": 12}},
        "arms": {"base": {"model": "pico"}, "quick": {"model": "quick", "control": ["base"]}},
        "questions": {"same": {"asks": "Is it the same?", "arm": "quick", "control": "base", "eval": "forms"}},
        "charts": ["answers"],
    }
    (project / "config/config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    workflow.run(project)
    base, quick = (
        parquet.read(project / f"results/generations/{arm}/seed0/forms.parquet", "generations").to_pylist()
        for arm in ("base", "quick")
    )
    assert [row["response"] for row in quick] == [row["response"] for row in base]
    assert {row["engine"] for row in quick} == {"vllm 0.30.0 float32 cpu"}
    (attempt,) = job_record.read(project / "results/generations/quick/seed0/forms.job.json")
    assert attempt["ended"] and attempt["device"] == "cpu"
    log = (project / "results/logs/generate/quick.seed0.forms.log").read_text()
    assert "Traceback" not in log
