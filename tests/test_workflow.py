"""The DAG on a pico model: it runs from end to end, an edit reruns exactly what it must, and a kill loses nothing."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

import pico
import workflow
from conftest import make_project
from imprint import prune
from imprint.config import loading
from imprint.dag import code
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.runtime import job_record, origin, parquet, plugins
from imprint.runtime.identity import read_json

pytestmark = pytest.mark.workflow

REPORT = {
    "report",
    "database",
    *(
        f"plot {name}"
        for name in (
            *("answers", "scores", "differences", "pairs", "frontier"),
            *("instruction_types", "loss_curves", "coefficients"),
        )
    ),
}
AGGREGATE = {"summarize", "collect", *REPORT}
EVERY_ARM = {"plot vector_similarity"}  # reads no table that these edits change, but the order and colours of the arms
CHARTS_OF_SCORES = {
    *("summarize", "database", "report"),
    *("plot answers", "plot scores", "plot differences", "plot pairs", "plot frontier", "plot instruction_types"),
}


def runs(arm: str, *evals: str, seed: int = 0) -> set[str]:
    """The generate and score jobs of an arm."""
    chosen = evals or ("general", "constraints")
    return {f"{rule} {arm} {seed} {ev}" for rule in ("generate", "score") for ev in chosen}


def make_pico(folder: Path) -> Path:
    workflow.shorten(make_project(folder))
    pico.make(folder / "resources/local/pico")
    shutil.copy(Path(__file__).parent / "pico.yaml", folder / "config/config.yaml")
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico experiment, run once, without a break. Beside it lies what each of its processes has imported."""
    folder = make_pico(tmp_path_factory.mktemp("finished") / "project")
    (folder.parent / "traced").mkdir()
    traced = str(Path(__file__).parent / "traced")
    workflow.run(
        folder, env={"TRACED": str(folder.parent / "traced"), "PYTHONPATH": f"{traced}{os.pathsep}workflow/scripts"}
    )
    return folder


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished experiment, times and all, to edit."""
    folder = tmp_path / "project"
    shutil.copytree(finished, folder, symlinks=True)
    return folder


def test_every_arm_eval_and_metric_is_in_the_tables(finished: Path) -> None:
    results = finished / "results"
    with duckdb.connect(str(results / "imprint.duckdb"), read_only=True) as db:
        rows = db.execute("select arm, eval, metric, n_attempted, n_scored, n_error from summary").fetchall()
        assert {row[:2] for row in rows} == {
            (a, e) for a in ("base", "instruct", "shuffled") for e in ("general", "constraints")
        }
        assert all(attempted == scored + error for *_, attempted, scored, error in rows)
        counts = db.execute("select count(*) from generations where eval = 'constraints'").fetchone()
        assert counts == (3 * 8,)
        assert {row[0] for row in db.execute("select distinct quantity from curves").fetchall()} >= {"loss"}
    assert (results / "report.html").stat().st_size > 10_000
    assert not list(results.rglob("*.work")), "work folders are removed when their output is in place"
    manifest = read_json(results / "arms/instruct/seed0/manifest.json")
    assert (manifest["device"], manifest["dtype"]) == ("cpu", "float32")


def test_nothing_to_do_the_second_time(done: Path) -> None:
    assert workflow.planned(done) == set()


def test_touch_and_fresh_checkout_rerun_nothing(done: Path) -> None:
    for path in sorted(done.rglob("*")):
        if path.is_file() and not {".snakemake"} & set(path.parts):
            os.utime(path)
    assert workflow.planned(done) == set()


def test_key_order_reruns_nothing(done: Path) -> None:
    def reverse(value: Any) -> Any:
        return {k: reverse(value[k]) for k in reversed(value)} if isinstance(value, dict) else value

    def change(config: dict) -> None:
        for key in ("models", "datasets"):
            config[key] = reverse(config[key])
        for name in list(config["arms"]):
            config["arms"][name] = reverse(config["arms"][name])

    workflow.edit(done, change)
    assert workflow.planned(done) == set()


def test_one_learning_rate(done: Path) -> None:
    workflow.edit(done, lambda config: config["arms"]["instruct"]["fit"].update(learning_rate=0.001))
    assert workflow.planned(done) == {"train_sft instruct 0", *runs("instruct"), *AGGREGATE}


def test_one_arm_added(done: Path) -> None:
    workflow.edit(
        done, lambda config: config["arms"].update(played={"parent": "base", "apply": {"context": "role_play"}})
    )
    assert workflow.planned(done) == {*runs("played"), *AGGREGATE, *EVERY_ARM}


def plan(project: Path, *arguments: str) -> dict[str, str]:
    """What `make plan` says: job -> why it would run, and what it will cost."""
    command = [sys.executable, "-m", "imprint.plan", *arguments]
    done = subprocess.run(command, cwd=project, env=workflow.environment(), capture_output=True, text=True, check=True)
    jobs = done.stdout.split("\n\n")[0].splitlines()[1:-1]
    return dict(re.split(r" {2,}", line.strip(), maxsplit=1) for line in jobs)


def test_a_plan_says_why_each_job_would_run(done: Path) -> None:
    assert plan(done) == {}
    workflow.edit(done, lambda config: config["arms"]["instruct"]["fit"].update(epochs=2))
    edited = plan(done)
    assert re.fullmatch(r"method.settings.epochs was 3.0, is 2.0 {2}\(\d.*\)", edited["train instruct.seed0"])
    assert edited["generate instruct.seed0.general"].startswith("its weights change  (")
    assert edited["score instruct.seed0.general"] == "its responses change"
    as_snakemake = {re.sub(r"[ .]+(seed)?", " ", job).replace("train ", "train_sft ") for job in edited}
    assert as_snakemake == workflow.planned(done)
    assert set(plan(done, "--config", "limit=4").values()) == {"new", "new  (time unknown)"}


def test_a_plan_names_changed_code_and_files(done: Path) -> None:
    score = done / "workflow/scripts/imprint/scores/options.py"
    score.write_text(f"{score.read_text()}\nUNUSED = 1\n")
    rows = done / "resources/bundled/dialogues.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))
    (done / "results/charts/scores.svg").unlink()
    reasons = plan(done)
    assert reasons["score base.seed0.general"] == "workflow/scripts/imprint/scores/options.py is other code"
    assert reasons["prepare dialogues"] == "dialogues.jsonl has changed"
    assert reasons["train instruct.seed0"].startswith("its data change")
    assert reasons["plot scores"] == "its output is not there"


def test_an_analysis_runs_when_its_arms_change_and_then_only(done: Path) -> None:
    similarity = {"parents": {"vector_similarity": ["instruct", "shuffled"]}}
    workflow.edit(done, lambda config: config.update(analyses=similarity))
    shown = {"plot vector_similarity", "database", "report"}
    assert workflow.planned(done) == {"analyze parents", *shown}
    workflow.run(done)
    assert "instruct and shuffled: cosine" in (done / "results/report.html").read_text()
    workflow.edit(done, lambda config: config["evals"]["constraints"].update(max_new_tokens=16))
    assert not {"analyze parents", "plot vector_similarity"} & workflow.planned(done)
    workflow.edit(done, lambda config: config["arms"]["instruct"]["fit"].update(learning_rate=0.001))
    assert {"analyze parents", *shown} <= workflow.planned(done)


def test_one_arm_removed(done: Path) -> None:
    workflow.edit(done, lambda config: config["arms"].pop("shuffled"))
    assert workflow.planned(done) == {*AGGREGATE, *EVERY_ARM, "check_leakage"}
    workflow.run(done, "results/imprint.duckdb")
    with duckdb.connect(str(done / "results/imprint.duckdb"), read_only=True) as db:
        assert {
            row[0]
            for row in db.execute("select distinct arm from summary union select distinct arm from scores").fetchall()
        } == {
            "base",
            "instruct",
        }


ARMS = ("base", "instruct", "shuffled")
SCORES = {f"score {arm} 0 {ev}" for arm in ARMS for ev in ("general", "constraints")}
FETCHED = {"fetch_model pico-f0a56273"}
ASKED = {*(job for arm in ARMS for job in runs(arm)), *AGGREGATE}
FITTED = {"train_sft instruct 0", "train_sft shuffled 0", *runs("instruct"), *runs("shuffled"), *AGGREGATE}


def edited(file: str, text: str) -> str:
    """A text with an edit that counts."""
    return f"{text}\nEDITED = True\n" if file.endswith(".py") else f"{text}\n"


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (
            "workflow/scripts/imprint/scores/options.py",
            {*(f"score {arm} 0 general" for arm in ARMS), *CHARTS_OF_SCORES},
        ),
        ("workflow/scripts/imprint/scores/__init__.py", {*SCORES, *CHARTS_OF_SCORES}),
        ("workflow/scripts/imprint/methods/sft.py", FITTED),
        ("workflow/scripts/imprint/training/fit_watch.py", FITTED),
        ("workflow/scripts/imprint/training/rank.py", FITTED),
        ("workflow/scripts/imprint/engines/transformers.py", ASKED),
        ("workflow/scripts/imprint/policies/shards.py", ASKED),
        # A model is fetched again, since the fetching job tries the model's chat template.
        ("workflow/scripts/imprint/models/chat_text.py", {*FITTED, *SCORES, *ASKED, *FETCHED}),
        ("workflow/scripts/imprint/scoring/jail.py", {*SCORES, *CHARTS_OF_SCORES}),
        ("workflow/scripts/score.py", {*SCORES, *CHARTS_OF_SCORES}),
        ("workflow/scripts/imprint/composition/vectors.py", set()),
        ("workflow/scripts/imprint/methods/grpo.py", set()),
        ("workflow/scripts/imprint/artifacts/lora.py", set()),
        ("workflow/scripts/imprint/runtime/progress.py", set()),
        ("workflow/scripts/imprint/runtime/plugins.py", set()),
        ("workflow/scripts/imprint/config/graph.py", set()),
        ("workflow/scripts/imprint/dag/experiment.py", set()),
        ("workflow/scripts/summarize.py", CHARTS_OF_SCORES - {"plot instruction_types"}),
        ("resources/captions/scores.md", {"plot scores", "report"}),
        ("workflow/scripts/imprint/charts/scores.py", {"plot scores", "report"}),
        ("resources/report.html.jinja", {"report"}),
    ],
)
def test_an_edited_file(done: Path, file: str, expected: set[str]) -> None:
    path = done / file
    path.write_text(edited(file, path.read_text()))
    assert workflow.planned(done) == expected


def test_undoing_an_edit_undoes_the_rerun(done: Path) -> None:
    path = done / "workflow/scripts/imprint/models/chat_text.py"
    text = path.read_text()
    path.write_text(edited(str(path), text))
    assert workflow.planned(done)
    path.write_text(text)
    assert workflow.planned(done) == set()


def test_an_edit_of_what_a_reader_sees_alone_reruns_nothing(done: Path) -> None:
    """A comment, the layout and every docstring of every file of the package."""
    for path in sorted((done / "workflow/scripts").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                node.body[0] = ast.Expr(ast.Constant("Other words."))
        path.write_text(f"# A comment.\n{ast.unparse(tree)}\n")
    assert workflow.planned(done) == set()


def test_an_edited_schema_reruns_what_writes_the_table(done: Path) -> None:
    path = done / "workflow/scripts/imprint/runtime/schemas.py"
    text = path.read_text()
    line = '("n_train", _int)'
    path.write_text(text.replace(line, line.replace("_int", "_float")))
    assert path.read_text() != text
    assert workflow.planned(done) == {"check_leakage", "database", "report"}
    path.write_text(
        text.replace('("quantity", _text), ("value", _float)', '("quantity", _text), ("value", pa.float32())')
    )
    path.write_text(text)
    assert workflow.planned(done) == set()


def test_a_job_imports_nothing_beside_its_code(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process of a job has imported is in the code of a job of that kind, but for what carries it."""
    monkeypatch.chdir(finished)
    stage = all_jobs(Experiment(loading.load([Path("config/config.yaml")])))
    codes = {name: {file for job in jobs.jobs() for file in json.loads(jobs.code(job))} for name, jobs in stage.items()}
    seen = set()
    scores = [code.imports(plugins.path("scores", score)) for score in plugins.names("scores")]
    read_by_scores = {str(file.relative_to(plugins.PACKAGE.parents[2])) for files in scores for file in files}
    for path in (finished.parent / "traced").iterdir():
        told = json.loads(path.read_text())
        words = " ".join(told["command"])
        script = re.search(r"\.snakemake/scripts/tmp\w+\.(\w+)\.py", words)
        name = script[1] if script else "train" if "imprint.training.rank" in words else None
        if name is not None:
            seen.add(name)
            files = {str(Path(file).relative_to(finished)) for file in told["files"].values()}
            carry = tuple(f"workflow/scripts/imprint/{part}/" for part in ("config", "dag", "runtime", "__init__"))
            decide = {file for file in files if not file.startswith(carry)} - {"workflow/scripts/imprint/__init__.py"}
            if name in ("prepare", "rearrange", "synthesize", "generate"):  # their frame asks scores what these read
                decide -= read_by_scores
            assert decide <= codes[name], (name, decide - codes[name])
    assert seen == {name for name, jobs in stage.items() if list(jobs.jobs())}


