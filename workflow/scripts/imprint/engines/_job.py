"""The job that reaches a model on a server. It asks the server once for a few tokens, so that a wrong address, key or
name is told before the long jobs, and writes the manifest by which the model's other jobs know the server."""

from __future__ import annotations

import sys
from pathlib import Path

from imprint.runtime.errors import shown
from imprint.runtime.identity import fingerprint, write_json
from imprint.runtime.plugins import Strict

QUESTION = "Say yes."
TOKENS = 16


class Spec(Strict):
    """A model on a server: the name that the server knows it by, and the server's address."""

    openai: str
    base_url: str


def run(spec: Spec, out: Path) -> None:
    """Ask, and write the manifest `out`. Raises ImprintError where the server does not answer such a request. What it
    answers is no part of the manifest, so that a model that is reached again is the same."""
    from imprint.engines._openai_kept import Purse
    from imprint.engines._openai_wire import Client, Refused, Server

    server = Server.of(out.parent.name, spec.base_url, spec.openai)
    request = {"model": spec.openai, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": TOKENS}
    try:
        answer = Client(server).answer(request, 0, Purse(None, 0, server.where))
    except Refused as refusal:
        raise server.wrong(f"does not answer a short question: {refusal}", "is it a server for chats?") from None
    who = "does not say by whom" if answer.model is None else f"by '{answer.model}'"
    print(shown(f"imprint: {server.where}: the server answers, {who}"), file=sys.stderr)
    manifest = {"kind": "server", "openai": spec.openai, "base_url": spec.base_url, "template_sha256": ""}
    write_json(out, {**manifest, "fingerprint": fingerprint([spec.base_url, spec.openai])})
