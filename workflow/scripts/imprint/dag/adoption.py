"""Records for outputs of which Snakemake has no true record.

Snakemake would keep such outputs without knowing what they were made from. There are three cases. It has no record of
an output (`.snakemake/metadata` was lost, or the output comes from another checkout). Its record is of an earlier
content (another checkout has made the output anew). An input was replaced by an older file of another content.

The file beside the output (`runtime/origin.py`) says what the output was made from, and becomes Snakemake's record.
Snakemake then compares settings, code and inputs as always: it keeps what fits and remakes what differs. All this
happens in a dry run too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from imprint.runtime import origin
from imprint.runtime.errors import shown
from imprint.runtime.identity import file_sha256, write_json

NAMED = 12
"""The most files that are named in a message; a last line says how many more there are."""
SHOWN = 60
"""The most characters of a setting in a message."""
OTHER_INPUTS = "made from other inputs"
"""A record with this text in place of the params fits no config, so Snakemake makes the output again."""
SUMS = Path(".snakemake/imprint/sums.json")
"""The hashes of inputs, kept from run to run."""


def adopt(workflow: Any, outputs: Iterable[str], results: str) -> None:
    """Write Snakemake's records of `outputs` where they are missing, broken or of another content, and print which
    outputs will be made again. An output in the folder `results` of which nothing is known gets a record that fits no
    config, and so does an output whose inputs have another content than when it was made.

    The process that plans the run calls this after the rules are defined. It reads the record of each output and the
    status of each input; where there is no record, it also reads the file beside the output and hashes the output."""
    from snakemake.persistence.file import FilePersistence

    store, contents = FilePersistence(nolock=True), _Contents()
    kept, to_remake = 0, list[str]()
    for name in outputs:
        output = Path(name)
        if not output.is_file():
            continue
        record, modified = _record(store, name), output.stat().st_mtime
        if record is not None and record.endtime == modified and record.params != [OTHER_INPUTS]:
            if changed := contents.changed(record.input_checksums, modified):
                store._write_record(name, record.model_copy(update={"params": [OTHER_INPUTS]}))
                to_remake.append(f"{name}: {changed} is not what it was made from")
            continue
        beside = origin.read(output, results)
        if beside is None and (record is not None or not name.startswith(f"{results}/")):
            continue
        source = beside or {"rule": None, "params": {}, "inputs": {}}
        sums = {path: f"sha256:{content}" for path, content in source["inputs"].items()}
        changed = contents.changed(sums, modified)
        params = [OTHER_INPUTS] if changed else sorted(map(repr, source["params"].values())) or ["unknown"]
        fresh = _new_record(source["rule"], params, sums, modified)
        store._write_record(name, fresh)
        if not changed and record is not None and (record.params, record.input) == (fresh.params, fresh.input):
            continue  # only the time of the output has changed
        if beside is None:
            to_remake.append(f"{name}: nothing beside it says what it was made with, or it was changed since")
        elif changed:
            to_remake.append(f"{name}: {changed} is not what it was made from")
        elif changes := list(differences(source["params"], _planned(workflow, name))):
            to_remake.append(f"{name}: {'; '.join(changes[:3])}")
        elif record is None:
            kept += 1
    contents.save()
    _announce(kept, to_remake)


def _announce(kept: int, to_remake: list[str]) -> None:
    """Print how many files are kept, and which files will be made again, with the reasons."""
    if kept:
        claim = "files are kept that snakemake had no record of: they were made with the config's settings and code"
        print(f"imprint: {kept} {claim}", file=sys.stderr)
    if to_remake:
        print("imprint: to be made again, with all that is built on them:", file=sys.stderr)
        more = [f"and {len(to_remake) - NAMED} more"] if len(to_remake) > NAMED else []
        print(
            "".join(f"  {shown(line)}\n" for line in (*to_remake[:NAMED], *more)), end="", file=sys.stderr, flush=True
        )


class _Contents:
    """The sha256 of files. A hash of an earlier run is used again while the file's size, time and inode stay."""

    def __init__(self) -> None:
        self.earlier: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError):
            saved = json.loads(SUMS.read_text(encoding="utf-8"))
            self.earlier = saved if isinstance(saved, dict) else {}
        self.current: dict[str, list[Any]] = {}

    def changed(self, sums: dict[str, str], output_time: float) -> str | None:
        """The first input that is not newer than its output, but has another content than `sums` says; None where there
        is none. `output_time` is when the output was modified. (Snakemake itself compares the inputs that are newer
        than the output, and takes the older ones to be unchanged.)"""
        for path, content in sums.items():
            file = Path(path)
            if file.is_file() and file.stat().st_mtime <= output_time and self._sum(file) != content:
                return path
        return None

    def _sum(self, file: Path) -> str:
        path = str(file)
        if path not in self.current:
            status = file.stat()
            state = [status.st_size, status.st_mtime_ns, status.st_ino]
            entry = self.earlier.get(path)
            fits = isinstance(entry, list) and len(entry) == 4 and entry[:3] == state
            self.current[path] = entry if entry and fits else [*state, f"sha256:{file_sha256(file)}"]
        return str(self.current[path][3])

    def save(self) -> None:
        """Write the hashes that this run has used, and no others."""
        if self.current != self.earlier:
            write_json(SUMS, self.current)