def test_a_run_leaves_what_the_table_of_stages_says(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs, what each was made from, the records of jobs that run a model, and logs; nothing else."""
    monkeypatch.chdir(finished)
    stage = all_jobs(Experiment(loading.load([Path("config/config.yaml")])))
    expected = set()
    for jobs in stage.values():
        outputs = [Path(file) for file in jobs.files()]
        expected |= {*outputs, *map(origin.path_for, outputs), *map(Path, jobs.logs())}
        if jobs.stage.runs_model:
            first = next(iter(jobs.outputs.values()))
            expected |= {job_record.path_for(Path(first.format(**job._asdict()))) for job in jobs.jobs()}
    for fit in (path for path in set(expected) if path.name == "manifest.json" and "arms" in path.parts):
        expected |= {fit.with_name("curves.parquet"), fit.parent / "weights/model.safetensors"}
    left = {path for top in ("results", "resources/data") for path in Path(top).rglob("*") if path.is_file()}
    left |= set(Path("resources/models").rglob("manifest.json*"))
    beside = {Path("results/.run.lock"), Path("results/looks.json")}
    assert left - beside == expected
    of_all = [jobs for jobs in stage.values() if not jobs.stage.job]
    single = {Path(file) for jobs in of_all for file in (*jobs.files(), *jobs.logs())}
    single |= {origin.path_for(path) for path in single} | beside
    shapes = list(prune.shapes())
    for path in left - single:
        place = path.parent.parent if path.parent.name == "weights" else path.parent if "arms" in path.parts else path
        below = place.as_posix().removeprefix("results/")
        assert path.parts[0] == "resources" or any(re.fullmatch(shape, below) for shape in shapes), path


def test_a_datasets_bytes_changed(done: Path) -> None:
    path = done / "resources/bundled/general.jsonl"
    path.write_text(path.read_text().replace("?", " ?", 1))
    arms = ("base", "instruct", "shuffled")
    jobs = {f"{rule} {arm} 0 general" for rule in ("generate", "score") for arm in arms}
    assert workflow.planned(done) == {
        "prepare general",
        "check_leakage",
        *jobs,
        *AGGREGATE - {"plot loss_curves"},
        "plot loss_curves",
    }


def test_a_second_seed_runs_only_itself(done: Path) -> None:
    workflow.edit(done, lambda config: config.update(seeds=[0, 1]))
    fits = {"train_sft instruct 1", "train_sft shuffled 1"}
    assert workflow.planned(done) == {*fits, *runs("instruct", seed=1), *runs("shuffled", seed=1), *AGGREGATE}


def _wait(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def _jobs(project: Path, script: str = "") -> dict[int, str]:
    """Process id -> command line of what runs in this project's folder, or just of one of its job scripts."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve() == project.resolve():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
    return {pid: line for pid, line in found.items() if script in line}


KILLS: dict[str, Callable[[Path], bool]] = {
    "training": lambda p: any((p / "results/arms/instruct/seed0/work").rglob("trainer_state.json")),
    "generation": lambda p: any(p.glob("results/generations/*/seed0/*.work/*/*.parquet")),
    "aggregation": lambda p: bool(_jobs(p, "summarize.py")),
}


ANSWERED = [f"{folder}/instruct" for folder in ("generations", "prompts", "scores")]
MADE_FROM = {"training": ["arms/instruct", *ANSWERED], "generation": ANSWERED, "aggregation": []}
"""What the killed run has to make, beside the tables."""


@pytest.mark.parametrize(
    ("stage", "orphan"),
    [
        ("training", True),
        pytest.param("training", False, marks=pytest.mark.slow),
        pytest.param("generation", True, marks=pytest.mark.slow),
        ("aggregation", False),
    ],
    ids=lambda value: {True: "orphan left alive", False: "everything killed"}.get(value, value),
)
def test_sigkill_then_resume(stage: str, orphan: bool, finished: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))
    workflow.edit(project, lambda config: config.update(charts=["answers"]))
    for made in MADE_FROM[stage]:
        shutil.rmtree(project / "results" / made)
    for table in ("tables/summary.parquet", "imprint.duckdb", "report.html"):
        (project / "results" / table).unlink()
    process = subprocess.Popen(
        workflow.command(),
        cwd=project,
        env=workflow.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _wait(lambda: KILLS[stage](project), process)
    if orphan:
        for job in _jobs(project, ".snakemake/scripts/"):
            os.kill(job, signal.SIGSTOP)  # it would be done before the resume could find it
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    resume = subprocess.run(
        [workflow.command()[0], "-m", "imprint.resume"],
        cwd=project,
        env=workflow.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("ending" in resume.stdout) or not orphan
    assert not _jobs(project), "an orphan outlived `make resume`"
    workflow.run(project, "--rerun-incomplete")
    broken, unbroken = workflow.contents(project), workflow.contents(finished)
    assert broken.keys() == unbroken.keys()
    for name, value in unbroken.items():
        assert broken[name] == value, name


def test_prune_lists_what_no_config_needs(done: Path) -> None:
    workflow.edit(done, lambda config: config["arms"].pop("shuffled"))
    command = [workflow.command()[0], "-m", "imprint.prune"]
    for other in (done / "config").rglob("*.yaml"):
        if other.name != "config.yaml":
            other.unlink()

    def prune(*flags: str) -> str:
        return subprocess.run(
            [*command, *flags], cwd=done, env=workflow.environment(), capture_output=True, text=True, check=True
        ).stdout

    listed = prune()
    assert "results/arms/shuffled/seed0" in listed
    assert "instruct" not in listed
    assert (done / "results/arms/shuffled/seed0/manifest.json").is_file(), "listing deletes nothing"
    prune("--delete")
    assert not (done / "results/arms/shuffled/seed0").exists()
    assert not (done / "results/scores/shuffled/seed0/general.parquet").exists()
    assert "shuffled" not in prune()
    assert (done / "results/arms/instruct/seed0/manifest.json").is_file()


def test_a_broken_table_is_named_and_never_aggregated(done: Path) -> None:
    (done / "results/scores/base/seed0/general.parquet").write_bytes(b"")
    (done / "results/tables/summary.parquet").unlink()
    text = workflow.run(done, check=False)
    assert "results/scores/base/seed0/general.parquet is not a readable Parquet file" in text
    assert not (done / "results/tables/summary.parquet").exists()


def test_tables_have_their_schemas(finished: Path) -> None:
    leaks = ("contamination", "contamination_rows")
    of_arms = ("answers", "summary", "comparisons", "pairs", "costs", "curves", "coefficients", "synthesis")
    for name in (*of_arms, *leaks):
        parquet.read(finished / "results/tables" / f"{name}.parquet", name)


def imprint(project: Path, module: str, *arguments: str) -> str:
    """What a command of ours prints in a project."""
    done = subprocess.run(
        [sys.executable, "-m", f"imprint.{module}", *arguments],
        cwd=project,
        env=workflow.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_partial_report_shows_what_is_finished_and_changes_nothing_else(done: Path) -> None:
    """An arm that is not trained, and one eval of another arm that is not scored."""

    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (done / "results").rglob("*") if path.is_file()}

    assert "All of the experiment is finished" in imprint(done, "partial")
    shutil.rmtree(done / "results/arms/shuffled")
    (done / "results/scores/instruct/seed0/constraints.parquet").unlink()
    before, to_do = files(), workflow.planned(done)
    said = imprint(done, "partial")
    assert "1 of 2 fits and 3 of 6 runs on evals are finished" in said and "results/partial.html" in said
    page = (done / "results/partial.html").read_text()
    assert "<title>Imprint report (partial)</title>" in page and "1 of 2 fits and 3 of 6 runs" in page
    assert 'id="answers"' not in page and page.count("Does training on dialogues help") == 1  # as a question to come
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "instruct against base general accuracy" in text and "instruct against base constraints" not in text
    assert "shuffled against instruct" not in text
    assert {path: content for path, content in files().items() if not path.endswith("partial.html")} == before
    assert workflow.planned(done) == to_do


def test_a_partial_report_of_nothing_says_so(done: Path) -> None:
    shutil.rmtree(done / "results/scores")
    command = [sys.executable, "-m", "imprint.partial"]
    ended = subprocess.run(command, cwd=done, env=workflow.environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "no run has a score yet" in ended.stderr
    assert not (done / "results/partial.html").exists()


@pytest.mark.parametrize("models", [False, True])
def test_whoever_unpacks_a_pack_reruns_nothing(done: Path, tmp_path: Path, models: bool) -> None:
    """In another folder, without Snakemake's records, and without the model's weights too."""
    pack, other = tmp_path / "pico.tar", tmp_path / "the colleague's" / "checkout"
    said = imprint(done, "pack", "--out", str(pack), *(["--models"] if models else []))
    assert ("resources/local/pico" in said) is not models  # the folder that the other checkout needs
    other.parent.mkdir()
    workflow.shorten(make_project(other))
    if not models:
        shutil.copytree(done / "resources/local/pico", other / "resources/local/pico")
    config = ("--configfile", "config/unpacked-config.yaml")
    told = imprint(other, "unpack", str(pack))
    assert " ".join(config) in told and ("-f --configfile" in told) is not models
    assert len(list((other / "resources/models").glob("*/model.safetensors"))) == models
    assert not (other / ".snakemake/metadata").exists()
    assert workflow.planned(other, *config) == set()
    assert (other / "results/report.html").read_bytes() == (done / "results/report.html").read_bytes()
    assert imprint(other, "unpack", str(pack)).startswith("0 files unpacked")


def test_a_pack_lacks_what_is_not_as_it_was_made(done: Path, tmp_path: Path) -> None:
    changed = done / "results/scores/base/seed0/general.parquet"
    changed.write_bytes(changed.read_bytes() + b" ")
    said = imprint(done, "pack", "--out", str(tmp_path / "pico.tar"))
    assert "1 not there, or changed since they were made" in said and str(changed.relative_to(done)) in said
    with tarfile.open(tmp_path / "pico.tar") as archive:
        assert str(changed.relative_to(done)) not in archive.getnames()
