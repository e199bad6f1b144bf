"""`make prune`: list, or with `--delete` delete, what lies under resources/ and in results folders and is needed by no
config under config/.

Every config must be valid, so that a typing error in one never costs its results. Only entries that the pipeline itself
writes are looked at. They are recognised by name, place and content; a folder of the pipeline that holds anything else
stays, and is named. The folders of limited runs (results/limit32) are left alone, since no config says
`--config limit=32`.
"""

from __future__ import annotations

import argparse
import fcntl
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from imprint.artifacts import lora
from imprint.config import catalog, loading
from imprint.dag import run_lock
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.models.model_files import MANIFEST, WEIGHTS
from imprint.runtime import origin, stages, tracking, work
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.identity import LEFTOVER, read_json
from imprint.runtime.stages import STAGES

MODELS, DATA, HUB = Path("resources/models"), Path("resources/data"), Path("resources/hub")
CONFIGS = (".yaml", ".yml", ".json")
BESIDE = "|".join(STAGES["train"].beside)
WEIGHT_FILES = "|".join(re.escape(name) for name in (WEIGHTS, f"{WEIGHTS}.index.json", lora.FILE, lora.CONFIG))
FIT = re.compile(
    rf"(manifest|job|manifest\.json\.made)\.json|work|{tracking.FOLDER}|({BESIDE})\.parquet|weights(/({WEIGHT_FILES}|model-\d{{5}}-of-\d{{5}}\.safetensors|tmp[a-z0-9_]{{8}}))?"
)
"""Paths inside the folder of a fit. A killed fit leaves a temporary folder in weights/."""


def shapes() -> Iterator[str]:
    """Regular expressions of the entries of a results folder that an experiment may not need: what jobs with wildcards
    make (for a fit, its folder), the files beside it, and logs."""
    for stage in STAGES.values():
        for pattern in stage.outputs.values():
            stem, _, suffix = pattern.partition("/manifest.json" if "manifest" in pattern else ".")
            if "{" in pattern and not pattern.startswith("resources/"):
                endings = rf"\.{re.escape(suffix)}(\.made\.json)?" + (
                    r"|\.work|\.job\.json" if "parquet" in suffix else ""
                )
                yield stages.shape(stem) + (rf"({endings})" if suffix else "")
        if stage.job:
            yield stages.shape(stages.log(stage))


def needed(experiment: Experiment) -> set[Path]:
    """The files and folders that one experiment makes or fetches."""
    keep = set()
    for jobs in all_jobs(experiment).values():
        files = [Path(file) for file in jobs.files()]
        makes_folders = jobs.name in ("fetch_model", "reach_model", "fetch_data", "fetch_hub", "train")
        keep |= {file.parent if makes_folders else file for file in files} | {Path(log) for log in jobs.logs()}
    return keep | {path.with_name(f".{path.name}.work") for path in keep if path.parent == MODELS}


def unneeded(experiments: list[Experiment]) -> list[Path]:
    """The entries that no experiment needs, sorted. An output keeps its work folder, its job record and the file that
    says what it was made from."""
    keep = set().union(*(needed(experiment) for experiment in experiments))
    tables = [path for path in keep if path.suffix == ".parquet"]
    keep |= {path.with_suffix(suffix) for path in tables for suffix in (".work", ".job.json")}
    kept = {_place(path) for path in keep}
    kept |= {_place(origin.path_for(path)) for path in keep}
    model = stages.shape("{model}")
    candidates = [*entries(MODELS, rf"{model}|\.{model}\.work"), *entries(HUB, stages.shape("{split}"))]
    downloads = [path for path in entries(DATA, ".+") if path.name in catalog.load()]
    candidates += downloads
    for path in downloads:
        if _place(path) in kept:
            candidates += entries(path, LEFTOVER.pattern)
    for experiment in experiments:
        if experiment.config.limit is None:
            for shape in shapes():
                candidates += entries(Path(experiment.results), shape)
    # Two configs may call one folder by two names, where one name is a link: an entry is listed once.
    return sorted({place: path for path in candidates if (place := _place(path)) not in kept}.values())


