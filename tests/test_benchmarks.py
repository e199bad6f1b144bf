"""The benchmarks run, on a pico model; their figures mean nothing there."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import pico
import pico_arms
from conftest import make_project
from imprint.runtime import parquet

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def script(path: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """A benchmark as a module, with the arguments that it is started with."""
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), BENCHMARKS / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_atlas_step_prints_its_figures_and_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pico_arms.root(tmp_path / "pico")
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parent / "workflow/scripts"))  # of the process that measures memory
    module = script("atlas_step.py", monkeypatch, "--model", str(tmp_path / "pico"), "--rounds", "1")
    monkeypatch.setattr(module, "BATCH", (2, 16))
    monkeypatch.setattr(module, "SMALL", (1, 8))
    module.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["limits"].keys() == module.LIMITS.keys() and isinstance(found["holds"], bool)
    assert all(found[key] > 0 for key in module.LIMITS)
    assert found["memory_mib"].keys() == {"2", "8"} and found["computed_in"] in ("float32", "bfloat16")


@pytest.mark.slow
@pytest.mark.workflow
def test_larger_effects_go_on_where_the_time_was_over(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    shutil.copytree(BENCHMARKS, project / "benchmarks")
    pico.make(project / "resources/local/pico")
    config = {
        "results": "results/few",
        "seeds": [0],
        "models": {"pico": {"path": "resources/local/pico"}},
        "datasets": {
            "dialogues": {"bundled": "dialogues.jsonl"},
            "forms": {"generated": "ifeval_format", "n": 6, "instructions": "all", "part": "test"},
        },
        "evals": {"forms": {"dataset": "forms", "score": "ifeval", "max_new_tokens": 8}},
        "arms": {
            "base": {"model": "pico"},
            "tuned": {
                "parent": "base",
                "fit": {"method": "sft", "data": "dialogues", "epochs": 0.02},
                "control": ["base"],
            },
        },
        "questions": {"gains": {"asks": "Does it gain?", "arm": "tuned", "control": "base", "eval": "forms"}},
        "charts": ["answers"],
    }
    (project / "config/effects/few.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    words = [sys.executable, "benchmarks/gpu/effects.py", "out", "few", "--seeds", "2", "--profile", "none"]

    def told(*more: str) -> dict[str, Any]:
        done = subprocess.run([*words, *more], cwd=project, capture_output=True, text=True, check=False)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["few"]
        assert (done.returncode == 0) == (found["ended"] == "well"), done.stderr
        return found

    assert told("--minutes", "1.25")["ended"] == "because the time was over"
    finished = told()
    (answer,) = finished["answers"]
    assert finished["ended"] == "well" and answer["question"] == "gains" and answer["n_seeds"] == 2
    assert {path.name for path in (project / "out/few").iterdir()} >= {
        "report.html",
        "answers.parquet",
        "snakemake.txt",
    }
    assert not (project / "results/few").exists()


def test_grpo_step_compares_equal_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = pico_arms.root(tmp_path / "pico")
    compared = script("grpo_step.py", monkeypatch).compare(manifest, checkpointing=False)
    assert compared["completions_equal"] == compared["completions"] == 16 and compared["rewards_equal"]
    assert compared["loss_difference"] < 1e-5


def test_job_start_answers_the_same_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = pico_arms.root(tmp_path / "pico")
    monkeypatch.setenv("IMPRINT_FORK_SERVER", "")  # set by the benchmark, and undone after it
    script("job_start.py", monkeypatch, str(manifest.parent), "--rounds", "1").main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["same_text"] and 0 < found["forked_cpu_seconds"] < found["imported_cpu_seconds"]


@pytest.mark.slow
def test_cpu_generation_answers_the_same_on_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, prompts = pico_arms.root(tmp_path / "pico"), tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Say {word}."}) + "\n" for word in ("one", "two two", "three")))
    sizes = ["--tokens", "6", "--batch", "2", "--dtype", "float32", "--rounds", "1"]
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parent / "workflow/scripts"))  # of the sides' processes
    script("cpu_generation.py", monkeypatch, str(manifest.parent), str(prompts), *sizes).main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["rows"] == found["same_texts"] == 3
    assert all(found[name] > 0 for name in found["limits"]) and isinstance(found["holds"], bool)


@pytest.mark.workflow
def test_scale_dry_runs_as_many_jobs_on_both_sides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(BENCHMARKS)
    script("scale.py", monkeypatch, "4", "2", "1", "--repeats", "1").main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["jobs"] == figures["bare_jobs"] > 4 * 2 * 2
    assert figures["limits"].keys() <= figures.keys() and isinstance(figures["holds"], bool)


def test_coverage_prints_a_row_a_design(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("coverage.py", monkeypatch, "--runs", "20", "--processes", "1")
    designs = [module.Design(64, 3, 0.02, "trained"), module.Design(64, 3, 0.0, effect=0.1, cluster=4, samples=2)]
    rows = [module.run((design, 20, number)) for number, design in enumerate(designs)]
    for one, held, wrong, width in rows:
        assert 0.6 < one <= 1 and 0.6 < held <= 1 and 0 <= wrong < 0.4 and 0 < width < 1
    monkeypatch.setattr(module, "PLAIN", designs[:1])
    monkeypatch.setattr(module, "VARIANTS", [])
    monkeypatch.setattr(module, "ProcessPoolExecutor", ThreadPoolExecutor)
    module.main()
    *table, last = capsys.readouterr().out.splitlines()
    assert len(table) == 3 and table[2].startswith("| 64 | 3 | 0.02 | trained |")
    assert json.loads(last)["designs"] == 1


def test_skew_prints_a_row_a_distribution(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("skew.py", monkeypatch, "--runs", "200")
    module.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["coverage"]
    assert figures.keys() == module.DRAWS.keys()
    assert min(figures["normal"]) > 0.9
    assert figures["5% move ten times as far, one way"][0] < 0.9, "the limit that docs/statistics.md states"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_gpu_benchmark_says_that_it_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("gpu/atlas_step.py", monkeypatch)
    with pytest.raises(SystemExit, match="sees no GPU here"):
        module.main()


def test_compare_prints_its_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script("compare.py", monkeypatch, "--rows", "50").main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["rows"] == 100 and 0 < figures["cpu_seconds"] <= figures["limits"]["cpu_seconds"]
    assert figures["holds"]


@pytest.mark.workflow
@pytest.mark.slow
def test_tables_prints_its_figures_and_limits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parent / "workflow/scripts"))  # of the processes that are measured
    module = script("tables.py", monkeypatch, "--rows", "1", "2", "--report", "3", "6", "--score", "0.01")
    monkeypatch.setattr(module, "ARMS_A_MILLION", 2)
    module.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["jobs"].keys() == module.JOBS.keys() and len(found["summarize"]) == 2
    assert found["limits"].keys() <= found.keys() and isinstance(found["holds"], bool)


def test_tables_finds_a_wrong_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("tables.py", monkeypatch)
    size = module.Size(3, examples=8, seeds=2)
    module.written(tmp_path, size)
    module.run_summarize(tmp_path, size)
    module.check(tmp_path, size)
    path = tmp_path / "tables/comparisons.parquet"
    rows = parquet.read(path, "comparisons").to_pylist()
    parquet.write(path, "comparisons", [{**rows[0], "wins": rows[0]["wins"] + 1}, *rows[1:]])
    with pytest.raises(SystemExit, match="comparisons: "):
        module.check(tmp_path, size)


def test_gpu_memory_puts_each_fit_beside_its_reckoning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = pico_arms.root(tmp_path / "pico")
    module = script("gpu_memory.py", monkeypatch, str(manifest))
    monkeypatch.setattr(module, "FITS", module.FITS[:1])
    module.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(found["fits"]) == len(module.FITS) and isinstance(found["holds"], bool)
    assert all(0 < fit["least"] <= fit["peak"] <= fit["most"] for fit in found["fits"])


def test_all_of_a_gpus_figures_are_taken_until_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("gpu/all.py", monkeypatch, str(tmp_path / "out"), "--minutes", "0.1")
    for name, (first, *_) in module.PARTS.items():
        assert first == "-m" or (BENCHMARKS.parent / first).is_file(), name
    programs = {
        "figures": 'print("begun"); print({"tokens": 3}.__repr__().replace(chr(39), chr(34)))',
        "broken": "raise SystemExit(3)",
        "endless": "import time; print(1, flush=True); time.sleep(60)",
        "late": "print(2)",
    }
    monkeypatch.setattr(module, "PARTS", {name: ["-c", program] for name, program in programs.items()})
    with pytest.raises(SystemExit):
        module.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["figures"]["ended"] == "well" and found["figures"]["figures"] == {"tokens": 3}
    assert [found[name]["ended"] for name in ("broken", "endless", "late")] == [
        *("with exit status 3", "because the time was over", "before it began"),
    ]
    assert (tmp_path / "out/endless.txt").read_text() == "1\n"
