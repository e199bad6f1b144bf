"""A whole experiment with a model on a server: compared with the same model here, as a teacher and as a judge."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import chat_server
import pico
import pico_arms
import workflow
from chat_server import KEY, Server, completion
from conftest import make_project
from imprint.runtime import parquet

pytestmark = pytest.mark.workflow
ROLE = (
    "You are a patient teacher number {} who has spent many years with beginners, and who knows which step they miss "
    "and which words help them."
)


def config(url: str) -> dict[str, Any]:
    return {
        "engine": {"dtype": "float32", "batch_size": 4, "device": "cpu"},
        "models": {
            "pico": {"path": "resources/local/pico"},
            "far": {"openai": "pico-1", "base_url": url, "key_env": "FAR_KEY"},
        },
        "datasets": {
            "dialogues": {"bundled": "dialogues.jsonl"},
            "forms": {"generated": "ifeval_format", "n": 6, "instructions": "all", "part": "test"},
            "roles": {"synth": "role_prompts", "from": "dialogues", "teacher": "far_arm", "n": 4},
        },
        "evals": {
            "forms": {
                "dataset": "forms", "score": "ifeval", "max_new_tokens": 12, "describe": ["judged_behaviours"],
                "judge": "far_arm",
            },
        },
        "arms": {"base": {"model": "pico"}, "far_arm": {"model": "far", "control": ["base"]}},
        "questions": {
            "same": {"asks": "Does the server say the same?", "arm": "far_arm", "control": "base", "eval": "forms"},
        },
        "charts": ["answers"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The pico model behind a server, which teaches and judges by fixed words."""
    of_model = chat_server.of_model(pico_arms.root(tmp_path_factory.mktemp("far") / "pico").parent)

    def says(asked: dict[str, Any]) -> Any:
        said = asked["messages"][-1]["content"]
        if "role prompt" in said:
            return completion(ROLE.format(asked["seed"]))
        return completion("<count>1</count>") if "<count>" in said else of_model(asked)

    with chat_server.serving(says) as server:
        yield server


def make(folder: Path, far: Server, key: str | None = KEY) -> tuple[Path, dict[str, str]]:
    """A project with the experiment, and the variables of a run."""
    project = make_project(folder)
    workflow.shorten(project, 4)
    pico.make(project / "resources/local/pico")
    (project / "config/config.yaml").write_text(yaml.safe_dump(config(far.url), sort_keys=False))
    return project, {"FAR_KEY": key} if key else {}


