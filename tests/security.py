"""docs/security.md: what each attack comes to. The tests under tests/attacks write its rows after they have seen it."""

from __future__ import annotations

from pathlib import Path

from doc_table import DocTable

TABLE = DocTable(Path(__file__).parent.parent / "docs/security.md")


def seen(attack: str, happens: str) -> None:
    """Put a row into the table, in the place of the one on the same attack."""
    TABLE.seen(attack, happens)
