"""Each stage of the table has its rule, script, class and module, and all that is derived from the table is in step."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from snakemake.profiles import ProfileConfigFileParser

from conftest import ROOT
from imprint import prune
from imprint.config import loading
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import Jobs, all_jobs
from imprint.runtime import job_record, origin, plugins, schemas, stages
from imprint.runtime.plugins import Strict
from imprint.runtime.stages import STAGES, Stage

SCRIPTS = ROOT / "workflow/scripts"
RULES = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules").glob("*.smk")))
CONFIG = {
    "seeds": [3, 4],
    "models": {
        "m1": {"hub": "a/b", "revision": "0" * 40},
        "far": {"openai": "far-1", "base_url": "http://localhost:1/v1"},
    },
    "datasets": {
        "dialogues": {"bundled": "dialogues.jsonl"},
        "sums": {"catalog": "gsm8k_test"},
        "theses": {
            "hub": "a/theses", "revision": "0" * 40, "split": "train", "columns": {"messages": {"user": "question"}},
        },
        "roles": {"synth": "role_prompts", "from": "dialogues", "teacher": "base"},
        "shuffled": {"synth": "shuffled_roles", "from": "dialogues"},
        "constraints": {"generated": "ifeval_format", "n": 8, "instructions": "all", "part": "test"},
    },
    "evals": {
        "constraints": {
            "dataset": "constraints", "score": "ifeval", "describe": ["judged_behaviours"], "judge": "tuned",
        },
        "sums": {"dataset": "sums", "score": "numeric"},
    },
    "arms": {
        "base": {"model": "m1"},
        "tuned": {"parent": "base", "fit": {"method": "sft", "data": "roles"}, "control": ["base"]},
        "other": {"parent": "base", "evals": ["sums"], "fit": {"method": "sft", "data": "shuffled"}},
        "theirs": {"runs": {"import": "lm_eval", "evals": {"sums": "tests/logs/samples_tiny_sums.jsonl"}}},
        "valued": {
            "runs": {
                "import": "lm_eval", "evals": {"sums": "tests/logs/samples_tiny_sums.jsonl"},
                "take": {"accuracy": "exact_match,strict-match"},
            },
        },
    },
    "analyses": {
        "alike": {"vector_similarity": ["tuned", "other"]},
        "geometry": {"role_geometry": {"arm": "tuned", "roles": "sums", "layer": 0}},
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@cache
def experiment() -> Experiment:
    """An experiment in which every stage has a job."""
    return Experiment(loading.parse(CONFIG))


def jobs_of(name: str) -> Jobs:
    jobs: Jobs = all_jobs(experiment())[name]
    return jobs


def rule(name: str) -> str:
    """The text of a stage's rule; training has a rule a method."""
    if name == "train":
        text = (ROOT / "rules/training.smk").read_text(encoding="utf-8")
        return text[text.index("    rule:\n") :].replace("\n    ", "\n")
    (text,) = re.findall(rf"(?ms)^rule {name}:\n(.*?)(?=^\S|\Z)", RULES)
    return str(text)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_jobs_and_each_has_all_that_a_rule_asks_for(name: str) -> None:
    jobs = jobs_of(name)
    assert type(jobs).name == name == STAGES[name].name and inspect.isclass(type(jobs))
    each = list(jobs.jobs())
    assert each, "the experiment of this test has no such job"
    for job in each:
        assert all(isinstance(files, str | list) for files in jobs.inputs(job).values())
        assert isinstance(jobs.spec(job), Strict) and isinstance(jobs.params(job), str)
        assert isinstance(jobs.code(job), str)
        if STAGES[name].runs_model:
            assert jobs.arm(job) in experiment().config.arms


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_a_module_with_run_and_spec(name: str) -> None:
    module = importlib.import_module(f"imprint.{STAGES[name].module}")
    assert inspect.isfunction(vars(module)["run"]) and "spec" in inspect.signature(module.run).parameters
    assert issubclass(module.Spec, Strict)
    jobs = jobs_of(name)
    (job, *_) = jobs.jobs()
    assert type(jobs.spec(job)) is module.Spec
    assert module.Spec.model_validate_json(jobs.params(job)) == jobs.spec(job), "a script reads what the rule says"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_a_rule_that_takes_everything_from_its_class(name: str) -> None:
    stage, text = STAGES[name], rule(name)
    wanted = {"output": f'**stage["{name}"].outputs,', "log": f'stage["{name}"].log,'}
    if name not in ("reach_model", "fetch_data", "fetch_hub"):
        wanted["input"] = f'unpack(stage["{name}"].inputs),'
    else:
        assert not [files for job in jobs_of(name).jobs() for files in jobs_of(name).inputs(job)]
    if stage.runs_model:
        wanted["resources"] = "device=experiment.config.engine.device,"
    directives = dict(re.findall(r"(?m)^    (\w+):\n((?:        .*\n)+)", text))
    for directive, line in wanted.items():
        assert line in directives[directive], directive
    assert stage.runs_model == ("device=" in directives.get("resources", ""))
    params = directives["params"]
    assert f'spec=stage["{name}"].params' in params
    # What is fetched is that of a hash or a commit, whatever code has fetched it; a server is where it is.
    assert (f'code=stage["{name}"].code' in params) == (name not in ("reach_model", "fetch_data", "fetch_hub"))
    assert f'"../workflow/scripts/{name}.py"' in directives["script"]


