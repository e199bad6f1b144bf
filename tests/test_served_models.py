"""Models on servers in a config: what is refused, what enters an identity, which jobs there are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import generated
from chat_server import KEY
from conftest import one_fit
from imprint.config import loading
from imprint.dag import served
from imprint.dag.experiment import Experiment
from imprint.runtime import servers
from imprint.runtime.errors import ImprintError

FAR = {"openai": "org/m-1:2026", "base_url": "https://api.example.org/v1/", "key_env": "FAR_KEY"}


def raw(**changes: Any) -> dict[str, Any]:
    """A config with an arm of a server's model, which also teaches and judges."""
    more = {
        "models": {"far": FAR},
        "datasets": {
            "roles": {"synth": "role_prompts", "from": "dialogues", "teacher": "far_arm"},
            "forms": {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"},
        },
        "evals": {
            "general": {"arms": ["base", "tuned"]},
            "forms": {"dataset": "forms", "score": "ifeval", "describe": ["judged_behaviours"], "judge": "far_arm"},
        },
        "arms": {"far_arm": {"model": "far", "control": ["base"]}},
    }
    return loading.merge(loading.merge(one_fit(), more), changes)


def test_a_model_says_that_it_is_on_a_server() -> None:
    config = loading.parse(raw())
    far = config.models["far"]
    assert far.base_url == "https://api.example.org/v1", "a slash at the end means nothing"
    assert (far.limits.at_once, far.limits.per_minute, far.limits.tokens) == (8, None, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base_url": None}, "openai needs a server; write `base_url: https://...`"),
        ({"hub": "a/b", "revision": "0" * 40}, "found hub and openai; write exactly one of"),
        ({"engine": "transformers"}, "engine: the server has its own; leave it out"),
        ({"chat_template": "plain"}, "chat_template: the server has its own"),
        ({"base_url": "ftp://a/v1"}, "write http:// or https://"),
        ({"base_url": "file:///etc/passwd"}, "write http:// or https://"),
        ({"base_url": "https://"}, "write http:// or https://"),
        ({"base_url": "https://a/v1?key=1"}, "a host and a path, and nothing else"),
        ({"base_url": "https://a/v1#x"}, "a host and a path, and nothing else"),
        ({"base_url": "https://a b/v1"}, "a host and a path, and nothing else"),
        ({"base_url": "https://a/v1\r\nX: 1"}, "a host and a path, and nothing else"),
        ({"base_url": "https://a:port/v1"}, "no address"),
        ({"base_url": "https://[::1/v1"}, "no address"),
        ({"base_url": "https://a/v1/chat/completions"}, "without `/chat/completions`"),
        ({"openai": "a b"}, "openai"),
        ({"limits": {"at_once": 0}}, "limits.at_once"),
        ({"limits": {"per_second": 1}}, "unknown key 'per_second'"),
    ],
)
def test_a_broken_one_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ImprintError) as caught:
        loading.parse(raw(models={"far": changes}))
    assert "models.far" in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"key_env": KEY},
        {"key_env": "PATH"},
        {"key_env": "far_key"},
        {"base_url": f"https://user:{KEY}@a/v1"},
        {"base_url": f"https://{KEY}@a/v1"},
        {"key": KEY},
        {"api_key": KEY},
    ],
)
def test_a_key_in_the_config_is_refused_without_showing_it(changes: dict[str, Any]) -> None:
    with pytest.raises(ImprintError, match=r"models\.far") as caught:
        loading.parse(raw(models={"far": changes}))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", ["base_url", "key_env", "limits"])
def test_what_belongs_to_a_server_is_refused_of_others(key: str) -> None:
    value = {"limits": {"tokens": 5}}.get(key, FAR.get(key))
    with pytest.raises(ImprintError, match=rf"models\.m1: {key}: it is for a model on a server"):
        loading.parse(raw(models={"m1": {key: value}}))


def test_the_engine_is_no_choice() -> None:
    for changes in ({"engine": {"name": "openai"}}, {"models": {"m1": {"engine": "openai"}}}):
        with pytest.raises(ImprintError, match="'openai' asks a server; write `models"):
            loading.parse(raw(**changes))
    alone = raw(engine={"name": "echo"})
    del alone["arms"]["tuned"], alone["evals"]["general"]
    stage = generated.plan(alone)
    generate: Any = stage["generate"]
    assert {job.arm: generate.spec(job).policy.engine for job in generate.jobs()} == {
        "base": "echo", "far_arm": "openai"
    }  # fmt: skip


