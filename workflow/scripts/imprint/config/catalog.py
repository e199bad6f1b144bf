"""The catalog of external files: the upstream address of each file, its hash, its licence, and the reader of its data.

`resources/catalog.yaml` has one entry per data set:

    gsm8k_test:
      reader: gsm8k
      licence: MIT
      files:
        test.jsonl: {repo: openai/grade-school-math, commit: 3101..., path: grade_school_math/data/test.jsonl,
                     sha256: 3730..., bytes: 749738, mirror: gsm8k/test.jsonl.gz}

A file comes from the upstream address at the pinned commit, or from a mirror folder when one is named (`mirror:` in the
config, or IMPRINT_DATA_MIRROR). A gated file comes from its hub alone, with the user's own token; the token is read
from HF_TOKEN and written nowhere. The sha256 of the original is checked in every case.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import Field, ValidationError

from imprint.config import strict_yaml
from imprint.runtime import unknown_keys
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import atomic, file_sha256
from imprint.runtime.plugins import Strict

PATH = Path("resources/catalog.yaml")
UPSTREAM = "https://raw.githubusercontent.com/{repo}/{commit}/{path}"
TIMEOUT = 60  # seconds without a byte from the server


class Spec(Strict):
    """One external file: the spec of a fetch job. The mirror's path is not a part of it, so it enters no identity."""

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="repository, OWNER/NAME")
    commit: str = Field(pattern=r"^[0-9a-f]{40}$", description="commit the file is read at")
    path: str = Field(description="path inside the repository")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="hash of the original file")
    bytes: int = Field(gt=0, description="size of the original file")


class CatalogFile(Spec):
    """One external file, as the catalog describes it."""

    mirror: str = Field(
        "",
        description="path inside a mirror folder; a .gz copy of a file that is not itself gzipped is unpacked; gated "
        "files are not mirrored",
    )


class Entry(Strict):
    """One data set of the catalog."""

    reader: str = Field(description="module in imprint/datasets that reads it")
    licence: str = Field(description="the licence as far as it is known")
    non_commercial: bool = Field(False, description="must then be accepted by name in `accept_licences`")
    evaluation_only: bool = Field(
        False,
        description="its authors ask that no model be trained on it, as the canary of BIG-bench does; a config that "
        "trains on it is refused",
    )
    gated: str | None = Field(
        None,
        pattern=r"^https://huggingface\.co/datasets/",
        description="page of the hub where access is asked for; the report shows no example of such a set",
    )
    files: dict[str, CatalogFile] = Field(description="file name -> where it is")


@cache
def load(path: Path = PATH) -> dict[str, Entry]:
    """Name -> entry. Raises ImprintError that names the malformed entry, where there is one."""
    entries = {}
    for name, value in strict_yaml.load(path).items():
        try:
            entries[name] = unknown_keys.validated(Entry, value)
        except ValidationError as error:
            raise ImprintError(f"{path}: {name}.{_fault(error.errors()[0])}") from None
    return entries


def _fault(error: Any) -> str:
    """The first fault of an entry: the place in the entry, what was found, and what to write."""
    where = ".".join(map(str, error["loc"]))
    if error["type"] == unknown_keys.TYPE:
        return f"{where}: {error['msg']}"
    if error["type"] == "missing":
        return f"{where}: missing; add it"
    if error["loc"][-1] in ("commit", "sha256"):
        digits = 40 if error["loc"][-1] == "commit" else 64
        return (
            f"{where}: found {error['input']!r:.80}; write {digits} hex digits, in quotes where all of them are digits"
        )
    return f"{where}: found {error['input']!r:.80}; {error['msg'].removeprefix('Value error, ')}"


def inside(root: Path, relative: str) -> Path:
    """`root / relative`. Raises ImprintError where the path leaves `root`: paths in a config or in data must not."""
    path = root / relative
    if Path(relative).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise ImprintError(f"the path '{relative}' leaves {root}; write a path inside it")
    return path


