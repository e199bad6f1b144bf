"""Results that snakemake has no record of, since `.snakemake/metadata` was lost or they come from another checkout, or
whose record is of an earlier content, since another checkout has worked on them. Snakemake would take them as they are.

What stands beside each of them (`origin.py`) becomes snakemake's record, so that it compares settings, code and inputs
as ever: what fits is kept, what differs is made again, in a dry run as in a run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from imprint import origin
from imprint.errors import shown

NAMED = 12
"""So many files are named, and a line says how many more there are."""


def adopt(workflow: Any, outputs: Iterable[str], results: str) -> None:
    """Write snakemake's records of `outputs` where they are missing, broken or of another content, and say so. Where
    nothing is known of a file in the folder `results`, its record fits no config. To be called after the rules are
    defined, by the process that plans the run. Costs a read of each record (0.4 s of CPU for 5,000); without one, that
    of the file beside the output and a hash of the output (3.6 s for 5,000 of 100 kB)."""
    from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
    from snakemake.persistence.file import FilePersistence

    store = FilePersistence(nolock=True)
    kept, anew = 0, []
    for name in outputs:
        output = Path(name)
        if not output.is_file():
            continue
        record, modified = _record(store, name), output.stat().st_mtime
        if record is not None and record.endtime == modified:
            continue
        made = origin.read(output, results)
        if made is None and (record is not None or not name.startswith(f"{results}/")):
            continue
        given = made or {"rule": None, "params": {}, "inputs": {}}
        fresh = MetadataRecord(
            rule=given["rule"],
            params=sorted(map(repr, given["params"].values())) or ["unknown"],
            input=sorted(given["inputs"]),
            input_checksums={path: f"sha256:{content}" for path, content in given["inputs"].items()},
            record_format_version=RECORD_FORMAT_VERSION,
            starttime=modified,
            endtime=modified,
            incomplete=False,
        )
        store._write_record(name, fresh)
        if record is not None and (record.params, record.input) == (fresh.params, fresh.input):
            continue  # it was touched
        if made is None:
            anew.append(f"{name}: nothing beside it says what it was made with, or it was changed since")
        elif differences := list(_differences(made["params"], _planned(workflow, name))):
            anew.append(f"{name}: {'; '.join(differences[:3])}")
        else:
            kept += 1
    if kept or anew:
        lines = [f"imprint: snakemake's records of {kept + len(anew)} files were missing or out of date here, so what"]
        lines += [f"stands beside the files was compared with the config. {kept} have its settings and code."]
        lines += ["Made again, with what is built on them:" if anew else ""]
        print(" ".join(lines).rstrip(), file=sys.stderr)
        more = [f"and {len(anew) - NAMED} more"] if len(anew) > NAMED else []
        print("".join(f"  {shown(line)}\n" for line in (*anew[:NAMED], *more)), end="", file=sys.stderr, flush=True)


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
