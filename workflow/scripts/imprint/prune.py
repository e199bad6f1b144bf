"""`make prune`: what stands under resources/ and results folders that no config under config/ needs any more.

Every config must be valid, so that a typing error in one never costs its results. Only what the pipeline itself writes
is looked at, told by its name, its place and what is in it; a folder of the pipeline that holds anything else stays and
is named. The folders of limited runs (results/limit32) are left alone: `--config limit=32` stands in no config. It
lists, and deletes with `--delete`.
"""

from __future__ import annotations

import argparse
import fcntl
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from imprint import catalog, models, origin, references, run_lock, training, work
from imprint import config as configs
from imprint.errors import ImprintError, shown
from imprint.experiment import Experiment
from imprint.identity import LEFTOVER, read_json
from imprint.model_files import MANIFEST, WEIGHTS

MODELS, DATA = Path("resources/models"), Path("resources/data")
CONFIGS = (".yaml", ".yml", ".json")
NAME = references.NAME.removeprefix("^").removesuffix("$")
TABLE = r"\.(parquet|parquet\.made\.json|work|job\.json)"
RUN = rf"{NAME}/seed\d+/{NAME}{TABLE}"
# Part of a results folder -> the paths of its entries below it.
PARTS = {
    "arms": rf"{NAME}/seed\d+",
    "datasets": rf"{NAME}(\.attempts)?{TABLE}",
    "analyses": rf"{NAME}{TABLE}",
    "charts": rf"{NAME}\.(svg|md)(\.made\.json)?",
    "benchmarks/train": rf"{NAME}\.seed\d+\.tsv",
    "benchmarks/synthesize": rf"{NAME}\.tsv",
    **dict.fromkeys(("benchmarks/generate", "benchmarks/judge"), rf"{NAME}\.seed\d+\.{NAME}\.tsv"),
    **dict.fromkeys(("generations", "prompts", "judgements", "scores"), RUN),
}
BESIDE = "|".join(training.BESIDE)
WEIGHT_FILES = "|".join(re.escape(name) for name in (WEIGHTS, models.ADAPTER, "adapter_config.json"))
FIT = re.compile(
    rf"(manifest|job|manifest\.json\.made)\.json|work|({BESIDE})\.parquet|weights(/({WEIGHT_FILES}|tmp[a-z0-9_]{{8}}))?"
)
"""What lies in the folder of a fit. A killed one leaves a temporary folder in its weights."""


def needed(experiment: Experiment) -> set[Path]:
    """Everything that one experiment makes or fetches, at the depth of PARTS."""
    keep = {Path(experiment.model_manifest(name)).parent for name in experiment.config.models}
    keep |= {folder.with_name(f".{folder.name}.work") for folder in keep}
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
    kept = {_place(path) for path in keep}
    kept |= {_place(origin.path_for(path)) for path in keep}
    found = [*entries(MODELS, rf"{NAME}-[0-9a-f]{{8}}|\.{NAME}-[0-9a-f]{{8}}\.work")]
    downloads = [path for path in entries(DATA, ".+") if path.name in catalog.load()]
    found += downloads
    for path in downloads:
        if _place(path) in kept:
            found += entries(path, LEFTOVER.pattern)
    for experiment in experiments:
        if experiment.config.limit is None:
            for part, shape in PARTS.items():
                found += entries(Path(experiment.results, part), shape)
    # Two configs may call one folder by two names, when one is a link.
    return sorted({place: path for path in found if (place := _place(path)) not in kept}.values())


def _place(path: Path) -> Path:
    """Where an entry lies, whatever links lead there."""
    return path.parent.resolve() / path.name


def entries(folder: Path, shape: str) -> Iterator[Path]:
    """What lies in a folder and has a path below it that fits a pattern; no link, and nothing behind one."""
    paths = [folder]
    for _ in shape.split("/"):
        folders = [path for path in paths if path.is_dir() and not path.is_symlink()]
        paths = [path for parent in folders for path in parent.iterdir()]
    for path in paths:
        if re.fullmatch(shape, path.relative_to(folder).as_posix()) and not path.is_symlink():
            yield path


