"""How long the dry run of a large config takes: `python benchmarks/scale.py [ARMS EVALS SEEDS] [--repeats N]`.

A config of 200 arms x 12 evals x 3 seeds (7,200 generate jobs, as many score jobs) is dry-run in a scratch copy of the
project, in turn with a bare Snakefile: the same jobs, input and output files, written as wildcard rules over plain
lists, without code inputs, params, resources, benchmarks or config checks. Prints one JSON line: medians of the wall
and CPU seconds of both, their ratios, peak resident memory in MiB, the limits and whether they hold. The limit on time
is on the ratio of CPU seconds, which other programs on the machine do not move; a dry run is one thread that hardly
waits.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("Snakefile", "rules", "workflow", "config", "resources", "profiles")
ZERO = "0" * 64
LIMITS = {"cpu_ratio": 1.3, "mib": 2048}

BARE = """
import json
from pathlib import Path

plan = json.loads(Path("plan.json").read_text())


rule all:
    input: plan["all"]
"""

RULE = """
rule {name}:
    input: **{{key: (lambda w, key=key: plan["jobs"]["{name}"]["/".join(w)][key]) for key in {keys}}}
    output: {outputs}
    wildcard_constraints: arm="|".join(plan["arms"]), eval="|".join(plan["evals"]), seed="[0-9]+"
    shell: "true"
"""


def config(arms: int, evals: int, seeds: int) -> dict:
    """Half of the arms are fits of one root on its rows, the other half prompted children of those, each with two
    controls; every arm takes every eval."""
    found: dict = {"base": {"model": "tiny"}}
    for number in range(1, arms):
        name = f"arm{number:04d}"
        if number % 2:
            fit = {"method": "sft", "data": "dialogues", "learning_rate": number * 1e-7}
            found[name] = {"parent": "base", "fit": fit, "control": ["base"]}
        else:
            parent = f"arm{number - 1:04d}"
            found[name] = {"parent": parent, "apply": {"context": "role_play"}, "control": [parent, "base"]}
    return {
        "results": "results/scale",
        "seeds": list(range(seeds)),
        "models": {"tiny": {"wheel": "tiny==1.0", "sha256": ZERO}},
        "datasets": {
            "dialogues": {"bundled": "dialogues.jsonl"},
            **{
                f"set{n:02d}": {"generated": "ifeval_format", "n": 16, "seed": n, "instructions": "all", "part": "test"}
                for n in range(evals)
            },
        },
        "evals": {
            # Every eval is sampled, so that the root too runs once per seed: arms x evals x seeds jobs.
            f"eval{n:02d}": {"dataset": f"set{n:02d}", "score": "ifeval", "temperature": 1.0}
            for n in range(evals)
        },
        "arms": found,
    }


def bare(folder: Path, settings: dict) -> None:
    """Write the bare Snakefile and its plan: every job of the experiment with its data files, by rule."""
    sys.path.insert(0, str(ROOT / "workflow/scripts"))
    from imprint.config import loading
    from imprint.dag.experiment import Experiment
    from imprint.dag.jobs import all_jobs

    os.chdir(ROOT)
    experiment = Experiment(loading.parse(settings))
    stages = all_jobs(experiment)
    jobs = {
        name: {"/".join(map(str, job)): _listed(stage.inputs(job)) for job in stage.jobs()}
        for name, stage in stages.items()
    }
    jobs = {name: of_stage for name, of_stage in jobs.items() if of_stage}
    tables = [path for files in jobs["database"][""].values() for path in files]
    plan = {
        "all": [*stages["report"].files(), *stages["database"].files(), *tables],
        "jobs": jobs,
        "arms": list(settings["arms"]),
        "evals": list(settings["evals"]),
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    rules = [
        RULE.format(
            name=name,
            keys=sorted(next(iter(of_stage.values()))),
            outputs=", ".join(map(repr, stages[name].outputs.values())),
        )
        for name, of_stage in jobs.items()
    ]
    (folder / "Snakefile.bare").write_text("\n".join([BARE, *rules]))


def _listed(inputs: dict) -> dict[str, list[str]]:
    """The inputs of a job, each as a list of files."""
    return {name: [files] if isinstance(files, str) else files for name, files in inputs.items()}


def dry_run(folder: Path, *arguments: str) -> tuple[float, float, float, int]:
    """Wall seconds, CPU seconds, peak resident MiB and number of jobs of one dry run."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "-n", "--quiet", "rules", *arguments]
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    process.returncode = status
    total = [line.split()[1] for line in text.splitlines() if line.startswith("total ")]
    if status != 0 or not total:
        sys.exit(f"{' '.join(command)} failed:\n{text[-3000:]}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, int(total[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", nargs="*", type=int, default=[200, 12, 3], help="arms, evals, seeds")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    settings = config(*options.size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "project")
        folder.mkdir()
        for part in PARTS:
            source = ROOT / part
            fetched = ("models", "data", "cache", "local") if part == "resources" else ()
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", *fetched))
            else:
                shutil.copy2(source, folder / part)
        (folder / "scale.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        bare(folder, settings)
        ours, plain = [], []
        for _ in range(options.repeats):
            plain.append(dry_run(folder, "--snakefile", "Snakefile.bare"))
            ours.append(dry_run(folder, "--configfile", "scale.yaml"))
    wall, cpu, mib = ([[run[i] for run in runs] for runs in (ours, plain)] for i in range(3))
    seconds, bare_seconds, cpu_seconds, bare_cpu_seconds = map(statistics.median, (*wall, *cpu))
    found = {
        "size": options.size,
        "jobs": ours[0][3],
        "bare_jobs": plain[0][3],
        "seconds": round(seconds, 1),
        "bare_seconds": round(bare_seconds, 1),
        "ratio": round(seconds / bare_seconds, 2),
        "cpu_seconds": round(cpu_seconds, 1),
        "bare_cpu_seconds": round(bare_cpu_seconds, 1),
        "cpu_ratio": round(cpu_seconds / bare_cpu_seconds, 2),
        "mib": round(max(mib[0])),
        "bare_mib": round(max(mib[1])),
    }
    print(json.dumps({**found, "limits": LIMITS, "holds": all(found[key] <= LIMITS[key] for key in LIMITS)}))


if __name__ == "__main__":
    main()
