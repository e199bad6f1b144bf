"""Plug-ins that read datasets, artifacts and runs, in whole pipelines: each gets what it declares, at each seed, and is
made anew when that changes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import pico
import workflow
from conftest import make_project
from imprint.runtime import parquet

pytestmark = pytest.mark.workflow

PACKAGE = "workflow/scripts/imprint"
HEAD = '''"""A plug-in of a test."""

from __future__ import annotations

from imprint.policies.dialogue import Outcome, Request
from imprint.runtime import parquet
from imprint.runtime.identity import read_json
from imprint.runtime.plugins import Inputs, Strict


class Settings(Strict):
    datasets: list[str] = []
    arms: list[str] = []
    runs: list[list[str]] = []


def inputs(settings):
    return Inputs(tuple(settings.datasets), tuple(settings.arms), tuple(tuple(run) for run in settings.runs))


def responses(path):
    return [row["response"] or "" for row in parquet.read(path, "generations").to_pylist() if row["final"]]


def told(inputs):
    """All that was read, in a few words."""
    rows = {name: len(rows) for name, rows in inputs.datasets.items()}
    fits = {name: [read_json(path)["kind"] for path in chain] for name, chain in inputs.arms.items()}
    runs = {" ".join(run): len("".join(responses(path))) for run, path in inputs.runs.items()}
    return f"<{rows} {fits} {runs}>".replace("'", "")


def asked(request, inputs):
    first, *rest = request.messages
    return Request([{**first, "content": told(inputs) + first["content"]}, *rest], max_new_tokens=6)


'''
PLUGINS = {
    "contexts/remembers": '''
def turns(request, row, settings, inputs):
    yield [asked(request, inputs)]
    return None
''',
    "environments/says": '''
def turns(row, settings, inputs):
    yield [asked(Request(row["messages"]), inputs)]
    yield [Request([*row["messages"], {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Go on."}])]
    return Outcome("over", {"turns": 2})
''',
    "synthesis/repeats": '''
def rows(settings, inputs, ask):
    from imprint.synthesis import SynthesisedRows

    ((_, path),) = inputs.runs.items()
    made = []
    for number, text in enumerate(responses(path)):
        question = {"role": "user", "content": f"Number {number}: {told(inputs)}"}
        made.append({"messages": [question, {"role": "assistant", "content": text}]})
    return SynthesisedRows(made, [])
''',
    "analyses/counts": '''
def rows(job):
    for name, rows in job.inputs.datasets.items():
        yield row(name, "rows", len(rows))
    for name, chain in job.inputs.arms.items():
        yield row(name, "fits", len(chain))
    for (arm, ev), path in job.inputs.runs.items():
        yield row(arm, ev, len(responses(path)), int(path.parent.name.removeprefix("seed")))


def row(arm, quantity, value, layer=None):
    return {
        "arm": arm, "other": None, "layer": layer, "kind": None, "quantity": quantity, "value": float(value),
        "null": None,
    }
''',
    "hooks/shifts": '''
def install(model, settings, inputs, passing):
    (chain,) = inputs.arms.values()
    size = read_json(chain[-1])["metrics"]["size"]
    model.lm_head.register_forward_hook(lambda module, given, output: output.roll(size, -1))
''',
    "methods/measures": '''
def makes(settings):
    return "size"


def fit(job):
    return {"size": len(told(job.inputs))}
''',
    "artifacts/size": '''
WEIGHTS = False


def install(model, folder, dtype):
    return model
''',
    "scores/turns": '''
from imprint.scores import Verdict

ASKS = "generate"
VERSION = "1"
PRIMARY = "turns"
METRICS = {"turns": 1}


def score(row, response, settings):
    return [Verdict("turns", float(row["state"]["turns"] if response == "over" else 0))]
''',
}  # fmt: skip
READS = {"datasets": ["dialogues"], "arms": ["tuned"], "runs": [["tuned", "constraints"], ["base", "constraints"]]}
EXPERIMENT: dict[str, Any] = {
    "results": "results",
    "seeds": [0, 1],
    "engine": {"dtype": "float32", "batch_size": 4},
    "models": {"pico": {"path": "resources/local/pico"}},
    "datasets": {
        "dialogues": {"bundled": "dialogues.jsonl"},
        "constraints": {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"},
        "repeated": {"synth": "repeats", "arms": ["tuned"], "runs": [["tuned", "constraints"]]},
    },
    "evals": {
        "constraints": {"dataset": "constraints", "score": "ifeval", "max_new_tokens": 8},
        "talk": {
            "dataset": "constraints",
            "score": "turns",
            "max_new_tokens": 8,
            "environment": {"says": {"datasets": ["dialogues"]}},
        },
    },
    "arms": {
        "base": {"model": "pico"},
        "tuned": {
            "parent": "base",
            "evals": ["constraints"],
            "fit": {"method": "sft", "data": "dialogues", "max_length": 1024, "batch_size": 2, "epochs": 1},
        },
        "remembering": {
            "parent": "base",
            "transductive": True,
            "apply": {"context": {"remembers": READS}},
            "control": ["base"],
        },
        "again": {
            "parent": "base",
            "evals": ["constraints"],
            "transductive": True,
            "fit": {"method": "sft", "data": "repeated", "max_length": 1024, "batch_size": 2, "epochs": 1},
        },
        "measured": {
            "parent": "base",
            "evals": [],
            "transductive": True,
            "fit": {"method": "measures", "datasets": ["dialogues"], "runs": [["tuned", "constraints"]]},
        },
        "shifted": {"parent": "base", "evals": ["constraints"], "apply": {"hooks": {"shifts": {"arms": ["measured"]}}}},
    },
    "analyses": {"counted": {"counts": {**READS, "arms": ["tuned", "measured"]}}},
    "charts": ["scores"],
}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment whose arms, evals, datasets and analyses read each other, run once."""
    project = make_project(tmp_path_factory.mktemp("reading") / "project")
    workflow.shorten(project, 4)
    pico.make(project / "resources/local/pico")
    shutil.rmtree(project / "config")
    (project / "config").mkdir()
    (project / "config/config.yaml").write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    for place, text in PLUGINS.items():
        (project / PACKAGE / f"{place}.py").write_text(HEAD + text)
    workflow.run(project)
    return project