def _place(path: Path) -> Path:
    """The path of an entry with the links above it resolved. An entry that is a link itself stays one."""
    return path.parent.resolve() / path.name


def entries(folder: Path, shape: str) -> Iterator[Path]:
    """The entries below a folder whose relative path fits the regular expression `shape`. Links, and what lies behind
    them, are left out."""
    paths = [folder]
    for _ in shape.split("/"):
        folders = [path for path in paths if path.is_dir() and not path.is_symlink()]
        paths = [path for parent in folders for path in parent.iterdir()]
    for path in paths:
        if re.fullmatch(shape, path.relative_to(folder).as_posix()) and not path.is_symlink():
            yield path


def reason_to_stay(path: Path) -> str:
    """Why an entry that no config needs is not deleted; empty where it may be deleted."""
    if path.name.endswith(".work") and path.is_dir() and _working(path):
        return "a job is working in it"
    if others := _others(path):
        return f"it holds what the pipeline does not write there: {', '.join(others[:3])}"
    return ""


def _working(folder: Path) -> bool:
    """Whether a job holds a work folder."""
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
    """Names of what an entry holds, but the pipeline does not write there. For an entry that is not the pipeline's at
    all, these are all its names."""
    if not path.is_dir():
        return [path.name] if path.parent == DATA else []
    if path.name.endswith(".work") and (path / work.LOCK).is_file():
        return []
    names = {child.name for child in path.iterdir() if not LEFTOVER.fullmatch(child.name)}
    if path.parent == DATA:
        files = [path / name for name in catalog.load()[path.name].files]
        return sorted(names - {file.name for file in (*files, *map(origin.path_for, files))})
    if path.parent in (MODELS, HUB):
        manifest = path / MANIFEST
        heads = {"README.md", "README.yaml"} if path.parent == HUB else set[str]()
        return sorted(names - heads - {MANIFEST, origin.path_for(manifest).name, *_listed_files(manifest)})
    if path.parts[-3] == "arms":
        weights = path / "weights"
        inside = {f"weights/{child.name}" for child in weights.iterdir()} if weights.is_dir() else set[str]()
        return sorted(name for name in names | inside if not FIT.fullmatch(name))
    return sorted(names) or [path.name]


def _listed_files(manifest: Path) -> list[str]:
    """The files of a fetched model or dataset, as its manifest lists them; none where it is no such manifest."""
    try:
        content = read_json(manifest)
    except ImprintError:
        return []
    fetched = isinstance(content, dict) and content.get("kind") in ("model", "dataset")
    return list(content["files"]) if fetched and isinstance(content.get("files"), dict) else []


def files_below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """The files in a folder and in all folders below it, through links too. `seen` has the folders that were visited:
    links may lead in circles."""
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
    """Print the entries that no config needs, and delete them with `--delete`."""
    parser = argparse.ArgumentParser(prog="python -m imprint.prune")
    parser.add_argument("--delete", action="store_true", help="delete instead of listing")
    options = parser.parse_args(arguments)
    files = sorted(path for path in files_below(Path("config"), set()) if path.suffix.lower() in CONFIGS)
    try:
        experiments = [Experiment(loading.load([file])) for file in files]
    except ImprintError as error:
        sys.exit(f"imprint.prune: nothing was deleted, because a config is not valid: {error}")
    try:
        if options.delete:
            run_lock.refuse_while_running()
            by_place = {Path(experiment.results).resolve(): experiment.results for experiment in experiments}
            for results in by_place.values():
                if Path(results).is_dir():
                    run_lock.hold(results)
    except ImprintError as error:
        sys.exit(f"imprint.prune: nothing was deleted: {error}")
    count = 0
    for path in unneeded(experiments):
        name = shown(path).replace("\n", r"\n")  # one line for each entry, even where its name has line breaks
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
