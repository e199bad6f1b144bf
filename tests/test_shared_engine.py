"""The engine `transformers` on two ranks, which share a pico model by tensor parallelism: that it answers as one rank
does, and how it ends when a rank does. The ranks are two processes on the CPU, whose sums go through gloo."""

from __future__ import annotations

import os
import shutil
import signal
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import GPT2Config

import asking
import pico
import pico_arms
from imprint.engines import Candidates, Prompt, _shared, transformers
from imprint.models import chains
from imprint.policies import generation, policy
from imprint.runtime import job_record, model_sizes, processes
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_json, write_json
from imprint.runtime.plugins import Plug
from test_engine_contract import BATCH, LONGEST, OPTIONS, mixed, prompts, same


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A full fit, and an adapter that is merged into it: each rank has its part of both."""
    folder = tmp_path_factory.mktemp("models")
    root = pico_arms.root(folder / "pico")
    return pico_arms.lora(root, folder / "lora", below=pico_arms.full(root, folder / "full"))


@pytest.fixture(scope="module")
def two(chain: list[Path]) -> Any:
    return transformers.start(chain, "float32", "cpu", BATCH, 2)


def test_two_ranks_answer_as_one_does(chain: list[Path], two: Any) -> None:
    one = transformers.start(chain, "float32", "cpu", BATCH)
    assert (two.name, two.limit) == (f"{one.name}, 2 ranks", one.limit)
    asked = mixed(one)
    answers = two.generate(asked)
    same(answers, one.generate(asked))
    assert len({answer.text for answer in answers}) > len(asked) // 3
    again = two.generate(asked)
    assert [(answer.text, answer.logprob_sum) for answer in again] == [(a.text, a.logprob_sum) for a in answers]
    candidates = [Candidates(prompt.text, OPTIONS, prompt.breaks) for prompt in prompts(one)]
    for ours, theirs in zip(two.loglikelihood(candidates), one.loglikelihood(candidates), strict=True):
        same(ours, theirs)


def test_a_prompt_that_does_not_fit_is_refused_alone(two: Any) -> None:
    (fits, *_) = prompts(two, LONGEST)
    refused, answered = two.generate([Prompt("word " * 3000, 4), fits])
    assert "but the model has 2048 positions" in refused.error
    assert answered.error is None and answered.text


def test_a_job_on_two_ranks_writes_what_one_writes(chain: list[Path], tmp_path: Path, capfd: Any) -> None:
    """And its record says how many have answered. Of three GPUs, two can share two heads of keys and values."""
    dataset, tables = asking.questions(tmp_path / "d.parquet"), {}
    for gpus in (1, 3):
        job = asking.generation_job(chain[0], dataset, tmp_path / str(gpus))
        generation.run(**{**job, "manifests": chain, "threads": 2, "gpus": gpus})
        assert job_record._of_others["ranks"] == min(gpus, 2)
        tables[gpus], _ = asking.tables(job)
    assert "imprint: of 3 GPUs, 2 can share the answers (docs/scaling.md)" in capfd.readouterr().err
    assert {row["engine"].endswith(", 2 ranks") for row in tables[3]} == {True}
    for ours, theirs in zip(tables[3], tables[1], strict=True):
        assert (ours["example_id"], ours["response"]) == (theirs["example_id"], theirs["response"])


def test_a_rank_that_is_killed_ends_all_at_once(chain: list[Path]) -> None:
    engine = transformers.start(chain[:1], "float32", "cpu", BATCH, 2)
    started = [process.pid for process in engine._processes]
    os.kill(started[1], signal.SIGKILL)
    with pytest.raises(ImprintError, match=r"^rank 1 of the engine's 2 ranks was ended by SIGKILL .*run again"):
        engine.generate(prompts(engine))
    assert [processes.started(pid) for pid in started] == [None, None]


def test_what_one_rank_refuses_is_what_several_refuse(chain: list[Path], tmp_path: Path) -> None:
    broken = pico_arms.full(
        chain[0], tmp_path / "broken", change=lambda name, tensor: tensor if "norm" in name else None
    )
    # The weights lack all tensors but those of the norms.
    with pytest.raises(ImprintError) as alone:
        transformers.start(broken, "float32", "cpu", BATCH)
    with pytest.raises(ImprintError) as together:
        transformers.start(broken, "float32", "cpu", BATCH, 2)
    assert str(together.value) == str(alone.value) and "missing keys" in str(alone.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_on_weights_of_another_number_format(dtype: str, chain: list[Path], tmp_path: Path) -> None:
    """Weights that lie in bf16 answer in fp32 as those of one rank do. Those that lie in fp32 answer in bf16."""
    root = chain[0] if dtype == "bfloat16" else stored_in_bf16(chain[0], tmp_path / "bf16")
    adapted = pico_arms.lora(root, tmp_path / "lora")
    one, together = (transformers.start(adapted, dtype, "cpu", BATCH, ranks) for ranks in (1, 2))
    asked = prompts(one)
    answers = together.generate(asked)
    assert all(answer.error is None for answer in answers)
    if dtype == "float32":
        same(answers, one.generate(asked))


def stored_in_bf16(root: Path, folder: Path) -> Path:
    """A copy of a pico model whose weights lie in bf16."""
    shutil.copytree(root.parent, folder)
    file = folder / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {key: manifest[key] for key in ("kind", "fingerprint", "template_sha256")})
    return pico.sums(folder / "manifest.json")


def test_ranks_of_which_one_answers_late_do_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shared, "APART", 0.1)
    engine = object.__new__(_shared.Together)
    pipes = [Pipe() for _ in range(2)]
    engine._told, engine._running = [ours for ours, _ in pipes], _shared.ExitStack()
    pipes[1][1].send({"answer": None, "hash": "a", "used": {"device": "cpu"}})
    with pytest.raises(ImprintError, match="2 GPUs that share this model have computed different answers"):
        engine._answer()


def test_ranks_that_do_not_agree_give_no_answer() -> None:
    engine = object.__new__(_shared.Together)
    pipes = [Pipe() for _ in range(2)]
    engine._told, engine._running = [ours for ours, _ in pipes], _shared.ExitStack()
    for (_, theirs), hashed in zip(pipes, ("a", "b"), strict=True):
        theirs.send({"answer": ["text"], "hash": hashed, "used": {"device": "cpu"}})
    with pytest.raises(ImprintError, match=r"2 GPUs that share this model have computed different answers; write"):
        engine._answer()


def test_how_many_gpus_can_share_a_model(chain: list[Path], tmp_path: Path) -> None:
    assert [model_sizes.most_ranks(6, gpus) for gpus in (0, 1, 2, 3, 4, 5, 6, 8)] == [1, 1, 2, 3, 3, 3, 6, 6]
    assert [transformers.ranks(chain, gpus) for gpus in (0, 1, 2, 8)] == [1, 1, 2, 2]
    GPT2Config(n_head=4).save_pretrained(tmp_path)
    assert chains.most_ranks(tmp_path, 4) == 1, "transformers has no plan for this type"


def test_an_arm_with_hooks_answers_on_one_gpu(chain: list[Path], capfd: Any) -> None:
    spec = policy.Spec(engine="transformers", dtype="float32", batch_size=4)
    hooked = spec.model_copy(update={"hooks": [Plug(name="constant", settings={})]})
    assert policy.ranks(spec, chain, 2) == 2 and capfd.readouterr().err == ""
    assert policy.ranks(hooked, chain, 2) == 1 and "of 2 GPUs, 1 can share" in capfd.readouterr().err
    assert policy.ranks(spec.model_copy(update={"engine": "echo"}), chain, 2) == 1
    assert policy.where(spec, "cpu", 1) == ("cpu", "float32")
    assert policy.where(spec, "cpu", 2) == ("cpu", "float32", "2 ranks")