def reason_to_stay(path: Path) -> str:
    """Why an entry that no config needs is not deleted; empty where nothing speaks against it."""
    if path.name.endswith(".work") and path.is_dir() and _working(path):
        return "a job is working in it"
    if others := _others(path):
        return f"it holds what the pipeline does not write there: {', '.join(others[:3])}"
    return ""


def _working(folder: Path) -> bool:
    lock = folder / work.LOCK
    if not lock.is_file():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _others(path: Path) -> list[str]:
    """What an entry holds that the pipeline does not write there; all of it, where the entry is not the pipeline's."""
    if not path.is_dir():
        return [path.name] if path.parent == DATA else []
    if path.name.endswith(".work") and (path / work.LOCK).is_file():
        return []
    names = {child.name for child in path.iterdir() if not LEFTOVER.fullmatch(child.name)}
    if path.parent == DATA:
        files = [path / name for name in catalog.load()[path.name].files]
        return sorted(names - {file.name for file in (*files, *map(origin.path_for, files))})
    if path.parent == MODELS:
        manifest = path / MANIFEST
        return sorted(names - {MANIFEST, origin.path_for(manifest).name, *_model_files(manifest)})
    if path.parts[-3] == "arms":
        weights = path / "weights"
        inside = {f"weights/{child.name}" for child in weights.iterdir()} if weights.is_dir() else set[str]()
        return sorted(name for name in names | inside if not FIT.fullmatch(name))
    return sorted(names) or [path.name]


def _model_files(manifest: Path) -> list[str]:
    """The files of a fetched model, by its manifest; none where that is no manifest of a model."""
    try:
        told = read_json(manifest)
    except ImprintError:
        return []
    own = isinstance(told, dict) and told.get("kind") == "model" and isinstance(told.get("files"), dict)
    return list(told["files"]) if own else []


def files_below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """The files in a folder and its folders, linked ones too; no folder twice, for links may lead in circles."""
    if (place := folder.resolve()) in seen:
        return
    seen.add(place)
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from files_below(path, seen)
        elif path.is_file():
            yield path


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.lstat().st_size for file in [path, *path.rglob("*")] if not file.is_dir())


def main(arguments: list[str] | None = None) -> None:
    """List, and with --delete delete."""
    parser = argparse.ArgumentParser(prog="python -m imprint.prune")
    parser.add_argument("--delete", action="store_true", help="delete instead of listing")
    options = parser.parse_args(arguments)
    files = sorted(path for path in files_below(Path("config"), set()) if path.suffix.lower() in CONFIGS)
    try:
        experiments = [Experiment(configs.load([file])) for file in files]
    except ImprintError as error:
        sys.exit(f"imprint.prune: nothing was deleted, because a config is not valid: {error}")
    try:
        if options.delete:
            run_lock.refuse_while_running()
            for results in {Path(each.results).resolve(): each.results for each in experiments}.values():
                if Path(results).is_dir():
                    run_lock.hold(results)
    except ImprintError as error:
        sys.exit(f"imprint.prune: nothing was deleted: {error}")
    count = 0
    for path in unneeded(experiments):
        name = shown(path).replace("\n", r"\n")  # a line an entry, whatever it is called
        if reason := reason_to_stay(path):
            print(f"left as it is: {name} ({shown(reason)})".replace("\n", r"\n"))
            continue
        count += 1
        print(f"{size(path) / 2**20:8.1f} MiB  {name}")
        if options.delete:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    what = "deleted" if options.delete else "that no config needs; `make prune DELETE=1` deletes them"
    print(f"{count} entries {what} (looked at {shown(', '.join(map(str, files)))})")


if __name__ == "__main__":
    main()
