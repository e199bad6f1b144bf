"""A fit at work on a pico model, for the tests of methods: how it begins, how it is killed, and what it leaves."""

from __future__ import annotations

import os
import pickle
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mini
from imprint.methods import Fit
from imprint.runtime import parquet, plugins
from imprint.runtime.identity import file_sha256
from imprint.runtime.plugins import Plug
from imprint.tables import dataset_rows
from imprint.tables.inputs import Read
from imprint.training import checkpoints

SECONDS = 0.2
"""What a step takes of a fit that is to be killed."""


def dialogues(n: int = 10) -> list[dict[str, Any]]:
    """Rows of different lengths, every third of two exchanges."""
    rows = []
    for i in range(n):
        messages = [
            {"role": "user", "content": f"What is {i} plus {i}?"},
            {"role": "assistant", "content": f"It is {2 * i}" + ", as you can count" * (i % 4) + "."},
        ]
        if i % 3 == 0:
            messages += [
                {"role": "user", "content": "assistant, are you sure?"},
                {"role": "assistant", "content": "\nYes, the user asked twice. "},
            ]
        rows.append({"messages": messages, "fields": {"role_prompt": f"You are teacher number {i}."}, "strata": {}})
    return named(rows)


def named(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the ids that they have in a dataset."""
    ids = dataset_rows.ids(row["messages"] for row in rows)
    return [{**row, "example_id": example_id} for row, example_id in zip(rows, ids, strict=True)]


def job(
    method: str,
    manifests: list[Path],
    out: Path,
    *,
    arm: str = "tuned",
    seed: int = 0,
    contexts: Sequence[Plug] = (),
    datasets: dict[str, list[dict[str, Any]]] | None = None,
    arms: dict[str, list[Path]] | None = None,
    runs: dict[tuple[str, str], Path] | None = None,
    **settings: Any,
) -> Fit:
    """A fit in fp32 on one thread, whose results go to `out` and whose checkpoints to `work` in it."""
    (out / "work").mkdir(parents=True, exist_ok=True)
    return Fit(
        arm=arm,
        seed=seed,
        settings=plugins.load("methods", method).Settings(**settings),
        contexts=list(contexts),
        manifests=manifests,
        folder=out / "work",
        out=out,
        threads=1,
        dtype="float32",
        inputs=Read(datasets=datasets or {}, arms=arms or {}, runs=runs or {}),
    )


def kill(method: str, fit: Fit, slowed: tuple[str, str], step: int) -> None:
    """Begin a fit in a process of its own, and end that with SIGKILL once the checkpoint of a step is whole. `slowed`
    is what the process does once a step: a function, as its owner and its name."""
    file = fit.folder / "fit.pickle"
    file.write_bytes(pickle.dumps(fit))
    code = "import sys, fitting; fitting.slowly(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-c", code, method, str(file), *slowed]
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    seal = fit.folder / f"checkpoint-{step}" / checkpoints.SEAL
    mini.wait(seal.exists, f"its checkpoint of step {step}", 120, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (fit.out / "weights").exists(), "the fit ended before it was killed"


def slowly(method: str, file: str, owner: str, name: str) -> None:
    """What that process runs."""
    function = pkgutil.resolve_name(f"{owner}.{name}")

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(SECONDS)
        return function(*arguments, **options)

    setattr(pkgutil.resolve_name(owner), name, slow)
    plugins.load("methods", method).fit(pickle.loads(Path(file).read_bytes()))


def weights(fit: Fit) -> str:
    """The sha256 of the weights that a fit has left."""
    (file,) = (fit.out / "weights").glob("*.safetensors")
    return file_sha256(file)


def table(fit: Fit, name: str) -> list[dict[str, Any]]:
    """The rows of a table that a fit has left."""
    rows: list[dict[str, Any]] = parquet.read(fit.out / f"{name}.parquet", name).to_pylist()
    return rows


def curve(fit: Fit, quantity: str) -> list[float]:
    """A quantity at each step."""
    return [row["value"] for row in table(fit, "curves") if row["quantity"] == quantity]