def test_there_are_no_other_rules_nor_scripts() -> None:
    assert set(re.findall(r"(?m)^rule (\w+):", RULES)) == STAGES.keys() - {"train"}
    assert {path.stem for path in SCRIPTS.glob("*.py")} == STAGES.keys()
    assert len(re.findall(r"(?m)^ *log:", RULES)) == len(STAGES)


def test_what_asks_a_server_has_a_local_rule_beside_its_own() -> None:
    text = (ROOT / "rules/servers.smk").read_text(encoding="utf-8")
    pairs = re.findall(r"(?m)^use rule (\w+) as (\w+) with:", text)
    assert [rule for _, rule in pairs] == [f"{name}_on_server" for name, _ in pairs]
    asking = {"generate", "judge", "synthesize"}
    assert {name for name, _ in pairs} == asking < {name for name in STAGES if STAGES[name].runs_model}
    local = re.search(r"(?m)^localrules:\n((?:    \w+,\n)+)", text)
    assert local and set(re.findall(r"\w+", local[1])) == {rule for _, rule in pairs}
    assert text.count('device="server",') == text.count("on_server=True") == len(pairs)
    for name in asking:
        scores = f'scores=stage["{name}"].scores,'
        assert (scores in text) == (scores in rule(name)), "`use rule` replaces all resources"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_a_script_that_calls_its_module(name: str) -> None:
    text = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
    package, _, module = STAGES[name].module.rpartition(".")
    imported = re.search(rf"from imprint\.{package} import (?:\w+, )?{module}(?: as (\w+))?\n", text)
    assert imported, text
    called = imported[1] or module
    call = text[text.index(f"{called}.run(") :]
    assert "model_validate_json(snakemake.params.spec)" in call
    assert ("frame.device(" in text or "snakemake.resources.device" in text) == STAGES[name].runs_model
    for key in set(re.findall(r"snakemake\.input\.(\w+)", text)) - {"items"}:
        assert all(key in jobs_of(name).inputs(job) for job in jobs_of(name).jobs()), key
    for key in re.findall(r"snakemake\.output\.(\w+)\)", text):
        assert key in STAGES[name].outputs, key


def test_no_two_jobs_make_or_leave_the_same_file() -> None:
    stage = all_jobs(experiment())
    paths = [path for jobs in stage.values() for path in (*jobs.files(), *jobs.logs())]
    assert len(paths) == len(set(paths))
    assert "results/logs/train/tuned.seed4.log" in paths
    assert "resources/data/gsm8k_test/test.jsonl" in paths
    assert not [path for path in paths if "{" in path]


def test_what_a_run_writes_lies_in_known_parts() -> None:
    assert sorted(stages.PARTS) == [
        "analyses", "arms", "charts", "datasets", "generations", "imprint.duckdb", "judgements", "logs",
        "looks.json", "partial.html", "prompts", "report.html", "scored_texts", "scores", "tables",
    ]  # fmt: skip


def test_outputs_that_are_tables_have_their_names() -> None:
    for stage in STAGES.values():
        for name, path in stage.outputs.items():
            assert (name in schemas.SCHEMAS) == path.endswith(".parquet"), path
        assert set(stage.beside) <= schemas.SCHEMAS.keys()
    written = {name for stage in STAGES.values() for name in (*stage.outputs, *stage.beside)}
    assert schemas.SCHEMAS.keys() <= written, "a table that no stage writes"


# What is derived from the table


