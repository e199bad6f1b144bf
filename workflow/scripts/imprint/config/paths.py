"""Paths that a config may name. What is written lies inside the project, and results in no folder that is the project's
own. Files that are only read, such as a dataset, weights or a log of another harness, may lie elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from imprint.runtime import stages

LONGEST = 200
"""The most characters of a path in a config. The names of outputs are appended to it, and file systems limit paths."""
LONGEST_READ = 1000
"""The most characters of a path that is only read; the hub's cache has long ones."""
ADAPTER = "adapter_config.json"
"""The file by which a folder is known as an adapter of PEFT."""
UNREAD = (".bin", ".pt", ".pth", ".ckpt", ".gguf")
"""Endings of weights that are not read."""
OURS = ("benchmarks", "config", "docs", "profiles", "resources", "rules", "slurm", "tests", "workflow")
"""Folders of the project itself."""


def inside(value: str) -> str:
    """The same path. Raises ValueError for one that leads out of the project, directly or by a link."""
    if Path(value).is_absolute() or ".." in Path(value).parts or value.startswith("~"):
        raise ValueError(f"'{value}' leaves the project; write a path inside it")
    if len(value) > LONGEST:
        raise ValueError(f"found {len(value)} characters, '{value[:40]}...'; write a path of at most {LONGEST}")
    try:
        # `results` itself may be a link, to a larger disk or to a shared folder.
        roots = (Path.cwd().resolve(), Path("results").resolve())
        if "\0" not in value and not any((target := Path(value).resolve()).is_relative_to(root) for root in roots):
            raise ValueError(f"'{value}' is a link to {target} and leaves the project; write a path inside it")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise ValueError(f"'{value}' is no path that can be followed ({error}); write another") from None
    return value


def _results(value: str) -> str:
    """The same path. Raises ValueError for a name with unusual characters, for a folder of the project itself, and for
    one in which another experiment keeps its results. A results folder may lie inside another one, as results/real
    does, but not inside a folder that stages write there, such as results/tables."""
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*/?", value):
        raise ValueError(f"found {value!r}; write a name of letters, digits, _, - and ., such as 'results/real'")
    if value.split("/")[0] in OURS or any(path.is_file() for path in (Path(value), *Path(value).parents)):
        raise ValueError(f"'{value}' is the project's own; write another folder, such as 'results/real'")
    names, target = list(Path(value).parts[1:]), Path(value).resolve()  # a link may lead into another results folder
    if target.is_relative_to(Path.cwd().resolve()):
        names += target.relative_to(Path.cwd().resolve()).parts[1:]
    elif target.is_relative_to(Path("results").resolve()):
        names += target.relative_to(Path("results").resolve()).parts
    for name in names:
        if name in stages.PARTS or re.fullmatch(r"limit\d+", name):
            raise ValueError(
                f"'{value}' leads into '{name}', where an experiment in the folder above keeps its own results; write "
                "another folder, such as 'results/real'"
            )
    return value


def only_read(value: str) -> str:
    """The same path. Raises ValueError for one that is neither inside the project nor absolute."""
    if len(value) > LONGEST or "\0" in value or not (Path(value).is_absolute() or ".." not in Path(value).parts):
        raise ValueError(
            f"'{value[:80]}' is no path of a file to read; write an absolute one, or one inside the project"
        )
    return value


def weights_problem(value: str, adapters: bool) -> str | None:
    """Why a path is no folder of weights that can be read; None where it is one. `adapters` says whether a LoRA adapter
    will do. Only names are looked at here: the job that reads the folder looks at the content."""
    if "\0" in value or ".." in Path(value).parts or max(map(len, (value, *Path(value).parts))) > LONGEST_READ:
        return f"'{value[:80]}' is no path of weights; write an absolute one, one from ~, or one inside the project"
    folder = Path(value).expanduser()
    if not folder.is_dir():
        return (
            f"'{value}' is no folder; write the one that holds the safetensors. Where it has moved, a link at its old "
            "place keeps all that was made from it"
        )
    names = sorted(file.name for file in folder.iterdir())
    if ADAPTER in names and not adapters:
        return (
            f"'{value}' is a LoRA adapter ({ADAPTER}) and no model; write the model that it was trained on here, and "
            f"the adapter as the fit of an arm: `fit: {{method: given, path: {value}}}`"
        )
    if any(name.endswith(".safetensors") for name in names):
        return None
    others = [name for name in names if name.endswith(UNREAD)]
    return (
        f"'{value}' holds no safetensors (weights found: {', '.join(others[:3]) or 'none'}); other formats are not "
        "read, since a pickle can run code and GGUF is quantized; load the model with transformers, and save it with "
        "save_pretrained"
    )


Log = Annotated[str, AfterValidator(only_read)]
"""A file that is only read, inside the project or at an absolute path."""
Inside = Annotated[str, AfterValidator(inside)]
Results = Annotated[Inside, AfterValidator(_results)]
