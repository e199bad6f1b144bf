"""docs/reliability.md: what each fault does and how a rerun ends. The tests write its rows after they have seen it."""

from __future__ import annotations

from pathlib import Path

from doc_table import DocTable

TABLE = DocTable(Path(__file__).parent.parent / "docs/reliability.md")


def seen(fault: str, happens: str, rerun: str) -> None:
    """Put a row into the table, in the place of the one on the same fault."""
    TABLE.seen(fault, happens, rerun)
