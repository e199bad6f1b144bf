"""Some results snakemake would keep without knowing what they were made from. There are three cases: it has no record
of them (`.snakemake/metadata` was lost, or they come from another checkout); its record is of an earlier content
(another checkout has worked on them); an input was replaced by an older file of another content.

What stands beside each of them (`origin.py`) becomes snakemake's record, so that it compares settings, code and inputs
as ever: what fits is kept, what differs is made again, in a dry run as in a run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from imprint import origin
from imprint.errors import shown
from imprint.identity import file_sha256, write_json

NAMED = 12
"""So many files are named, and a line says how many more there are."""
OTHER_INPUTS = "made from other inputs"
"""In the place of an output's params: it fits no config, so snakemake makes the output again."""
SUMS = Path(".snakemake/imprint/sums.json")


def adopt(workflow: Any, outputs: Iterable[str], results: str) -> None:
    """Write snakemake's records of `outputs` where they are missing, broken or of another content, and say so. Where
    nothing is known of a file in the folder `results`, or an input is not what it was made from, its record fits no
    config. To be called after the rules are defined, by the process that plans the run. Costs a read of each record and
    a look at each input; without a record, a read of the file beside the output and a hash of the output."""
    from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
    from snakemake.persistence.file import FilePersistence

    store, contents = FilePersistence(nolock=True), _Contents()
    kept, to_remake = 0, []
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
        made = origin.read(output, results)
        if made is None and (record is not None or not name.startswith(f"{results}/")):
            continue
        given = made or {"rule": None, "params": {}, "inputs": {}}
        sums = {path: f"sha256:{content}" for path, content in given["inputs"].items()}
        changed = contents.changed(sums, modified)
        fresh = MetadataRecord(
            rule=given["rule"],
            params=[OTHER_INPUTS] if changed else sorted(map(repr, given["params"].values())) or ["unknown"],
            input=sorted(given["inputs"]),
            input_checksums=sums,
            record_format_version=RECORD_FORMAT_VERSION,
            starttime=modified,
            endtime=modified,
            incomplete=False,
        )
        store._write_record(name, fresh)
        if not changed and record is not None and (record.params, record.input) == (fresh.params, fresh.input):
            continue  # it was touched
        if made is None:
            to_remake.append(f"{name}: nothing beside it says what it was made with, or it was changed since")
        elif changed:
            to_remake.append(f"{name}: {changed} is not what it was made from")
        elif differences := list(_differences(made["params"], _planned(workflow, name))):
            to_remake.append(f"{name}: {'; '.join(differences[:3])}")
        elif record is None:
            kept += 1
    contents.save()
    if kept:
        told = "files are kept that snakemake had no record of: they were made with the config's settings and code"
        print(f"imprint: {kept} {told}", file=sys.stderr)
    if to_remake:
        print("imprint: to be made again, with all that is built on them:", file=sys.stderr)
        more = [f"and {len(to_remake) - NAMED} more"] if len(to_remake) > NAMED else []
        print(
            "".join(f"  {shown(line)}\n" for line in (*to_remake[:NAMED], *more)), end="", file=sys.stderr, flush=True
        )


class _Contents:
    """The sha256 of files, kept from run to run as long as a file's size, time and inode stay."""

    def __init__(self) -> None:
        self.known: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError):
            known = json.loads(SUMS.read_text(encoding="utf-8"))
            self.known = known if isinstance(known, dict) else {}
        self.seen: dict[str, list[Any]] = {}

    def changed(self, sums: dict[str, str], output_time: float) -> str | None:
        """The first of an output's inputs that is not newer than the output, but has another content than its sum says.
        `output_time` is when the output was modified. (Snakemake compares the inputs that are newer than the output,
        and takes older ones to be unchanged.)"""
        for path, content in sums.items():
            file = Path(path)
            if file.is_file() and file.stat().st_mtime <= output_time and self._of(file) != content:
                return path
        return None

    def _of(self, file: Path) -> str:
        path = str(file)
        if path not in self.seen:
            status = file.stat()
            state = [status.st_size, status.st_mtime_ns, status.st_ino]
            known = self.known.get(path)
            fits = isinstance(known, list) and len(known) == 4 and known[:3] == state
            self.seen[path] = known if known and fits else [*state, f"sha256:{file_sha256(file)}"]
        return str(self.seen[path][3])

    def save(self) -> None:
        """Keep what was seen now, and nothing older."""
        if self.seen != self.known:
            write_json(SUMS, self.seen)


def _record(store: Any, name: str) -> Any:
    """Snakemake's record of an output; None where there is none, or where it is not as snakemake writes it, which
    snakemake would end with a traceback."""
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


def _differences(made: dict[str, str], planned: dict[str, str]) -> Iterator[str]:
    """What differs, in words. All params are JSON."""
    for name in sorted(made.keys() | planned.keys()):
        former, now = (_flat(json.loads(params.get(name, "null"))) for params in (made, planned))
        for key in sorted(former.keys() | now.keys()):
            if former.get(key) != now.get(key):
                values = f"was {former.get(key, 'not there')}, is {now.get(key, 'not there')}"
                yield f"{key} is other code" if name == "code" else f"{key or name} {values}"


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Leaves of nested JSON by their path, as text."""
    if isinstance(value, dict):
        parts = {f"{path}.{key}" if path else key: part for key, part in value.items()}
        return {key: leaf for at, part in parts.items() for key, leaf in _flat(part, at).items()}
    return {path: f"{json.dumps(value, ensure_ascii=True):.60}"}
