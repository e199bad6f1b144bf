"""A role that the model is given and has not written: the row's own (`fields.role_prompt`), or the one that another arm
wrote for the same example. It stands before the user's first turn. This is the control of self-prompt tuning that asks
whether the training is needed, or only the role.

user: You are a pharmacist who ...

      Can I take it with milk?
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from imprint.contexts import self_role
from imprint.models.chat_text import Message
from imprint.policies.dialogue import Request, Turns
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict
from imprint.tables.inputs import Read


class Settings(Strict):
    arm: str | None = Field(
        None,
        description="the arm that wrote the roles, under the context `self_role`; null takes each row's "
        "`fields.role_prompt`. An example for which there is no role is an error",
    )
    eval: str | None = Field(
        None,
        description="the eval on which it wrote them, without an environment and of the same examples. An arm that "
        "reads a run has seen the rows of the run's eval, so it must say `transductive: true` if it takes that eval",
    )

    @model_validator(mode="after")
    def _run_or_row(self) -> Settings:
        if (self.arm is None) != (self.eval is None):
            raise ValueError("arm and eval belong together; write both, or leave both out for the roles of the rows")
        return self


def inputs(settings: Settings) -> Inputs:
    """The run in which the roles were written, if it is named."""
    return Inputs() if settings.arm is None else Inputs(runs=((settings.arm, str(settings.eval)),))


def turns(request: Request, row: dict[str, Any], settings: Settings, inputs: Read) -> Turns:
    """One request. Plain text (no messages) is not changed, since no role can precede it. Raises ImprintError for an
    example without a role."""
    if request.messages:
        request = replace(request, messages=_with_role(request.messages, _role(row, settings, inputs)))
    yield [request]
    return None


def _with_role(messages: list[Message], role: str) -> list[Message]:
    """The messages with the role before the words of the first user turn."""
    place = next((place for place, message in enumerate(messages) if message["role"] == "user"), None)
    if place is None:
        raise ImprintError("context 'given_role': the example has no user turn that a role could stand before")
    user: Message = {"role": "user", "content": f"{role}\n\n{messages[place]['content']}"}
    return [*messages[:place], user, *messages[place + 1 :]]


def _role(row: dict[str, Any], settings: Settings, inputs: Read) -> str:
    where = f"example {row['example_id']}"
    if settings.arm is not None:
        path = inputs.runs[settings.arm, str(settings.eval)]
        role = _roles(path, path.stat().st_mtime_ns).get(row["example_id"])
        if not role:
            raise ImprintError(
                f"{where}: '{settings.arm}' wrote no role for it on '{settings.eval}'; write an arm that is asked "
                "under self_role, and an eval of the same examples"
            )
        return role
    role = row["fields"].get("role_prompt")
    if not isinstance(role, str) or not role.strip():
        raise ImprintError(f"{where} has no role in fields.role_prompt; write the arm and eval whose roles to take")
    return role.strip()


@lru_cache(maxsize=8)
def _roles(path: Path, written: int) -> dict[str, str]:
    """Example -> the role in the first response to it, in a generations file that was written at a time (ns)."""
    first: dict[str, str] = {}
    for row in parquet.read(path, "generations").to_pylist():
        if row["turn"] == 0 and row["error"] is None and row["finish_reason"] is not None:
            first.setdefault(row["example_id"], self_role.role_in(row["response"] or "", row["final"]))
    return first
