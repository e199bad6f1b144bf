"""The form of a pack, which `make pack` writes and `make unpack` reads.

A pack is a tar file that is not compressed, so it never becomes larger than it is: Parquet and safetensors would hardly
shrink. Its first member is the manifest, `pack.json`. The other members are the files that the manifest names, in the
manifest's order, and nothing else. Whoever reads a pack trusts none of it.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from pydantic import Field

from imprint.dag.code import PROJECT
from imprint.runtime import parsed, plugins, stages
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import fingerprint
from imprint.runtime.plugins import Strict

MANIFEST = "pack.json"
FORM = 1
"""Raise it when older versions can no longer read the packs."""
MOST_FILES = 1_000_000
MANIFEST_BYTES = 256 * 2**20
"""The largest manifest: a million files take less."""
RESOURCES = ("models", "data", "hub", "bundled", "local")
"""The folders under resources/ whose files a pack may hold."""
SUFFIXES = frozenset(
    {".parquet", ".safetensors", ".json", ".jsonl", ".yaml", ".yml", ".csv", ".tsv", ".txt", ".md", ".jinja"}
    | {".model", ".svg", ".html", ".duckdb", ".gz", ".zip"}
)
"""The endings of the files that a pack may hold. `.gz` and `.zip` are downloads of the catalog."""
NAME = re.compile(r"[A-Za-z0-9_@+=-][A-Za-z0-9_.@+=-]{0,199}")
"""A part of a path. It begins with no dot."""


class File(Strict):
    """A file of a pack: its bytes and their sha256."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(Strict):
    """What a pack holds, and what made it. `files`: path relative to the project -> file. `configs`: the config files
    under the names they get in the other checkout. `settings`: the arguments of `--config`. `commit`: the commit of the
    checkout, or "" where git says none. `code`: `code_sum` of the checkout. `missing`: how many outputs of the
    experiment were not there."""

    form: int
    results: str
    configs: list[str] = Field(min_length=1)
    settings: list[str]
    commit: str
    code: str
    missing: int
    files: dict[str, File] = Field(max_length=MOST_FILES)


def code_sum() -> str:
    """The sum of the code in this checkout that decides results: comments do not count."""
    files = sorted(plugins.PACKAGE.parent.rglob("*.py"))
    return fingerprint({str(file.relative_to(PROJECT)): parsed.read(file).sha256 for file in files})


def check_path(name: str, results: str, configs: list[str]) -> None:
    """Raise ImprintError unless `name` is the path of a file that a pack may hold: plain names below the folder
    `results`, below one of RESOURCES, or one of `configs`."""
    parts = name.split("/")
    if not all(map(NAME.fullmatch, parts)) or PurePosixPath(name).suffix not in SUFFIXES:
        raise ImprintError(f"'{name:.200}' is no path of a file that a pack may hold")
    if name in configs:
        placed = len(parts) == 2 and parts[0] == "config" and parts[1].startswith("unpacked-")
    elif parts[0] == "resources":
        placed = len(parts) > 2 and parts[1] in RESOURCES
    else:
        below = name.removeprefix(f"{results}/")
        placed = below != name and below.split("/")[0].removesuffix(".made.json") in stages.PARTS
    if not placed:
        raise ImprintError(f"'{name:.200}' lies outside the folders that a pack may write")


def check_results(results: str) -> None:
    """Raise ImprintError unless a results folder lies in the project's folder results/."""
    parts = results.split("/")
    if parts[0] != "results" or not all(map(NAME.fullmatch, parts)):
        raise ImprintError(
            f"results: '{results:.200}' is not below results/ in the project, so it cannot be packed for another "
            "checkout; move the folder there, and write its new name into the config"
        )