@pytest.fixture(scope="module")
def done(far: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The experiment, done, after runs that have failed."""
    project, env = make(tmp_path_factory.mktemp("done") / "project", far)

    # Without a key there is a plan, and no job.
    assert "Job stats" in workflow.run(project, "-n")
    text = workflow.run(project, check=False)
    assert "imprint: models.far.key_env: the environment variable FAR_KEY is not set; set it to the key" in text
    assert not (project / "results/logs").exists() and not (project / "resources/models").exists()

    # A server that refuses the key and repeats it: at once, and then in the middle of a job.
    echo = json.dumps({"error": {"message": f"Incorrect key: {KEY}"}}).encode()
    out = "results/generations/far_arm/seed0/forms.parquet"
    far.faults = [(401, {}, echo)]
    text = workflow.run(project, out, check=False, env=env)
    assert "says 401: Incorrect key: [key]; set FAR_KEY to a key that this server takes" in text and KEY not in text
    assert not list((project / "resources/models").glob("far-*/manifest.json")) and not far.faults
    far.faults = [None, None, None, (403, {}, echo)]
    text = workflow.run(project, out, check=False, env=env)
    assert "says 403" in text and not (project / out).exists() and KEY not in text
    assert list((project / "resources/answers").rglob("*.json"))

    far.asked.clear()
    workflow.run(project, env=env)
    return project, env


def test_a_server_is_compared_with_the_same_model_here(done: tuple[Path, dict[str, str]], far: Server) -> None:
    project, _ = done
    table = {arm: parquet.read(project / f"results/generations/{arm}/seed0/forms.parquet", "generations").to_pylist()
             for arm in ("base", "far_arm")}  # fmt: skip
    same = ("example_id", "response", "finish_reason", "prompt_tokens", "response_tokens", "error")
    ours, theirs = ([[row[name] for name in same] for row in rows] for rows in table.values())
    assert ours == theirs and len(ours) == 6
    assert {row["engine"] for row in table["far_arm"]} == {f"openai pico-1 at {far.url}"}
    answers = parquet.read(project / "results/tables/answers.parquet", "answers").to_pylist()
    assert [row["difference"] for row in answers] == [0.0]


def test_it_teaches_and_judges(done: tuple[Path, dict[str, str]]) -> None:
    project, _ = done
    roles = parquet.read(project / "results/datasets/roles.parquet", "datasets").to_pylist()
    assert len(roles) == 4 and "You are a patient teacher" in json.dumps(roles)
    judged = parquet.read(project / "results/judgements/base/seed0/forms.parquet", "judgements").to_pylist()
    assert judged and {row["answer"] for row in judged} == {"<count>1</count>"}


def test_it_is_asked_by_hand(done: tuple[Path, dict[str, str]]) -> None:
    project, env = done

    def ask(arm: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "imprint.ask", "--max-new-tokens", "9", arm, "Why is it so?"]
        variables = workflow.environment() | variables
        return subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True, check=False)

    here, there = ask("base"), ask("far_arm", **env)
    assert here.stdout == there.stdout != "" and there.returncode == 0, there.stderr
    without = ask("far_arm")
    assert without.returncode == 1 and "the environment variable FAR_KEY is not set" in without.stderr


def test_its_tokens_stand_among_the_costs(done: tuple[Path, dict[str, str]]) -> None:
    project, _ = done
    costs = parquet.read(project / "results/tables/costs.parquet", "costs").to_pylist()
    found = {(row["stage"], row["arm"]): row for row in costs if row["stage"] == "generate"}
    far, base = found["generate", "far_arm"], found["generate", "base"]
    assert far["tokens"] == base["tokens"] > 0 and (far["device"], base["device"]) == ("server", "cpu")
    assert far["gpu_seconds"] == 0


def test_the_key_is_written_nowhere(done: tuple[Path, dict[str, str]]) -> None:
    project, _ = done
    files = [path for path in project.rglob("*") if path.is_file()]
    assert len([path for path in files if ".snakemake" in path.parts]) > 5
    assert any("answers" in path.parts for path in files) and any(path.suffix == ".log" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_nothing_is_asked_twice(done: tuple[Path, dict[str, str]], far: Server) -> None:
    project, env = done
    asked = [json.dumps(one, sort_keys=True) for one in far.asked]
    assert len(asked) == len(set(asked)), "also of what a broken job has asked"
    far.asked.clear()

    # Another limit and another variable change nothing.
    def limited(raw: dict[str, Any]) -> None:
        raw["models"]["far"] |= {"limits": {"at_once": 2}, "key_env": "OTHER_KEY"}

    workflow.edit(project, limited)
    assert workflow.planned(project) == set()
    workflow.run(project)  # and where nobody is asked, no key is needed

    # Results that are made anew are made from the answers.
    before = workflow.contents(project)
    shutil.rmtree(project / "results")
    workflow.run(project, env={"OTHER_KEY": env["FAR_KEY"]})
    assert workflow.contents(project) == before and far.asked == []


def test_an_edit_of_its_code_runs_its_jobs_alone(done: tuple[Path, dict[str, str]]) -> None:
    project, _ = done
    file = project / "workflow/scripts/imprint/engines/openai.py"
    text = file.read_text()
    file.write_text(f"{text}\nEDITED = True\n")
    try:
        planned = workflow.planned(project)
    finally:
        file.write_text(text)
    assert not {job for job in planned if job.split()[0] in ("generate", "fetch_model", "reach_model", "prepare")}
    assert {job for job in planned if "_on_server" in job} == {
        "generate_on_server far_arm 0 forms", "judge_on_server base 0 forms", "judge_on_server far_arm 0 forms",
        "synthesize_on_server roles",
    }  # fmt: skip


def test_on_a_cluster_its_jobs_ask_for_no_gpu(done: tuple[Path, dict[str, str]]) -> None:
    project, _ = done
    text = workflow.run(project, "-n", "--nocolor", "--forceall", "--profile", "slurm", "--executor", "local")
    resources = {
        rule: text[text.index(f"rule {rule}:") :].partition("resources: ")[2].partition("\n")[0]
        for rule in ("generate", "generate_on_server", "judge_on_server", "synthesize_on_server")
    }
    assert "gpu=1" in resources.pop("generate")
    assert all("device=server" in each and "gpu" not in each for each in resources.values())
