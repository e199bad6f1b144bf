"""`python tests/same_tables.py BEFORE AFTER`: whether two projects hold the same results, as the reliability tests mean
it: every table but for what times a job, and every manifest. For a change of structure: run the same config with the
code before and after it, on one machine, and compare.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import workflow


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    """File -> what differs in it, of two answers of `workflow.contents`."""
    told = dict.fromkeys(before.keys() - after.keys(), "only before")
    told |= dict.fromkeys(after.keys() - before.keys(), "only after")
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            columns = before[name] if name.endswith(".parquet") else {}
            differing = [key for key in columns if columns[key] != after[name].get(key)]
            differing += [f"{key} (new)" for key in (after[name] if columns else ()) if key not in columns]
            told[name] = ", ".join(differing) or "its text or columns"
    return told


def main(before: Path, after: Path) -> None:
    """Print what differs, and how much does not; exit with 1 where anything does."""
    contents = workflow.contents(before), workflow.contents(after)
    told = differences(*contents)
    print("".join(f"{name}: {told[name]}\n" for name in sorted(told)), end="")
    print(f"{len(contents[0].keys() | contents[1].keys()) - len(told)} files are the same, {len(told)} differ")
    sys.exit(bool(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
