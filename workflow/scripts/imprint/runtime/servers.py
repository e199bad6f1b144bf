"""How models on servers are asked: with which key, how fast, and for how many tokens at most.

None of this changes what a model answers, so it is no part of any identity. It reaches the jobs in the environment,
where the keys are too. A key itself is written nowhere: the config names the variable that holds it.
"""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping

from pydantic import Field

from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import canonical
from imprint.runtime.plugins import Strict

TOLD = "IMPRINT_SERVERS"
"""Environment variable with the name of each model's folder -> its `Access`, as JSON."""
DEVICE = "server"
"""The device of a job whose model runs on a server."""


class Limits(Strict):
    """How much is asked of a model on a server. The limits hold for all jobs of this checkout together, and a change of
    them runs nothing again."""

    at_once: int = Field(8, ge=1, le=256, description="most requests that are open at a time")
    per_minute: int | None = Field(None, ge=1, description="most requests a minute; null sets no limit")
    tokens: int | None = Field(
        None,
        ge=1,
        description="most tokens that the model may read and write in all the answers that this checkout keeps; a "
        "request that could pass it is not sent, and the job stops; null sets no limit",
    )


class Access(Strict):
    """How a model on a server is asked. `key_env` names the environment variable that holds the key, if the server
    wants one."""

    key_env: str | None = None
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}))


def tell(accesses: dict[str, Access]) -> None:
    """Put into the environment how the model of each folder is asked."""
    os.environ[TOLD] = canonical({name: access.model_dump() for name, access in accesses.items()})


def told() -> dict[str, Access]:
    """What `tell` has put there."""
    return {name: Access.model_validate(access) for name, access in json.loads(os.environ.get(TOLD, "{}")).items()}


def access(folder: str) -> Access:
    """How the model of a folder is asked. Raises ImprintError where the config of this process names no such model."""
    if folder not in (accesses := told()):
        raise ImprintError(f"no config has said how the model '{folder}' is asked; run it through the workflow")
    return accesses[folder]


def key(access: Access, model: str) -> str:
    """The key that a server wants, empty if it wants none. Raises ImprintError where its variable is not set, or holds
    what cannot be sent."""
    if access.key_env is None:
        return ""
    value = os.environ.get(access.key_env, "").strip()
    if not value:
        raise ImprintError(
            f"models.{model}.key_env: the environment variable {access.key_env} is not set; set it to the key of the "
            f"server (`read -rs {access.key_env}; export {access.key_env}` shows it nowhere), and run again"
        )
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ImprintError(f"models.{model}.key_env: {access.key_env} holds no key; set it to one line of ASCII")
    return value


def drop_keys(environment: MutableMapping[str, str] = os.environ) -> None:
    """Remove all keys from an environment: that of this process and of those that it starts."""
    for access in told().values():
        if access.key_env is not None:
            environment.pop(access.key_env, None)