def _new_record(rule: str | None, params: list[str], sums: dict[str, str], modified: float) -> Any:
    """Snakemake's record of an output that was modified at `modified`; `sums` is input -> hash."""
    from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord

    return MetadataRecord(
        rule=rule,
        params=params,
        input=sorted(sums),
        input_checksums=sums,
        record_format_version=RECORD_FORMAT_VERSION,
        starttime=modified,
        endtime=modified,
        incomplete=False,
    )


def _record(store: Any, name: str) -> Any:
    """Snakemake's record of an output; None where there is none. A record in another form than Snakemake's is deleted,
    since Snakemake would end with a traceback."""
    from snakemake.persistence import RECORD_FORMAT_VERSION

    try:
        record = store._read_record(name)
        sound = record is None or (
            record.record_format_version == RECORD_FORMAT_VERSION
            and all(isinstance(text, str) for text in (*record.params, *record.input))
            and all(isinstance(text, str) for pair in record.input_checksums.items() for text in pair)
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        sound = False
    if sound:
        return record
    store._delete_record(name)
    return None


def _planned(workflow: Any, name: str) -> dict[str, str]:
    """The params with which the workflow would make an output."""
    from snakemake.iocontainers import Wildcards

    rule = next(rule for rule in workflow.rules if rule.is_producer(name))
    wildcards = Wildcards(fromdict=rule.get_wildcards(name))
    return {key: str(value(wildcards) if callable(value) else value) for key, value in rule.params.items()}


def differences(made: dict[str, str], planned: dict[str, str]) -> Iterator[str]:
    """The differences between the params with which an output was made and those of the plan, in words. All params are
    JSON."""
    for name in sorted(made.keys() | planned.keys()):
        former, now = (_flat(json.loads(params.get(name, "null"))) for params in (made, planned))
        for key in sorted(former.keys() | now.keys()):
            if (was := former.get(key, "not there")) == (is_now := now.get(key, "not there")):
                continue
            if name == "code":
                yield f"{key} is other code"
            elif was[:SHOWN] == is_now[:SHOWN]:
                yield f"{key or name} has changed"
            else:
                yield f"{key or name} was {was:.{SHOWN}}, is {is_now:.{SHOWN}}"


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Path -> leaf of nested JSON, as text."""
    if isinstance(value, dict):
        parts = {f"{path}.{key}" if path else key: part for key, part in value.items()}
        return {key: leaf for place, part in parts.items() for key, leaf in _flat(part, place).items()}
    return {path: json.dumps(value, ensure_ascii=True)}