SFT = {"method": "sft", "data": "dialogues"}
SUM = {"method": "task_arithmetic", "scale": 1.0}
LACKS = "the model 'far' is on a server, which gives no {}; take a model with weights"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evals": {"general": {"arms": None}}}, "arms.far_arm: the eval 'general' cannot be asked: loglikelihood"),
        (
            {"arms": {"far_arm": {"apply": {"hooks": {"constant": {"add": 1.0, "layer": 0}}}}}},
            "arms.far_arm.apply.hooks: hooks",
        ),
        ({"arms": {"more": {"parent": "far_arm", "fit": SFT}}}, "arms.more.fit: weights"),
        (
            {"arms": {"far_arm": {"apply": {"decode": {"best_of": 4}}}}},
            "arms.far_arm.apply.decode: 'best_of' asks how likely the draws are: loglikelihood",
        ),
        (
            {"arms": {"sum": {"parent": "base", "fit": {**SUM, "vectors": ["tuned", "far_arm"]}}}},
            "arms.sum.fit: reads the weights of 'far_arm': weights",
        ),
        (
            {"analyses": {"alike": {"vector_similarity": ["tuned", "far_arm"]}}},
            "analyses.alike: reads the weights of 'far_arm': weights",
        ),
        (
            {"analyses": {"levels": {"role_geometry": {"arm": "far_arm", "roles": "dialogues", "layer": 0}}}},
            "analyses.levels: hooks",
        ),
    ],
)  # fmt: skip
def test_what_a_server_cannot_give_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ImprintError) as caught:
        loading.parse(raw(**changes))
    where, _, ability = said.rpartition(": ")
    assert f"{where}: {LACKS.format(ability)}" in str(caught.value)


def test_resources_are_for_jobs_with_weights() -> None:
    with pytest.raises(ImprintError, match=r"arms\.far_arm\.resources: the arm's model is on a server, so"):
        loading.parse(raw(arms={"far_arm": {"resources": {"gpu": 1}}}))


def test_how_a_server_is_asked_enters_no_identity() -> None:
    def params(**far: Any) -> set[str]:
        stage = generated.plan(raw(models={"far": far}))
        return {
            f"{name} {job} {jobs.params(job)} {jobs.files_of(job)} {jobs.inputs(job)}"
            for name, jobs in stage.items() for job in jobs.jobs() if name not in ("report", "plot")
        }  # fmt: skip

    plain = params()
    assert params(key_env=None) == params(key_env="OTHER_TOKEN") == plain
    assert params(limits={"at_once": 1, "per_minute": 3, "tokens": 10}) == plain
    assert params(openai="m-2") != plain and params(base_url="https://b/v1") != plain


def test_models_with_weights_keep_their_identity() -> None:
    experiment = Experiment(loading.parse(one_fit()))
    assert experiment.model_spec("m1") == {"hub": "a/b", "revision": "0" * 40}


def test_jobs_of_servers_run_its_engine_and_others_do_not() -> None:
    stage = generated.plan(raw())
    on_server, engines = set(), {}
    for name, jobs in stage.items():
        for job in jobs.jobs():
            if jobs.on_server(job):
                on_server.add(" ".join([name, *map(str, job)]))
            found = {file for file in json.loads(jobs.code(job)) if "/engines/" in file and "__init__" not in file}
            engines[name, jobs.on_server(job)] = {Path(file).stem for file in found}
    assert on_server == {
        "synthesize roles", "generate far_arm 0 forms", "judge base 0 forms", "judge tuned 0 forms",
        "judge far_arm 0 forms",
    }  # fmt: skip
    ours = {"openai", "_openai_kept", "_openai_wire", "_openai_forms"}
    for (name, served_job), found in engines.items():
        if name != "reach_model":
            assert (found == ours) if served_job else not found & ours, name
    reached: Any = stage["reach_model"]
    (job,) = reached.jobs()
    assert reached.spec(job).model_dump() == {"openai": "org/m-1:2026", "base_url": "https://api.example.org/v1"}
    assert job.model.startswith("far-") and not [m for m in stage["fetch_model"].jobs() if m.model == job.model]  # type: ignore[attr-defined]


def test_jobs_are_told_how_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(servers.TOLD, "{}")
    monkeypatch.setenv("FAR_KEY", KEY)
    experiment = Experiment(loading.parse(raw(models={"far": {"limits": {"per_minute": 3}}})))
    served.tell(experiment)
    access = servers.access(experiment.model_key("far"))
    assert (access.key_env, access.limits.per_minute, access.limits.at_once) == ("FAR_KEY", 3, 8)
    assert KEY not in os.environ[servers.TOLD]
    assert served.device(experiment, "far_arm") == "server" and served.device(experiment, "base") == "auto"
