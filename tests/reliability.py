"""docs/reliability.md: what each fault does and how a rerun ends. The tests write its rows after they have seen it."""

from __future__ import annotations

from pathlib import Path

DOC = Path(__file__).parent.parent / "docs/reliability.md"

INTRO = """# What can go wrong, and what happens then

Written by `make test` and `make test-slurm`: each row is a test that did it, and passed. "Same tables" means that every
table and manifest equals that of a run that nothing disturbed; only times differ.

| fault | what happens | the rerun |
|---|---|---|
"""


def seen(fault: str, happens: str, rerun: str) -> None:
    """Put a row into the table, in the place of the one on the same fault."""
    rows = {}
    if DOC.is_file():
        for line in DOC.read_text().splitlines():
            if line.startswith("| ") and not line.startswith("| fault "):
                rows[line.split(" | ")[0]] = line
    rows[f"| {fault}"] = f"| {fault} | {happens} | {rerun} |"
    text = INTRO + "\n".join(sorted(rows.values())) + "\n"
    if not DOC.is_file() or DOC.read_text() != text:
        DOC.write_text(text)