def table(project: Path, name: str, path: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read(project / "results" / path, name).to_pylist()
    return rows


def prompts(project: Path, arm: str, seed: int, ev: str) -> list[str]:
    return [row["prompt"] for row in table(project, "prompts", f"prompts/{arm}/seed{seed}/{ev}.parquet")]


def said(project: Path, arm: str, seed: int, ev: str = "constraints") -> str:
    """How much a run has said, as the plug-ins tell it."""
    rows = table(project, "generations", f"generations/{arm}/seed{seed}/{ev}.parquet")
    return str(len("".join(row["response"] or "" for row in rows if row["final"])))


def test_a_context_gets_what_it_reads_at_its_own_seed(finished: Path) -> None:
    for seed in (0, 1):
        told = (
            f"<{{dialogues: 4}} {{tuned: [model, full]}} {{tuned constraints: {said(finished, 'tuned', seed)}, "
            f"base constraints: {said(finished, 'base', 0)}}}>"
        )
        asked = prompts(finished, "remembering", seed, "constraints")
        assert len(asked) == 4 and all(told in prompt for prompt in asked)


def test_an_environment_gets_what_it_reads_and_its_state_reaches_the_score(finished: Path) -> None:
    assert any("<{dialogues: 4} {} {}>" in prompt for prompt in prompts(finished, "base", 0, "talk"))
    assert any("Go on." in prompt for prompt in prompts(finished, "base", 0, "talk"))
    scores = table(finished, "scores", "scores/base/seed0/talk.parquet")
    assert {row["value"] for row in scores if row["metric"] == "turns"} == {2.0}
    twice = prompts(finished, "remembering", 1, "talk")
    assert any(one.count("<{dialogues: 4} {tuned: [model, full]}") == 2 for one in twice), (
        "what is said goes through it"
    )


def test_a_dataset_is_made_of_runs_at_the_first_seed(finished: Path) -> None:
    rows = table(finished, "datasets", "datasets/repeated.parquet")
    of_seed = table(finished, "generations", "generations/tuned/seed0/constraints.parquet")
    assert [row["messages"][1]["content"] for row in rows] == [row["response"] for row in of_seed]
    told = f"<{{}} {{tuned: [model, full]}} {{tuned constraints: {said(finished, 'tuned', 0)}}}>"
    assert all(told in row["messages"][0]["content"] for row in rows)
    manifest = json.loads((finished / "results/arms/again/seed1/manifest.json").read_text())
    assert list(manifest["data"]) == ["repeated"]


def test_an_analysis_gets_the_runs_of_each_seed(finished: Path) -> None:
    rows = table(finished, "analyses", "analyses/counted.parquet")
    told = [(row["seed"], row["arm"], row["quantity"], row["value"], row["layer"]) for row in rows]
    assert told == [
        line
        for seed in (0, 1)
        for line in (
            (seed, "dialogues", "rows", 4.0, None),
            (seed, "measured", "fits", 2.0, None),
            (seed, "tuned", "fits", 2.0, None),
            (seed, "tuned", "constraints", 4.0, seed),
            (seed, "base", "constraints", 4.0, 0),
        )
    ]


def test_a_hook_gets_an_artifact_that_is_no_weights(finished: Path) -> None:
    manifests = [finished / f"results/arms/measured/seed{seed}/manifest.json" for seed in (0, 1)]
    sizes = [json.loads(path.read_text())["metrics"]["size"] for path in manifests]
    assert all(json.loads(path.read_text())["kind"] == "size" for path in manifests) and min(sizes) > 20
    plain = table(finished, "generations", "generations/base/seed0/constraints.parquet")
    for seed in (0, 1):
        shifted = table(finished, "generations", f"generations/shifted/seed{seed}/constraints.parquet")
        assert [row["prompt_sha256"] for row in shifted] == [row["prompt_sha256"] for row in plain]
        assert [row["response"] for row in shifted] != [row["response"] for row in plain]
        assert not [row for row in shifted if row["error"]]


def test_the_stamp_is_on_what_is_made_with_a_transductive_arm(finished: Path) -> None:
    text = (finished / "results/report.html").read_text()
    matrix = text[text.index('<table class="matrix">') :]
    rows = re.findall(r'<a href="#made-(\w+)">(.*?)</tr>', matrix[: matrix.index("</table>")], re.DOTALL)
    stamped = [arm for arm, cells in rows if "adapted on the eval's prompts" in cells]
    assert stamped == ["remembering", "shifted"], "the last reads the artifact of an arm that has seen rows"
    pairs = table(finished, "contamination", "tables/contamination.parquet")
    assert {pair["arm"] for pair in pairs if pair["n_shared"]} == {"remembering", "measured"}


AFTER = {"summarize", "collect", "report", "database", "plot scores"}


def both(rule: str, arm: str, *evals: str) -> set[str]:
    return {f"{rule} {arm} {seed} {ev}".strip() for seed in (0, 1) for ev in (evals or ("",))}


def test_a_fit_that_changes_remakes_all_that_reads_it(finished: Path) -> None:
    assert workflow.planned(finished) == set()
    config = finished / "config/config.yaml"
    text = config.read_text()
    workflow.edit(finished, lambda raw: raw["arms"]["tuned"]["fit"].update(learning_rate=0.5))
    assert workflow.planned(finished) == {
        *both("train_sft", "tuned"),
        *both("generate", "tuned", "constraints"),
        *both("score", "tuned", "constraints"),
        *both("generate", "remembering", "constraints", "talk"),
        *both("score", "remembering", "constraints", "talk"),
        "rearrange repeated",
        *both("train_sft", "again"),
        *both("generate", "again", "constraints"),
        *both("score", "again", "constraints"),
        *both("train_measures", "measured"),
        *both("generate", "shifted", "constraints"),
        *both("score", "shifted", "constraints"),
        "analyze counted",
        "check_leakage",
        *AFTER,
    }
    config.write_text(text)
    assert workflow.planned(finished) == set()


def test_a_dataset_that_changes_remakes_all_that_reads_it(finished: Path) -> None:
    path = finished / "resources/bundled/dialogues.jsonl"
    text = path.read_text()
    path.write_text(text.replace(".", "!", 1))
    planned = workflow.planned(finished)
    path.write_text(text)
    assert {"generate base 0 talk", *both("generate", "remembering", "constraints", "talk")} <= planned
    assert {*both("train_measures", "measured"), "analyze counted", *both("train_sft", "tuned")} <= planned
    assert "generate base 0 constraints" not in planned


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (
            "contexts/remembers",
            {
                *both("generate", "remembering", "constraints", "talk"),
                *both("score", "remembering", "constraints", "talk"),
                *AFTER,
            },
        ),
        (
            "environments/says",
            {
                "generate base 0 talk",
                "score base 0 talk",
                *both("generate", "remembering", "talk"),
                *both("score", "remembering", "talk"),
                *AFTER,
            },
        ),
        (
            "hooks/shifts",
            {*both("generate", "shifted", "constraints"), *both("score", "shifted", "constraints"), *AFTER},
        ),
        ("analyses/counts", {"analyze counted", "database", "report"}),
        (
            "artifacts/size",
            {
                *both("train_measures", "measured"),
                *both("generate", "shifted", "constraints"),
                *both("score", "shifted", "constraints"),
                "analyze counted",
                *AFTER,
            },
        ),
    ],
)
def test_an_edited_plug_in_remakes_what_runs_it(place: str, expected: set[str], finished: Path) -> None:
    path = finished / PACKAGE / f"{place}.py"
    text = path.read_text()
    path.write_text(f"{text}\nEDITED = True\n")
    planned = workflow.planned(finished)
    path.write_text(text)
    assert planned == expected
