"""What a model folder holds: safetensors weights, a tokenizer and its chat template. Fetching and loading a model share
this module and nothing else, so that an edit of one does not rerun the other."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from imprint.runtime import processes
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, fingerprint, read_json

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
VERIFIED = Path(".snakemake/imprint/verified")
"""Empty files, each named after a file that a job of this run has hashed. The jobs of the run share them, on all
machines. The next run hashes again, and so notices what the disk has lost since."""
_verified: set[str] = set()  # names of files of VERIFIED that this process has checked


def template_sha256(tokenizer: Any) -> str:
    """sha256 of the chat template's text: two models with equal sums render a dialogue alike. Raises ImprintError if
    the tokenizer has no template, or several."""
    template = tokenizer.chat_template
    if not isinstance(template, str) or not template:
        raise ImprintError(
            f"the tokenizer of {tokenizer.name_or_path} has no single chat template; put the one it was trained with "
            "beside its files as chat_template.jinja"
        )
    return hashlib.sha256(template.encode()).hexdigest()


def check_safetensors(folder: Path) -> list[Path]:
    """The files of a folder's weights: one, or the shards that its index names. Raises ImprintError unless each is
    there, with a readable header and the length that the header says."""
    from safetensors import SafetensorError, safe_open

    index = folder / f"{WEIGHTS}.index.json"
    content = read_json(index) if index.exists() else {"weight_map": {WEIGHTS: WEIGHTS}}
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise ImprintError(f"{index} names no weights file for each tensor; fetch it again")
    names = sorted(set(files.values()))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            present = ", ".join(sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt")))
            raise ImprintError(
                f"{folder} has no weights file {name} (weights found: {present or 'none'}); only safetensors are "
                "read, so convert other formats first"
            )
        try:
            with safe_open(folder / name, framework="np") as handle:
                handle.keys()
        except (OSError, SafetensorError) as error:
            raise ImprintError(f"{folder / name} is not a whole safetensors file ({error}); fetch it again") from error
    return [folder / name for name in names]


def verify(manifest: Path, weights: bool = True) -> None:
    """Raise ImprintError unless every file that a manifest names exists, with the sha256 that the manifest says.
    `weights=False` leaves out the safetensors. Within a run (environment variable IMPRINT_RUN) a file is hashed again
    only if its size or modification time has changed."""
    record = read_json(manifest)
    if record.get("kind") == "model":
        folder, files = manifest.parent, record.get("files")
        again = (  # within a larger run, the fetch would have all made again that is made from the model
            f"`snakemake --cores all --configfile CONFIG -f -- {manifest}` fetches the model, and keeps what was made "
            "from it"
        )
    else:
        folder, files = manifest.parent / "weights", record.get("weights")
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
    """The tokenizer of a model folder. It pads on the left, as generation needs. Raises ImprintError if it cannot be
    loaded or names no end token."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, padding_side="left"
        )
    except Exception as error:  # the files are not ours, so any error can come out of them
        raise ImprintError(f"the tokenizer in {folder} cannot be loaded: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ImprintError(f"the tokenizer in {folder} names no eos_token; add it to tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
