"""A model from the Hugging Face hub, at a commit. A model that the hub's cache on this machine holds is linked, without
network; any other is downloaded into the project."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from imprint.config import catalog
from imprint.models import folders
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256

PICKLES_AND_MORE = (".bin", ".pt", ".pth", ".gguf", ".safetensors")


def bring(repository: str, revision: str, out: Path) -> None:
    """Put the safetensors, config and tokenizer files of a repository at a commit into `out`. Raises ImprintError if
    the hub cannot be reached, if there are no such files, and if a file is not the one that the hub names."""
    from httpx import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    catalog.check_endpoint()
    try:
        cached = _cached(repository, revision)
        if cached is None:
            _download(repository, revision, out)
            return
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ImprintError(
            f"{repository} at revision {revision} could not be fetched from the hub: {first}; check the name, the "
            "revision, the network, and for a gated model that HF_TOKEN is set. Without network: `hf download "
            f"{repository} --revision {revision} --local-dir FOLDER` on a machine that has one, then `path: FOLDER` in "
            "place of `hub` and `revision`"
        ) from error
    for file in cached:
        content = file.resolve().name  # the cache names a large file by its sha256
        if re.fullmatch("[0-9a-f]{64}", content) and (actual := file_sha256(file)) != content:
            raise ImprintError(
                f"{file} in the hub's cache has sha256 {actual}, but the hub says {content}; delete it there and run "
                "again"
            )
        folders.bring(file, out / file.name)


def _cached(repository: str, revision: str) -> list[Path] | None:
    """The model's files in the hub's cache; None where the cache does not hold all of them. Whether it does is known
    where the list of the repository's files is in the cache too."""
    from huggingface_hub import get_cached_repo_tree, try_to_load_from_cache
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        names = [file.path for file in get_cached_repo_tree(repository, revision=revision)]
    except CachedRepoTreeNotFoundError:
        return None
    paths = [try_to_load_from_cache(repository, name, revision=revision) for name in _chosen(names, repository)]
    files = [Path(path) for path in paths if isinstance(path, str)]
    return files if len(files) == len(paths) else None


def _chosen(names: list[str], repository: str) -> list[str]:
    """The files of a repository that are taken. Raises ImprintError where there are no weights among them."""
    chosen = [name for name in names if folders.counts(name)]
    if not any(name.endswith(".safetensors") for name in chosen):
        weights = [name for name in names if name.endswith(PICKLES_AND_MORE)]
        raise ImprintError(
            f"{repository} has no safetensors weights (found: {', '.join(weights[:5]) or 'none'}); "
            "name a revision that has them, for example one made by the hub's converter"
        )
    return chosen


def _download(repository: str, revision: str, out: Path) -> None:
    import huggingface_hub

    api = huggingface_hub.HfApi()
    files = _chosen(api.list_repo_files(repository, revision=revision), repository)
    huggingface_hub.snapshot_download(repository, revision=revision, local_dir=out, allow_patterns=files)
    shutil.rmtree(out / ".cache", ignore_errors=True)
    for file in api.get_paths_info(repository, files, revision=revision):
        lfs = getattr(file, "lfs", None)  # the hub gives the sha256 of large files only
        if lfs is not None and (actual := file_sha256(out / file.path)) != lfs.sha256:
            raise ImprintError(
                f"{repository} at revision {revision}: {file.path} came with sha256 {actual}, but the hub says "
                f"{lfs.sha256}; run again, and if that is no help, without the mirror or proxy in between (HF_ENDPOINT)"
            )
