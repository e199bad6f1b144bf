"""docs/reliability.md: what each fault does and how a rerun ends. The tests write its rows after they have seen it."""

from __future__ import annotations

import fcntl
from pathlib import Path

DOC = Path(__file__).parent.parent / "docs/reliability.md"

INTRO = """# What can go wrong, and what happens then

Written by `make test-slurm`: each row is a test that did it, and passed. "Same tables" means that every
table and manifest equals that of a run that nothing disturbed; only times differ.

| fault | what happens | the rerun |
|---|---|---|
"""


def seen(fault: str, happens: str, rerun: str) -> None:
    """Put a row into the table, in the place of the one on the same fault."""
    with DOC.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # tests run in two processes
        before = file.read()
        rows = {**found(before), fault: f"| {fault} | {happens} | {rerun} |"}
        text = INTRO + "\n".join(sorted(rows.values())) + "\n"
        if text != before:
            file.seek(0)
            file.write(text)
            file.truncate()


def found(text: str) -> dict[str, str]:
    """The rows of a table, by their fault."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| fault ")]
    return {line[2:].split(" | ")[0]: line for line in lines}
