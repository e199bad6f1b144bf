"""Odd configs, rows and files: each comes to one message that says what was found, where, and what to do."""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import security
from conftest import one_fit
from imprint.config import loading, strict_yaml
from imprint.dag import start
from imprint.models import chains
from imprint.runtime import identity
from imprint.runtime.errors import ImprintError
from imprint.tables import dataset_rows, json_lines
from imprint.training import checkpoints

LONG = int("f" * 5000, 16)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [LONG]}, r"^seeds\[0\]: found a whole number of 20,000 bits"),
        ({"limit": LONG}, "^limit: found a whole number"),
        ({"arms": {"base": {"resources": {"mem_mb": LONG}}}}, "^arms.base.resources.mem_mb: found a whole number"),
        ({"models": {LONG: {}}}, "^a key of models: found a whole number"),
        ({"datasets": LONG}, "^datasets: found a whole number"),
        ({"arms": {"tuned": {"fit": LONG}}}, "^arms.tuned.fit: found a whole number"),
        ({"engine": {"batch_size": 1e23}}, "^engine.batch_size: found 1e"),
        ({"arms": {"tuned": {"fit": {"batch_size": 1e23}}}}, "^arms.tuned.fit.batch_size: found 1e"),
        ({"arms": {"base": {"resources": {"mem_mb": "(-1)**0.5"}}}}, r"mem_mb: found '\(-1\)\*\*0.5'; write a number"),
        ({"seeds": list(range(20_000))}, "^seeds: found .* at most 1000 items"),
    ],
)
def test_odd_numbers(change: dict, said: str) -> None:
    with pytest.raises(ImprintError, match=said):
        loading.parse(loading.merge(one_fit(), change))
    security.seen(
        "numbers of thousands of digits, `1e23`, `mem_mb: (-1)**0.5`, 20,000 seeds", "refused: where, and what to write"
    )


def test_a_long_number_of_the_command_line_stays_text() -> None:
    assert start.typed(["9" * 5000]) == ["9" * 5000]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [" + "0," * 3_000_000 + "0]", "larger than 1 MiB"),
        ("a: " + "x" * 100_000_000, "larger than 1 MiB"),
        ("a: [" + "0," * 500_000 + "0]", "over 100,000 values"),
        (
            "".join(f"k{arm}: {{parent: base, control: [base]}}\n" for arm in range(20_000)),
            "write a smaller experiment",
        ),
    ],
    ids=["list", "scalar", "list below the size", "arms"],
)
def test_a_file_that_is_no_config_is_refused_at_once(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(ImprintError, match=said):
        strict_yaml.load(tmp_path / "config.yaml")
    assert time.process_time() - began < 20
    security.seen(
        "a config of 3 million items, 100 MB of text, 20,000 arms", "refused in seconds: too large, or too many values"
    )


@pytest.mark.parametrize("row", ['{"a": 1, "a": 2}', '{"messages": [{"role": "user", "role": "system"}]}'])
def test_a_key_twice_in_a_row(row: str) -> None:
    with pytest.raises(ImprintError, match=r"^mine.jsonl, line 2: not JSON \(the key '(a|role)' is written twice"):
        list(json_lines.rows(['{"a": 1}', row], "mine.jsonl"))
    security.seen("a row of JSON in which a key stands twice", "refused with its line")


ROW: dict[str, Any] = {
    "dataset": "mine",
    "example_id": "0-0",
    "messages": [{"role": "user", "content": "Hello"}],
    "reference": "null",
    "fields": "{}",
    "strata": "{}",
    "cluster": "0",
    "source_sha256": "",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"example_id": None}, "the column 'example_id' is empty in 1 rows"),
        ({"messages": None}, "the column 'messages' is empty"),
        ({"messages": "Hello"}, "the column 'messages' is not list"),
        ({"messages": [None]}, "the row '0-0' has a message without a role or a content"),
        ({"messages": [{"role": "user", "content": None}]}, "the row '0-0' has a message without"),
        ({"messages": [{"role": "user", "text": "Hello"}]}, "the row '0-0' has a message without"),
        ({"example_id": b"\xff\xfe"}, "the column 'example_id' is not string"),
        ({"reference": None}, "the column 'reference' is empty"),
        ({"reference": "{"}, "the column 'reference' of the row '0-0' is not JSON"),
        ({"fields": "[" * 100_000}, "the column 'fields' of the row '0-0' is not JSON"),
        ({"strata": "9" * 5000}, "the column 'strata' of the row '0-0' is not JSON"),
        ({"strata": {"kind": 1}}, "the column 'strata' is not string"),
        ({"cluster": None}, "the column 'cluster' is empty in 1 rows"),
    ],
)
def test_a_parquet_file_with_other_values(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.Table.from_pylist([ROW | change]), path)
    with pytest.raises(ImprintError, match=said) as refused:
        dataset_rows.read(path)
    assert str(refused.value).startswith(f"{path}: ") and "delete it and run again" in str(refused.value)
    security.seen(
        "a Parquet file of other types, with bad UTF-8, empty fields, or text that is not JSON",
        "refused: the file, the column, and what to do",
    )


