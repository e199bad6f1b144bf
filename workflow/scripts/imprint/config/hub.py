"""Dataset repositories of the Hugging Face hub: which of a repository's files hold a split, and how they are fetched.

A repository is pinned by its commit. The `configs` in the head of its README.md say which files hold which split of
which config. Where they say nothing, a split is in the files whose path has the split's name as a word
(`data/train-00000-of-00002.parquet`), below a folder with the config's name if the dataset names one; or, if no path
has a word for a split, the split `train` is all files. Only data is fetched: code in a repository is never run.

A fetched split is a folder with the files, numbered in the order of their paths, and a manifest with their hashes.
"""

from __future__ import annotations

import fnmatch
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from imprint.config import catalog, strict_yaml
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import atomic, file_sha256, fingerprint, write_json
from imprint.runtime.plugins import Strict

FORMS = (
    ".parquet",
    *(f"{form}{packed}" for form in (".csv", ".tsv", ".jsonl", ".ndjson", ".json") for packed in ("", ".gz")),
)
"""Endings of the files that `datasets/columns.py` reads."""
SPLIT = re.compile(r"(?<![a-z])(train|valid|dev|val|test|eval)(ing|ation)?(?![a-z])", re.IGNORECASE)
"""A word of a path that names some split."""
NO_DATA = ("dataset_infos.json", "dataset_info.json")
Fetch = Callable[[str, Path], None]
"""Puts the file of a repository's path at a path of ours."""


class Spec(Strict):
    """A split of a dataset repository at a commit: the spec of a fetch job."""

    hub: str = Field(pattern=r"^[\w-][\w.-]*/[\w-][\w.-]*$", description="dataset repository, OWNER/NAME")
    revision: str = Field(description="the full commit of the repository")
    split: str = Field(pattern=r"^\w[\w.+-]*$", max_length=100, description="split, such as train")
    config: str | None = Field(
        None,
        pattern=r"^\w[\w.+-]*$",
        max_length=100,
        description="config (the hub says: subset); null is the default one",
    )

    @field_validator("revision")
    @classmethod
    def _full(cls, value: str) -> str:
        if not re.fullmatch("[0-9a-f]{40}", value):
            raise ValueError(
                f"found '{value}'; write the full commit, 40 hex digits, so that the rows cannot change: the "
                "repository's page on the hub has it under Files, History"
            )
        return value

    def words(self) -> list[str]:
        """What the report says of the split beside the repository's name."""
        return [*([f"config {self.config}"] if self.config else []), f"split {self.split}", f"revision {self.revision}"]

    @property
    def folder(self) -> str:
        """The name of the folder of the fetched files: the repository's name, and 8 digits of the spec's hash."""
        return f"{self.hub.split('/')[1]}-{fingerprint(self.model_dump())[:8]}"


def run(spec: Spec, mirror: Path | None, out: Path) -> None:
    """The job `fetch_hub`: put the files of a split beside `out`, their manifest. With `mirror`, they come from its
    folder hub/OWNER/NAME/COMMIT, which holds the repository's files. Raises ImprintError where a file cannot be had."""
    names, fetch = _of_mirror(spec, mirror) if mirror else _of_hub(spec)
    configs = []
    if "README.md" in names:
        readme = out.with_name("README.md")
        with atomic(readme) as copy:
            fetch("README.md", copy)
        configs = configs_of(readme)
    files = {}
    for number, name in enumerate(of_split(spec, names, configs)):
        ending = next(form for form in sorted(FORMS, key=len, reverse=True) if name.lower().endswith(form))
        path = out.with_name(f"{number:05d}{ending}")
        with atomic(path) as copy:
            fetch(name, copy)
        files[path.name] = {"path": name, "sha256": file_sha256(path)}
    write_json(out, {"kind": "dataset", "spec": spec.model_dump(), "files": files})


def of_split(spec: Spec, names: Iterable[str], configs: list[dict[str, Any]]) -> list[str]:
    """The paths of a repository, sorted, that hold a split. `configs` are those of its README.md. Raises ImprintError
    where no path does, and where some are in a form that is not read."""
    where, names = f"{spec.hub} at {spec.revision[:12]}", sorted(names)
    data = [name for name in names if name.lower().endswith(FORMS) and name not in NO_DATA]
    if configs:
        patterns = _patterns(spec, configs, where)
        chosen = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
        if unread := [name for name in chosen if name not in data]:
            raise ImprintError(
                f"{where}: the split '{spec.split}' is in '{unread[0]}', which is not read; name the commit of the "
                "repository's branch refs/convert/parquet, where the hub keeps a copy in Parquet"
            )
    else:
        below = [name for name in data if spec.config is None or spec.config in name.split("/")[:-1]]
        chosen = [name for name in below if _named(spec.split, name)]
        if not chosen and spec.split == "train" and not any(SPLIT.search(name) for name in below):
            chosen = below
    if not chosen:
        raise ImprintError(
            f"{where}: no file is known to hold the split '{spec.split}'"
            f"{f' of the config {spec.config!r}' if spec.config else ''}; it has: "
            f"{', '.join(data[:12]) or 'no data in ' + ', '.join(FORMS[:5])}{', ...' if len(data) > 12 else ''}; write "
            "a `split` (and `config`) that names some of these, or the commit of its branch refs/convert/parquet"
        )
    return chosen


