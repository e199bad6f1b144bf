"""What a model folder holds: safetensors weights, a tokenizer and its chat template. Fetching a model and loading it
both rest on this, and on nothing of each other, so that an edit to one does not rerun the other."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from imprint import processes
from imprint.errors import ImprintError
from imprint.identity import file_sha256, fingerprint, read_json

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
VERIFIED = Path(".snakemake/imprint/verified")
"""Empty files, each named after a file that a job of this run has hashed; the run's jobs share them, here and on other
machines. They are for one run: what a disk loses later is found by the next."""
_verified: set[str] = set()  # the same, in this process


def template_sha256(tokenizer: Any) -> str:
    """sha256 of the chat template's text: two models with equal sums render a dialogue alike."""
    template = tokenizer.chat_template
    if not isinstance(template, str) or not template:
        raise ImprintError(
            f"the tokenizer of {tokenizer.name_or_path} has no single chat template; put the one it was trained with "
            "beside its files as chat_template.jinja"
        )
    return hashlib.sha256(template.encode()).hexdigest()


def check_safetensors(folder: Path) -> None:
    """Raise unless `folder` holds a whole set of safetensors weights: the shards its index names, each with a readable
    header and as long as the header says."""
    from safetensors import SafetensorError, safe_open

    index = folder / f"{WEIGHTS}.index.json"
    given = read_json(index) if index.exists() else {"weight_map": {WEIGHTS: WEIGHTS}}
    files = given.get("weight_map") if isinstance(given, dict) else None
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise ImprintError(f"{index} names no weights file for each tensor; fetch it again")
    names = set(files.values())
    for name in sorted(names):
        if Path(name).name != name or not (folder / name).is_file():
            found = ", ".join(sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt")))
            raise ImprintError(
                f"{folder} has no weights file {name} (weights found: {found or 'none'}); only safetensors are "
                "read, so convert other formats first"
            )
        try:
            with safe_open(folder / name, framework="np") as handle:
                handle.keys()
        except (OSError, SafetensorError) as error:
            raise ImprintError(f"{folder / name} is not a whole safetensors file ({error}); fetch it again") from error


def verify(manifest: Path, weights: bool = True) -> None:
    """Raise ImprintError unless the files that a manifest names are there with the content that it says; without
    `weights`, a model's other files alone. A run (environment variable IMPRINT_RUN) hashes a file once, as long as its
    size and time stay."""
    made = read_json(manifest)
    if made.get("kind") == "model":
        folder, files = manifest.parent, made.get("files")
        again = f"delete {folder} and run again, which fetches it anew"
    else:
        folder, files = manifest.parent / "weights", made.get("weights")
        again = f"delete {manifest} and run again, which fits the arm anew"
    if not isinstance(files, dict) or not files:
        raise ImprintError(f"{manifest} does not say what its weights are; {again}")
    for name, content in files.items():
        if weights or not name.endswith(".safetensors"):
            _verify(folder / name, content, again)


def _verify(file: Path, content: str, again: str) -> None:
    try:
        status = file.stat()
    except OSError:
        raise ImprintError(f"{file} is missing; {again}") from None
    run = os.environ.get(processes.RUN)
    key = fingerprint([run, str(file.resolve()), status.st_size, status.st_mtime_ns, content])
    if key in _verified or (run and (VERIFIED / key).exists()):
        return
    if file_sha256(file) != content:
        raise ImprintError(f"{file} is not the file that was written ({status.st_size} bytes, another sha256); {again}")
    _verified.add(key)
    if run:
        VERIFIED.mkdir(parents=True, exist_ok=True)
        (VERIFIED / key).touch()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, padding on the left as generation needs it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, padding_side="left"
        )
    except Exception as error:  # whatever its files hold, they are somebody else's
        raise ImprintError(f"the tokenizer in {folder} cannot be loaded: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ImprintError(f"the tokenizer in {folder} names no eos_token; add it to tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