def leavings(stage: Stage, job: dict[str, Any]) -> list[str]:
    """What a job leaves in a results folder: outputs, what they were made from, records, work folders, logs."""
    outputs = [Path(path.format(**job)) for path in stage.outputs.values() if not path.startswith("resources/")]
    if stage.name == "train":
        return [str(path.parent) for path in outputs] + [stages.log(stage).format(**job)]
    left = [*outputs, *map(origin.path_for, outputs), Path(stages.log(stage).format(**job))]
    if outputs and stage.name in ("generate", "judge", "synthesize"):
        left.append(outputs[0].with_suffix(".work"))
    if stage.runs_model:
        left.append(job_record.path_for(outputs[0]))
    return list(map(str, left))


@pytest.mark.parametrize("name", STAGES)
def test_prune_knows_what_an_experiment_may_no_longer_need(name: str) -> None:
    stage = STAGES[name]
    job = {"model": "m1-0123abcd", "entry": "gsm8k_test", "file": "test.jsonl", "dataset": "rows_2", "arm": "old"}
    job |= {"split": "theses-0123abcd", "seed": 12, "eval": "sums", "analysis": "alike", "chart": "scores"}
    shapes = list(prune.shapes())
    for path in leavings(stage, job):
        fits = [shape for shape in shapes if re.fullmatch(shape, path)]
        assert bool(fits) == bool(stage.job), f"{path}: what every experiment has is not looked at"
        for shape in fits:
            assert shape.count("/") == path.count("/"), "`entries` goes down as many folders as a shape has"
    for path in ("arms/old", "arms/Old/seed1", "charts/notes.txt", "scores/old/seed0/mine.csv", "logs", "tables"):
        assert not [shape for shape in shapes if re.fullmatch(shape, path)]


def test_prune_needs_all_that_an_experiment_makes() -> None:
    needed = prune.needed(experiment())
    for name, jobs in all_jobs(experiment()).items():
        for path in map(Path, (*jobs.files(), *jobs.logs())):
            of_folder = name in ("fetch_model", "reach_model", "fetch_data", "fetch_hub", "train")
            whole = of_folder and path.parts[1] != "logs"
            assert (path.parent if whole else path) in needed


def test_rules_that_may_hold_a_gpu() -> None:
    assert stages.rules_with_a_model(("grpo", "sft")) == [
        "train_grpo",
        "train_sft",
        "synthesize",
        "generate",
        "judge",
        "probe",
    ]
    assert stages.of_all_runs() == ["check_leakage", "summarize", "collect", "database", "report"]


def test_a_cluster_profile_speaks_of_rules_that_are_there() -> None:
    with (ROOT / "profiles/slurm/config.yaml").open() as file:
        profile = ProfileConfigFileParser().parse(file)
    rules = STAGES.keys() | {f"train_{method}" for method in plugins.names("methods")}
    for key in ("set-threads", "set-resources"):
        assert {re.split("[:=]", each)[0] for each in profile[key]} <= rules
    groups = {each.split("=")[0] for each in profile["groups"]}
    assert groups <= rules


def test_what_jobs_cost_is_told_of_every_job_that_runs_a_model() -> None:
    stage = all_jobs(experiment())
    told = stage["collect"].spec(()).jobs
    counted = {(job.stage, job.output) for job in told}
    assert counted == {
        (name, file)
        for name, jobs in stage.items()
        if STAGES[name].runs_model
        for file in jobs.files()
        if not file.endswith(".attempts.parquet") and "/prompts/" not in file
    }
    of_stage = {job.stage: job for job in told}
    assert (of_stage["synthesize"].arm, of_stage["synthesize"].seed, of_stage["synthesize"].table) == ("base", 3, None)
    assert (of_stage["train"].arm, of_stage["train"].eval, of_stage["train"].table) == ("other", None, None)
    assert (of_stage["generate"].table, of_stage["judge"].table) == ("generations", "judgements")
    assert (of_stage["judge"].arm, of_stage["judge"].eval) == ("tuned", "constraints")


# Documentation


def row(stage: Stage) -> str:
    """A stage as a row of the table in docs/architecture.md."""
    outputs = ", ".join(f"`{path}`" for path in stage.outputs.values())
    beside = f"; beside it {', '.join(f'`{name}.parquet`' for name in stage.beside)}" if stage.beside else ""
    job = f"`{stage.job}`" if stage.job else "one"
    runs = "yes" if stage.runs_model else ""
    return f"| `{stage.name}` | {job} | {outputs}{beside} | `{stage.module}` | {runs} |"


def test_the_architecture_lists_every_stage() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = text[text.index("## Stages\n") :].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == list(map(row, STAGES.values())), "write the rows:\n" + "\n".join(map(row, STAGES.values()))
