"""`make pack CONFIG=config/real.yaml OUT=real.tar`: one file with what an experiment has made, for another checkout.

A pack holds the outputs of one config, the files beside them that say what they were made from, the config, and the
resources that the jobs read. `make unpack` brings them into a checkout of the same commit, where no job has to run
again: `dag/adoption.py` makes Snakemake's records anew from the files beside the outputs. So `.snakemake` is not
needed. The weights of base models are left out, unless `--models` asks for them; their manifests have the hashes. The
weights of fits are always in.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.dag import command_line, pack_form, run_lock
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.runtime import origin, provenance
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.identity import atomic, canonical, file_sha256, read_object

CODE = ("workflow", "rules", "Snakefile", "resources")
"""What a checkout has from its commit."""
NAMED = 8
"""The most files that a message names."""


def main(arguments: list[str] | None = None) -> None:
    """Write a pack. `--configfile` and `--config` are snakemake's options."""
    parser = argparse.ArgumentParser(prog="python -m imprint.pack")
    command_line.add_fields(parser)
    parser.add_argument("--models", action="store_true", help="take the weights of base models too")
    parser.add_argument("--out", default="", help="the pack to write; it must not exist")
    options = parser.parse_args(arguments)
    try:
        if not options.out:
            raise ImprintError("no file to write is named; write `make pack OUT=FILE.tar`")
        experiment = command_line.experiment(options)
        pack(experiment, options.configfile, options.config, Path(options.out), options.models)
    except (ImprintError, ValueError) as error:
        sys.exit(f"imprint.pack: {shown(error)}")


def pack(experiment: Experiment, configs: list[Path], settings: list[str], out: Path, models: bool) -> None:
    """Write the pack `out`, and print what it holds and what it lacks. Raises ImprintError where `out` exists, where a
    run is going on in the results folder, and where there is nothing to pack."""
    if out.exists():
        raise ImprintError(f"{out} exists and is never overwritten; write another OUT")
    pack_form.check_results(experiment.results)
    if not Path(experiment.results).is_dir():
        raise ImprintError(f"{experiment.results} is not there; run the experiment first")
    run_lock.hold(experiment.results)
    made, missing = outputs(experiment)
    sources = {name: Path(name) for output in made for name in _with_output(Path(output), models)}
    if not any(name.startswith(f"{experiment.results}/") for name in sources):
        raise ImprintError(f"{experiment.results} holds no output of this config; run the experiment first")
    reads = {name: Path(name) for name in read_files(experiment, models)}
    # The other files of resources/, such as templates and captions, come with the commit.
    carried = tuple(f"resources/{folder}/" for folder in pack_form.RESOURCES)
    outside = sorted(name for name in reads if not name.startswith("resources/"))
    sources |= {name: path for name, path in reads.items() if name.startswith(carried)}
    looks = Path(experiment.results, "looks.json")
    sources |= {str(looks): looks} if looks.is_file() else {}
    names = [f"config/unpacked-{path.stem.removeprefix('unpacked-')}{path.suffix}" for path in configs]
    if len(set(names)) < len(names):
        raise ImprintError(f"two of the config files have one name ({', '.join(names)}); rename one")
    sources |= dict(zip(names, configs, strict=True))
    sources = dict(sorted(sources.items()))  # canonical JSON sorts its keys, and the members have the manifest's order
    for name in sources:
        pack_form.check_path(name, experiment.results, names)
    files = {name: pack_form.File(size=path.stat().st_size, sha256=file_sha256(path)) for name, path in sources.items()}
    manifest = pack_form.Manifest(
        form=pack_form.FORM,
        results=experiment.results,
        configs=names,
        settings=settings,
        commit=provenance.commit() or "",
        code=pack_form.code_sum(),
        missing=len(missing),
        files=files,
    )
    with atomic(out) as temporary:
        _write(manifest, sources, temporary)
        try:
            os.link(temporary, out)  # unlike a rename, this never replaces a file
        except FileExistsError:
            raise ImprintError(f"{out} exists by now and is never overwritten; write another OUT") from None
    size = sum(file.size for file in files.values())
    print(f"{shown(out)}: {len(files):,} files, {size / 2**20:.1f} MiB, of {shown(experiment.results)}")
    _say("not there, or changed since they were made, so the pack lacks them", missing)
    _say("read from outside resources/, so the pack lacks them; the other checkout needs them too", outside)
    if not models:
        needed = [model.path for model in experiment.config.models.values() if model.path]
        _say(
            "folders of models (`path:`) that the other checkout needs; `make pack MODELS=1` takes those of resources/",
            needed,
        )
    edited = [name for name in provenance.changes() if name.split("/")[0] in CODE]
    _say("files of the project that are not as committed; commit and share them, or jobs may run again", edited)


def outputs(experiment: Experiment) -> tuple[list[str], list[str]]:
    """The outputs of an experiment that are there as they were made, and those that are not."""
    names = [name for jobs in all_jobs(experiment).values() for name in jobs.files()]
    made = [name for name in names if origin.read(Path(name), experiment.results) is not None]
    return made, sorted(set(names) - set(made))


def _with_output(output: Path, models: bool) -> Iterator[str]:
    """An output and what belongs to it: what says how it was made, the record of its job, and the weights or rows of
    which it is the manifest."""
    yield str(output)
    yield str(origin.path_for(output))
    beside = [output.with_suffix(".job.json")] if output.suffix == ".parquet" else []
    if output.name == "manifest.json":
        content = read_object(output)
        listed = content.get("files") or {}
        if content.get("kind") == "model" and not models:
            listed = {}
        beside += [output.parent / name for name in listed]
        beside += [output.parent / "weights" / name for name in content.get("weights") or {}]
        beside += [output.with_name("job.json"), *output.parent.glob("*.parquet")]
    yield from (str(path) for path in beside if path.is_file())


def read_files(experiment: Experiment, models: bool) -> Iterator[str]:
    """The files that jobs read and no job makes. The files of models are only among them where `models` says so."""
    stages = all_jobs(experiment)
    made = {name for jobs in stages.values() for name in jobs.files()}
    for stage, jobs in stages.items():
        if stage == "fetch_model" and not models:
            continue
        for job in jobs.jobs():
            for name in _flat(jobs.inputs(job).values()):
                if name not in made and Path(name).is_file():
                    yield name


def _flat(values: Any) -> Iterator[str]:
    """The paths in a job's inputs, which are paths or lists of paths."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield str(value)


def _write(manifest: pack_form.Manifest, sources: dict[str, Path], out: Path) -> None:
    """Write the tar file. Links are followed. Raises ImprintError where a file has changed meanwhile."""
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        text = canonical(manifest.model_dump(mode="json")).encode()
        archive.addfile(_member(pack_form.MANIFEST, len(text)), io.BytesIO(text))
        for name, path in sources.items():
            with path.open("rb") as content:
                archive.addfile(_member(name, manifest.files[name].size), content)
            if file_sha256(path) != manifest.files[name].sha256:
                raise ImprintError(f"{path} has changed while it was packed; pack again when nothing writes it")


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A plain file of the archive, without owner and time: equal experiments make equal packs."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


def _say(what: str, names: list[str]) -> None:
    """Print which files something concerns, if there are any."""
    if names:
        more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
        print(f"{len(names)} {what}: {shown(', '.join(names[:NAMED]))}{more}")


if __name__ == "__main__":
    main()
