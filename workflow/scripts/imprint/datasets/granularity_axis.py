"""Social roles on five levels, from a person to a nation, each with questions (Granularity Axis, arXiv 2605.06196): 75
roles, 15 a level. A row puts one question to one role. The system message describes the role in the words of the
published prompts, of which `respond`, `act` and `speak` also name its level. `name` is ours: the role's name alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from imprint.datasets._files import json_objects
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.tables import json_lines

Wording = Literal["respond", "play", "act", "speak", "imagine", "name"]
WORDINGS: dict[Wording, str] = {
    "respond": "You are {name}. {description} Respond entirely from this perspective as a {level_name} entity. Do not "
    "mention being an AI.",
    "play": "Please role-play as {name}: {description} Stay fully in character and respond based on your lived "
    "experience and constraints.",
    "act": "Act as {name}. {description} All your responses should reflect the priorities, language, and worldview of "
    "someone operating at the {level_name} level of social organization.",
    "speak": "You are {name}, a {level_name} entity. {description} Speak in first person. Your answers should reflect "
    "your unique scale of influence, time horizon, and decision-making logic.",
    "imagine": "Imagine you are {name}. {description} Respond authentically from this perspective, including "
    "emotional reactions, practical constraints, and the scope of action available to you.",
    "name": "You are {name}.",
}


class Settings(Strict):
    questions: int = Field(2, ge=1, le=240, description="so many of the 240 questions, from the first (published: 240)")
    wordings: list[Wording] = Field(
        ["play"],
        min_length=1,
        description="how a role is described: the published wordings, of which `play` and `imagine` do not name the "
        "level, and `name` for the role's name alone",
    )


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """A row for each question, wording and role; fields {"role", "level", "description"}, stratum `level`. Rows of one
    role are one cluster. Raises ImprintError for a file of another form."""
    roles = _roles(paths["entities.json"])
    for question in _questions(paths["extraction_questions.jsonl"])[: settings.questions]:
        for wording in settings.wordings:
            for role in roles:
                level = role["level"]
                yield {
                    "messages": [
                        {"role": "system", "content": _described(role, wording)},
                        {"role": "user", "content": question},
                    ],
                    "reference": None,
                    "fields": {"role": role["name"], "level": level, "description": role["description"]},
                    "strata": {"level": str(level)},
                    "cluster": role["name"],
                }


def _described(role: dict[str, Any], wording: Wording) -> str:
    """The system message. What a file says is no format string, so its braces stay."""
    return re.sub(r"\{(\w+)\}", lambda part: str(role[part[1]]), WORDINGS[wording])


def _roles(path: Path) -> list[dict[str, Any]]:
    """The roles, in the file's order."""
    found = []
    for where, role in json_objects(path, "entities"):
        texts = [role.get(part) for part in ("name", "description", "level_name")]
        level = role.get("level")
        if not all(isinstance(text, str) and text.strip() for text in texts) or type(level) is not int:
            raise ImprintError(
                f"{where}: found {role!r:.80}; write texts for name, description, level_name, and a level"
            )
        found.append(role)
    return found


def _questions(path: Path) -> list[str]:
    """The texts of the questions, in the file's order."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImprintError(f"{path} cannot be read as UTF-8 text ({error}); restore the file") from error
    for number, row in json_lines.rows(lines, str(path)):
        text = row.get("question")
        if not isinstance(text, str) or not text.strip():
            raise ImprintError(f"{path}, line {number}: found {row!r:.80}; write a text for question")
        found.append(text)
    return found