def run(spec: Spec, entry: str, mirror: Path | None, out: Path) -> None:
    """The job `fetch_data`: put a file of a catalog entry at `out`. The mirror's path and the gate do not enter the
    job's identity, so they are looked up in the catalog."""
    catalogued = load()[entry]
    file = CatalogFile(**dict(spec), mirror=catalogued.files[out.name].mirror)
    fetch(file, out, mirror, catalogued.gated)


def fetch(file: CatalogFile, out: Path, mirror: Path | None, gated: str | None = None) -> None:
    """Put the original of `file` at `out`: from the hub if `gated` (the page where access is asked for), else from the
    folder `mirror` if there is one, else from upstream. Size and hash are compared before the file gets its name.
    Raises ImprintError where the file cannot be had or is another one."""
    if gated:
        source = f"{gated}, {file.path}"
    elif mirror:
        source = f"{mirror}/{file.mirror}"
    else:
        source = UPSTREAM.format(repo=file.repo, commit=file.commit, path=quote(file.path))
    with atomic(out) as temporary:
        try:
            if gated:
                data = _from_hub(file, gated)
            elif mirror:
                path = inside(mirror, file.mirror)
                packed = file.mirror.endswith(".gz") and not file.path.endswith(".gz")
                opener = gzip.open if packed else open
                with opener(path, "rb") as handle:
                    data = handle.read(file.bytes + 1)
            else:
                with urllib.request.urlopen(source, timeout=TIMEOUT) as handle:
                    data = handle.read(file.bytes + 1)
        except FileNotFoundError:
            raise ImprintError(
                f"the mirror has no {source}; add the file, or unset `mirror` and IMPRINT_DATA_MIRROR to download it"
            ) from None
        except (OSError, EOFError, urllib.error.URLError) as error:
            raise ImprintError(
                f"{source} cannot be fetched ({error}); on a machine without internet set IMPRINT_DATA_MIRROR to a "
                "folder that holds the files of resources/catalog.yaml"
            ) from None
        temporary.write_bytes(data)
        if len(data) != file.bytes or file_sha256(temporary) != file.sha256:
            raise ImprintError(
                f"{source} is not the file of the catalog: {len(data):,}{'+' if len(data) > file.bytes else ''} bytes "
                f"with sha256 {file_sha256(temporary)[:12]}..., expected {file.bytes:,} bytes and "
                f"{file.sha256[:12]}...; a download may have been cut, or the mirror holds another version"
            )


def check_endpoint() -> None:
    """Raise ImprintError if the hub's address holds a password: the hub's client prints the address when it retries."""
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", ""))
    if endpoint.username or endpoint.password:
        raise ImprintError(
            f"HF_ENDPOINT holds a user name or a password for {endpoint.hostname}, which would end up in logs; write "
            "the address without them, and what the server asks for into ~/.netrc or HF_TOKEN"
        )


def _from_hub(file: CatalogFile, gated: str) -> bytes:
    """The bytes of a file of a gated hub repository. When the hub redirects to another host, the library does not send
    the token there."""
    import huggingface_hub
    from httpx import HTTPError
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    token = os.environ.get("HF_TOKEN")
    how = f"ask for access at {gated}, under the terms of that page, and set HF_TOKEN to a token of that account"
    if not token:
        raise ImprintError(f"{file.path} is gated and HF_TOKEN is not set; {how}")
    check_endpoint()
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = huggingface_hub.hf_hub_download(
                file.repo, file.path, repo_type="dataset", revision=file.commit, local_dir=folder, token=token
            )
            return Path(path).read_bytes()
    except GatedRepoError:
        raise ImprintError(f"{file.path} is gated and the account of HF_TOKEN has no access; {how}") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError) as error:
        raise ImprintError(
            f"{file.path} cannot be fetched from the hub ({type(error).__name__}); check the network, and that "
            f"HF_TOKEN holds a valid token: {how}"
        ) from None
