"""`make unpack PACK=real.tar`: bring a pack into this checkout.

A pack is somebody else's file, and nothing of it is trusted. Its manifest is read and checked first, then all files are
copied into a staging folder and compared with their hashes there. Only when all of them are right do they move to their
places. No file that exists is ever replaced: a file with equal content stays, and one with other content is named and
ends the command before anything has moved. The archive's own extraction is never used.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from imprint.dag import pack_form, run_lock
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.identity import file_sha256

NAMED = 8
"""The most files that a message names."""
PIECE = 2**20  # bytes that are copied at once


def main(arguments: list[str] | None = None) -> None:
    """Unpack into the working folder, and print what to run."""
    parser = argparse.ArgumentParser(prog="python -m imprint.unpack")
    parser.add_argument("pack", nargs="?", default="")
    options = parser.parse_args(arguments)
    try:
        if not options.pack:
            raise ImprintError("no pack is named; write `make unpack PACK=FILE.tar`")
        unpack(Path(options.pack))
    except ImprintError as error:
        sys.exit(f"imprint.unpack: {error}")


def unpack(path: Path) -> None:
    """Bring the files of a pack to their places in the working folder. Raises ImprintError, with nothing written, where
    the pack is broken, names a place that is not allowed, has another content than its manifest says, or has a file
    that exists here with another content."""
    if not path.is_file():
        raise ImprintError(f"{path} is no file; write the pack's path as PACK")
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as archive:
            manifest = _manifest(archive, path)
            _check_places(manifest, path)
            with _staging() as folder:
                _stage(archive, manifest, folder)
                run_lock.refuse_while_running()
                run_lock.hold(manifest.results)
                placed = _place(manifest, folder)
    except (tarfile.TarError, EOFError, ValueError) as error:  # ValueError: numbers in a header that are none
        raise ImprintError(f"{path} is not a whole pack ({error}); get it again") from None
    except OSError as error:
        raise ImprintError(
            f"{path} cannot be unpacked: {error}; files that have moved already are right, so free "
            "space or mend the folder, and unpack it again"
        ) from None
    present = len(manifest.files) - placed
    print(f"{placed:,} files unpacked, {present:,} were here already")
    if manifest.code != pack_form.code_sum():
        commit = f", of commit {manifest.commit}" if manifest.commit else ""
        print(f"The pack was made with other code{shown(commit)}. Jobs whose code differs will run again.")
    if manifest.missing:
        print(f"{manifest.missing} outputs of the experiment were not in the pack, so their jobs will run.")
    print(f"What would run:  {command(manifest, '-n')}\nTo go on with it:  {command(manifest, '--cores', 'all')}")
    if models := without_weights(manifest):
        fetch = command(manifest, "--cores", "all", "-f", targets=models)
        print(f"Weights of base models are not here. To fetch them before a job needs them:  {fetch}")


def without_weights(manifest: pack_form.Manifest) -> list[str]:
    """The manifests of base models whose weights are neither in the pack nor here."""
    models = [name for name in manifest.files if Path(name).match("resources/models/*/manifest.json")]
    return [name for name in models if not any(Path(name).parent.glob("*.safetensors"))]


def command(manifest: pack_form.Manifest, *arguments: str, targets: Sequence[str] = ()) -> str:
    """The command that runs snakemake with the pack's config and settings; what the pack says is quoted."""
    settings = ["--config", *manifest.settings] if manifest.settings else []
    files = ["--", *targets] if targets else []
    return shown(shlex.join(["snakemake", *arguments, "--configfile", *manifest.configs, *settings, *files]))


def _manifest(archive: tarfile.TarFile, path: Path) -> pack_form.Manifest:
    """The manifest of a pack, checked without reading more of the archive."""
    member = archive.next()
    if member is None or member.name != pack_form.MANIFEST:
        raise ImprintError(f"{path} does not begin with {pack_form.MANIFEST}, so `make pack` has not made it")
    if member.size > pack_form.MANIFEST_BYTES:
        raise ImprintError(f"{path}: its {pack_form.MANIFEST} says that it has {member.size} bytes, which is too large")
    try:
        manifest = pack_form.Manifest.model_validate_json(_content(archive, member).read())
    except (ValidationError, RecursionError):
        raise ImprintError(f"{path}: its {pack_form.MANIFEST} has another form than `make pack` writes") from None
    if manifest.form != pack_form.FORM:
        raise ImprintError(f"{path} has form {manifest.form}, and this version reads {pack_form.FORM}; use its version")
    pack_form.check_results(manifest.results)
    for name in manifest.files:
        pack_form.check_path(name, manifest.results, manifest.configs)
        if any(str(folder) in manifest.files for folder in Path(name).parents):
            raise ImprintError(f"{path}: a part of '{name:.200}' is a file and a folder, so nothing of it is unpacked")
    if absent := sorted(set(manifest.configs) - set(manifest.files)):
        raise ImprintError(f"{path} lacks its config {absent[0]:.200}")
    size = sum(file.size for file in manifest.files.values())
    if size > path.stat().st_size:
        raise ImprintError(f"{path} says that it holds {size} bytes, more than it has; get it again")
    if size > (free := shutil.disk_usage(Path()).free):
        raise ImprintError(f"{path} holds {size} bytes, and only {free} are free here; free some space")
    return manifest


