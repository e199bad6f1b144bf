"""Turns of a dialogue, in the forms that public sets have: a list of {"role", "content"}, a list of {"from", "value"}
(ShareGPT's), and one text with "\\n\\nHuman: " and "\\n\\nAssistant: " before the turns (HH-RLHF's)."""

from __future__ import annotations

import re
from typing import Any

from imprint.datasets._table_files import in_json, listed
from imprint.datasets.jsonl import ROLES
from imprint.runtime.errors import ImprintError

Message = dict[str, str]

CALLED = {"human": "user", "gpt": "assistant"} | {role: role for role in ROLES}
"""What the sets call a role -> the role."""
MARK = re.compile(r"\n\n(Human|Assistant):")
MARKED = {"Human": "user", "Assistant": "assistant"}


def conversation(value: Any, where: str) -> list[Message]:
    """The turns that a value holds. Raises ImprintError for a value of another form, for another role, and for a turn
    without text."""
    value = listed(value, where)
    if isinstance(value, str) and MARK.match(value):
        _, *parts = MARK.split(value)
        turns: list[Any] = [
            {"role": MARKED[mark], "content": text.strip()} for mark, text in zip(parts[::2], parts[1::2], strict=True)
        ]
    elif isinstance(value, list) and value:
        turns = value
    else:
        raise ImprintError(
            f"{where}: found {in_json(value)}, which is no conversation: neither a list of {{role, content}} or "
            '{from, value} nor a text that begins with "\\n\\nHuman: "; for a column of plain text, name its role: '
            "`messages: {user: COLUMN}`"
        )
    return [_turn(turn, f"{where}, turn {place}") for place, turn in enumerate(turns, 1)]


def _turn(turn: Any, where: str) -> Message:
    if isinstance(turn, dict):
        called, content = (
            (turn.get("from"), turn.get("value")) if "from" in turn else (turn.get("role"), turn.get("content"))
        )
        role = CALLED.get(called) if isinstance(called, str) else None
        if role and isinstance(content, str) and content.strip():
            return {"role": role, "content": content}
    raise ImprintError(
        f"{where}: found {in_json(turn)}; a turn has a text that is not blank, and one of the roles {', '.join(CALLED)}"
    )
