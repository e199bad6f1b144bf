"""`make prune`: what stands under resources/ and results folders that no config under config/ needs any more.

Every config must be valid, so that a typing error in one never costs its results. Only files that the pipeline itself
makes are looked at; it lists them, and deletes with `--delete`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from imprint import config as configs
from imprint import origin, run_lock
from imprint.errors import ImprintError, shown
from imprint.experiment import Experiment

# Folders under a results folder, and how deep their entries lie.
PARTS = {"arms": 2, "datasets": 1, "analyses": 1, "charts": 1, "benchmarks": 2}
PARTS |= dict.fromkeys(("generations", "prompts", "judgements", "scores"), 3)


def needed(experiment: Experiment) -> set[Path]:
    """Everything that one experiment makes or fetches, at the depth of PARTS."""
    keep = {Path(experiment.model_manifest(name)).parent for name in experiment.config.models}
    keep |= {Path(file).parent for name in experiment.datasets(False) for file in experiment.dataset_files(name)}
    keep |= {Path(experiment.dataset(name)) for name in experiment.config.datasets}
    keep |= {Path(experiment.attempts(name)) for name in experiment.datasets(True)}
    keep |= {Path(path).parent for path in experiment.fitted_manifests()}
    root = Path(experiment.results)
    for run in experiment.runs:
        keep |= {Path(experiment.generations(run)), Path(experiment.prompts(run)), Path(experiment.scores(run))}
        keep.add(root / "benchmarks/generate" / f"{run.arm}.seed{run.seed}.{run.eval}.tsv")
    for run in experiment.judged:
        keep.add(Path(experiment.judgements(run)))
        keep.add(root / "benchmarks/judge" / f"{run.arm}.seed{run.seed}.{run.eval}.tsv")
    for path in experiment.fitted_manifests():
        manifest = Path(path)
        keep.add(root / "benchmarks/train" / f"{manifest.parts[-3]}.{manifest.parts[-2]}.tsv")
    keep |= {root / "benchmarks/synthesize" / f"{name}.tsv" for name in experiment.datasets(True)}
    keep |= {Path(experiment.analysis(name)) for name in experiment.config.analyses}
    for chart in experiment.config.charts:
        keep |= {root / "charts" / f"{chart}.svg", root / "charts" / f"{chart}.md"}
    return keep


def unneeded(experiments: list[Experiment]) -> list[Path]:
    """What no experiment needs, sorted. A work folder belongs to the output that it is making."""
    keep = set().union(*(needed(experiment) for experiment in experiments))
    made = [path for path in keep if path.suffix == ".parquet"]
    keep |= {path.with_suffix(suffix) for path in made for suffix in (".work", ".job.json")}
    keep |= {origin.path_for(path) for path in keep}
    places = [(Path("resources/models"), 1), (Path("resources/data"), 1)]
    for experiment in experiments:
        places += [(Path(experiment.results, part), depth) for part, depth in PARTS.items()]
    found = {path for folder, depth in places for path in entries(folder, depth)}
    return sorted(path for path in found if path not in keep)


def entries(folder: Path, depth: int) -> Iterator[Path]:
    """What lies so deep in a folder; nothing behind a link, which may lead anywhere."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        if depth == 1:
            yield path
        else:
            yield from entries(path, depth - 1)


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.lstat().st_size for file in [path, *path.rglob("*")] if not file.is_dir())


def main(arguments: list[str] | None = None) -> None:
    """List, and with --delete delete."""
    parser = argparse.ArgumentParser(prog="python -m imprint.prune")
    parser.add_argument("--delete", action="store_true", help="delete instead of listing")
    options = parser.parse_args(arguments)
    files = sorted(Path("config").rglob("*.yaml"))
    try:
        experiments = [Experiment(configs.load([file])) for file in files]
    except ImprintError as error:
        sys.exit(f"imprint.prune: nothing was deleted, because a config is not valid: {error}")
    try:
        if options.delete:
            run_lock.refuse_while_running()
            for results in sorted({experiment.results for experiment in experiments}):
                if Path(results).is_dir():
                    run_lock.hold(results)
    except ImprintError as error:
        sys.exit(f"imprint.prune: nothing was deleted: {error}")
    found = unneeded(experiments)
    for path in found:
        name = shown(path).replace("\n", r"\n")  # a line an entry, whatever it is called
        print(f"{size(path) / 2**20:8.1f} MiB  {name}")
        if options.delete:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    what = "deleted" if options.delete else "no config needs these; `make prune DELETE=1` deletes them" if found else ""
    print(f"{len(found)} entries {what}".rstrip() + f" (looked at {shown(', '.join(map(str, files)))})")


if __name__ == "__main__":
    main()