@pytest.mark.parametrize(
    "content", ["[]", "7", "null", '"model"', "{}", '{"fingerprint": 1}', "[" * 100_000, "9" * 5000]
)
def test_a_manifest_of_another_form(content: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content)
    for reads in (identity.read_manifest, lambda path: chains.links([path])):
        with pytest.raises(ImprintError) as refused:
            reads(path)
        assert str(refused.value).startswith(str(path)) and "delete it and run again" in str(refused.value)
    security.seen("a manifest that is `[]`, `{}`, deeply nested, or a number of 5,000 digits", "refused with its name")


class Called:
    """What a pickle can hold: a call."""

    def __reduce__(self) -> Any:
        return print, ("called",)


def put_link(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(path.parent.parent / "elsewhere")


def put_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("a file")


def put_pickle(path: Path) -> None:
    (path / "state.pt").write_bytes(pickle.dumps(Called()))
    checkpoints.seal(path.parent, 4)


def put_zipped_pickle(path: Path) -> None:
    torch.save(Called(), path / "state.pt")
    checkpoints.seal(path.parent, 4)


def put_seal(text: str) -> Callable[[Path], None]:
    return lambda path: (path / checkpoints.SEAL).write_text(text) and None


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (put_seal('{"x": 5}'), "has an unreadable complete.json"),
        (put_seal('{"state.pt": {"bytes": 1}}'), "has an unreadable complete.json"),
        (put_seal("[]"), "has an unreadable complete.json"),
        (put_seal("[" * 100_000), "has an unreadable complete.json"),
        (put_seal("{}"), "holds state.pt, which its complete.json does not name"),
        (put_file, "was not finished"),
        (put_pickle, "holds state.pt, which torch does not read"),
        (put_zipped_pickle, "holds state.pt, which torch does not read"),
        (put_link, "is a link, which no fit makes"),
    ],
)
def test_an_odd_checkpoint_is_left_out(
    attack: Callable[[Path], None], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    for step in (2, 4):
        path = folder / f"checkpoint-{step}"
        path.mkdir(parents=True)
        torch.save({"step": step}, path / "state.pt")
        checkpoints.seal(folder, step)
    shutil.copytree(folder / "checkpoint-4", elsewhere)
    attack(folder / "checkpoint-4")
    assert checkpoints.last(folder) == folder / "checkpoint-2"
    told = capsys.readouterr()
    assert f"checkpoint-4 {said}" in told.err and "called" not in told.out
    assert not (folder / "checkpoint-4").is_symlink() and not (folder / "checkpoint-4").exists()
    assert torch.load(elsewhere / "state.pt", weights_only=True) == {"step": 4}
    security.seen(
        "a checkpoint with a seal of another form, an empty seal, or a pickle that calls functions; a link for one",
        "named and left out, nothing called, the link's target untouched; the fit goes on from the one before it",
    )