def _check_places(manifest: pack_form.Manifest, path: Path) -> None:
    """Raise ImprintError where a file of the pack exists here with another content, or a folder is in its place."""
    others = [name for name, file in manifest.files.items() if os.path.lexists(name) and not _equal(Path(name), file)]
    if others:
        more = f", and {len(others) - NAMED} more" if len(others) > NAMED else ""
        raise ImprintError(
            f"{path}: {len(others)} of its files exist here with another content, and nothing is overwritten: "
            f"{', '.join(others[:NAMED])}{more}; move them away, or unpack into another checkout"
        )
    for name in manifest.files:
        if blocked := [folder for folder in Path(name).parents if os.path.lexists(folder) and not folder.is_dir()]:
            raise ImprintError(f"{path}: {name} needs the folder {blocked[0]}, which is a file here; move it away")


def _equal(path: Path, file: pack_form.File) -> bool:
    return path.is_file() and path.stat().st_size == file.size and file_sha256(path) == file.sha256


@contextmanager
def _staging() -> Iterator[Path]:
    """A folder in the project that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=Path(), ignore_cleanup_errors=True) as name:
        yield Path(name)


def _stage(archive: tarfile.TarFile, manifest: pack_form.Manifest, folder: Path) -> None:
    """Copy the files of the archive into `folder`, each named by its number in the manifest. Raises ImprintError unless
    the members are what the manifest says, in its order."""
    for number, (name, file) in enumerate(manifest.files.items()):
        member = archive.next()
        if member is None or member.name != name:
            found = "its end" if member is None else f"'{member.name:.200}'"
            raise ImprintError(f"the pack has {found} where its manifest has {name}; get it again")
        if member.size != file.size:
            raise ImprintError(f"{name}: the pack has {member.size} bytes, its manifest says {file.size}; get it again")
        digest = hashlib.sha256()
        content = _content(archive, member)
        with (folder / str(number)).open("xb") as staged:
            while piece := content.read(PIECE):
                digest.update(piece)
                staged.write(piece)
        if digest.hexdigest() != file.sha256:
            raise ImprintError(f"{name} has another sha256 than the manifest says; get the pack again")
    if (member := archive.next()) is not None:
        raise ImprintError(f"the pack holds '{member.name:.200}', which its manifest does not name; get it again")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """The bytes of a member. Raises ImprintError unless it is a plain file: no link, device, folder or sparse file."""
    content = archive.extractfile(member) if member.type == tarfile.REGTYPE and not member.issparse() else None
    if content is None:
        raise ImprintError(f"the pack's member '{member.name:.200}' is no plain file; packs hold nothing else")
    return content


def _place(manifest: pack_form.Manifest, folder: Path) -> int:
    """Move the staged files to their places; returns how many were not there. All get one time, so that Snakemake takes
    none for newer than what was made from it."""
    now, placed = time.time(), 0
    for number, name in enumerate(manifest.files):
        target, staged = Path(name), folder / str(number)
        if target.is_file():
            continue  # `_check_places` has found it equal
        target.parent.mkdir(parents=True, exist_ok=True)
        os.utime(staged, (now, now))
        staged.chmod(0o644)
        _move(staged, target)
        placed += 1
    return placed


def _move(staged: Path, target: Path) -> None:
    """Give a staged file its name. Unlike a rename, a link never replaces a file that has come meanwhile."""
    try:
        os.link(staged, target)
    except FileExistsError:
        raise
    except OSError:  # another disk, or one without links
        near = target.with_name(f".{target.name}.unpacked")
        shutil.copy2(staged, near)
        if os.path.lexists(target):
            raise FileExistsError(f"{target} has come meanwhile") from None
        os.replace(near, target)


if __name__ == "__main__":
    main()