def _named(word: str, name: str) -> bool:
    """Whether a path has a word."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", name) is not None


def configs_of(readme: Path) -> list[dict[str, Any]]:
    """The configs that the head of a README.md lists with their files; none where it lists none. Raises ImprintError
    for a head that is not YAML."""
    head = re.match(r"---[ \t]*\r?\n(.*?\n)---", readme.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    if head is None or "configs:" not in head[1]:
        return []
    with atomic(readme.with_suffix(".yaml")) as copy:
        copy.write_text(head[1], encoding="utf-8")
    configs = strict_yaml.load(readme.with_suffix(".yaml")).get("configs")
    listed = configs if isinstance(configs, list) else []
    return [config for config in listed if isinstance(config, dict) and "data_files" in config]


def _patterns(spec: Spec, configs: list[dict[str, Any]], where: str) -> list[str]:
    """The patterns of the paths that hold a split of a config. Raises ImprintError for a config or split that is not
    listed."""
    named = {str(config.get("config_name", "default")): config for config in configs}
    default = next((name for name, config in named.items() if config.get("default") is True), "default")
    name = spec.config or (default if default in named else next(iter(named)) if len(named) == 1 else None)
    if name not in named:
        raise ImprintError(
            f"{where}: has no config '{name or 'default'}'; write `config:` with one of: {', '.join(named)}"
        )
    files = named[name]["data_files"]
    listed = files if isinstance(files, list) else [files]
    splits: dict[str, list[str]] = {}
    for entry in listed:
        split, paths = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
        splits.setdefault(str(split), []).extend(map(str, paths if isinstance(paths, list) else [paths]))
    if spec.split not in splits:
        raise ImprintError(f"{where}: config '{name}' has no split '{spec.split}'; write one of: {', '.join(splits)}")
    folder = str(named[name].get("data_dir", "")).strip("/")
    return [f"{folder}/{pattern}".removeprefix("/").removeprefix("./") for pattern in splits[spec.split]]


def _of_mirror(spec: Spec, mirror: Path) -> tuple[list[str], Fetch]:
    """The paths of a repository in a mirror, and how to get one."""
    root = catalog.inside(mirror, f"hub/{spec.hub}/{spec.revision}")
    if not root.is_dir():
        raise ImprintError(
            f"the mirror has no {root}; put the repository's files there, or unset `mirror` and IMPRINT_DATA_MIRROR to "
            "download them"
        )

    def fetch(name: str, out: Path) -> None:
        shutil.copyfile(catalog.inside(root, name), out)

    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()], fetch


def _of_hub(spec: Spec) -> tuple[list[str], Fetch]:
    """The paths of a repository on the hub, and how to get one. The hub's own cache keeps what is downloaded. The hub
    tells the sha256 of large files, which is compared."""
    import huggingface_hub
    from httpx import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.hf_api import RepoFile

    where = f"{spec.hub} at revision {spec.revision}"
    kind: dict[str, Any] = {"repo_type": "dataset", "revision": spec.revision}
    catalog.check_endpoint()

    def failed(error: Exception) -> ImprintError:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return ImprintError(
            f"{where} could not be fetched from the hub: {first}; check the name, the revision, the network, and for a "
            "gated dataset that HF_TOKEN is set. Without network, put the repository's files into "
            f"MIRROR/hub/{spec.hub}/{spec.revision} and write `mirror: MIRROR`"
        )

    def fetch(name: str, out: Path) -> None:
        try:
            (remote,) = huggingface_hub.HfApi().get_paths_info(spec.hub, [name], **kind)
            shutil.copyfile(huggingface_hub.hf_hub_download(spec.hub, name, **kind), out)
        except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
            raise failed(error) from error
        large = remote.lfs if isinstance(remote, RepoFile) else None
        if large is not None and (actual := file_sha256(out)) != large.sha256:
            raise ImprintError(
                f"{where}: {name} came with sha256 {actual}, but the hub says {large.sha256}; run again, and if that "
                "is no help, without the mirror or proxy in between (HF_ENDPOINT)"
            )

    try:
        return huggingface_hub.HfApi().list_repo_files(spec.hub, **kind), fetch
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        raise failed(error) from error
