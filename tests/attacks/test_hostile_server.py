"""A server that a model is asked on, and that means harm: to the key, to the machine, to the terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import chat_server
import security
from chat_server import KEY, Handler, Server, completion
from conftest import one_fit
from imprint.config import loading
from imprint.engines import Prompt, _openai_wire, openai
from imprint.runtime.errors import ImprintError
from imprint.runtime.servers import Access


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_openai_wire, "WAITS", (0.0,))
    monkeypatch.setattr(_openai_wire, "PATIENCE", 1.0)


@pytest.fixture
def server() -> Iterator[Server]:
    with chat_server.serving(lambda asked: completion("yes")) as server:
        yield server


Ask = Callable[..., Any]


@pytest.fixture
def ask(server: Server, tmp_path: Path) -> Ask:
    """Asks the server one thing, and gives the response."""

    def one(text: str = "so?", **how: Any) -> Any:
        of = _openai_wire.Server("models.far", server.url, "m-1", KEY, Access(key_env="FAR_KEY"))
        engine = openai.Engine(of, 4, tmp_path / "answers")
        (response,) = engine.generate([Prompt(engine.render([{"role": "user", "content": text}]).text, 8, **how)])
        return response

    return one


def test_a_key_that_is_repeated(ask: Ask, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    headers = dict[str, str]()

    def says(asked: Any) -> Any:
        headers.update(server.headers[-1])
        told = headers["Authorization"].removeprefix("Bearer ")
        logprobs = {"content": [{"token": told, "logprob": 0.0}]}
        return completion(f"It is {told}.", model=f"m-{told}", logprobs=logprobs)

    server.says = says
    assert ask().text == "It is [key]." and headers["Authorization"].endswith(KEY)
    response = ask(opening="It", before=3)
    assert response.text is None and "logprobs" in response.error, "a token would have held it"
    server.says = lambda asked: completion("yes", finish_reason=f"because {KEY}")
    response = ask("why?")
    assert response.text is None and "because [key]" in response.error
    padded = "x" * (_openai_wire.SAID - 9) + KEY
    for status in (400, 401, 404, 418, 500):
        for body in (padded, json.dumps({"error": {"message": padded}}), json.dumps({"error": padded})):
            server.says = lambda asked, status=status, body=body: (status, {}, body.encode())
            try:
                said = ask(f"{status}").error
            except ImprintError as error:
                said = str(error)
            assert f"says {status}" in said and KEY not in said and KEY[:6] not in said
    server.says = lambda asked: (307, {"Location": f"https://evil/?{KEY}"}, b"")
    with pytest.raises(ImprintError, match=r"sends on to https://evil/\?\[key\]"):
        ask("on")

    def no_http(handler: Handler) -> None:
        handler.wfile.write(f"HTTP/9 {KEY}\r\n\r\n".encode())

    server.faults = [no_http, no_http]
    with pytest.raises(ImprintError) as caught:
        ask("odd")
    assert KEY not in str(caught.value)
    printed = "".join(capfd.readouterr())
    assert "answers as 'm-[key]'" in printed and KEY not in printed
    files = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert files and not [text for text in files if KEY in text]
    security.seen(
        "a server that repeats the key, in an answer, its model's name, an error or an address",
        "the key is cut out before anything is kept or printed",
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_server_that_sends_on_to_another(status: int, ask: Ask, server: Server) -> None:
    with chat_server.serving(lambda asked: completion("mine")) as other:
        server.says = lambda asked: (status, {"Location": f"{other.url}/chat/completions"}, b"")
        with pytest.raises(
            ImprintError, match=rf"sends on to {other.url}/chat/completions \({status}\); write the addr"
        ):
            ask()
        assert other.asked == [] and len(server.asked) == 1
    security.seen(
        "a server that sends a request on to another host",
        "not followed, so key and prompt go nowhere else; an error names the address",
    )


def test_an_answer_without_end(ask: Ask, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_openai_wire, "MOST_BYTES", 1 << 20)
    sent = []

    def endless(handler: Handler) -> None:
        handler.reply(200, {"Transfer-Encoding": "chunked", "Content-Length": "0"}, b"")
        for _ in range(1 << 12):
            sent.append(handler.wfile.write(b"10000\r\n" + b" " * (1 << 16) + b"\r\n"))

    def dripping(handler: Handler) -> None:
        handler.reply(200, {"Content-Length": "1000"}, b"")
        for _ in range(60):
            handler.wfile.write(b" ")
            time.sleep(0.05)

    packed = (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b" + b"\0" * 100)
    deep = (200, {}, b'{"choices":' + b"[" * 100_000)
    wide = (200, {}, b'{"choices": [' + b"{}," * 100_000 + b"{}]}")
    digits = (200, {}, b'{"choices": [], "usage": {"prompt_tokens": ' + b"9" * 5000 + b"}}")
    began = time.monotonic()
    for fault in (packed, deep, wide, digits):
        server.faults = [fault, fault]
        assert "2 times" in ask().error
    server.faults = [endless]
    assert "larger than 1 MiB" in ask().error
    server.faults = [dripping, dripping]
    with pytest.raises(ImprintError, match="no whole answer within 1 s, and so 2 times"):
        ask()
    assert time.monotonic() - began < 20 and sum(sent) < 1 << 26
    assert ask().text == "yes", "nothing of it was kept"
    security.seen(
        "a server's answer that has no end, drips, is packed, is nested 100,000 deep or has numbers of 5,000 digits",
        "read up to 16 MiB and for 10 minutes, and never unpacked; asked for again, and then an error",
    )


def test_names_that_lead_elsewhere(ask: Ask, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server.says = lambda asked: completion("\x1b[2Jyes", model="../../../etc/\x1b[31m{x}")
    assert ask().text == "\x1b[2Jyes", "an answer is kept as it came"
    server.says = lambda asked: (404, {}, b'{"error": {"message": "\\u001b[2J\\u202egone"}}')
    with pytest.raises(ImprintError, match=r"\\x1b\[2J\\u202egone"):
        ask("else")
    assert "\x1b" not in "".join(capfd.readouterr())
    made = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.json")}
    assert made == {"answers"} and not (tmp_path.parent / "etc").exists()
    security.seen(
        "escape sequences and paths in what a server says of itself and of errors",
        "shown as `\\x1b` and the like; no file is named after anything that a server says",
    )


def test_a_key_in_the_config(tmp_path: Path) -> None:
    for far in (
        {"key_env": KEY}, {"key": KEY}, {"base_url": f"https://me:{KEY}@a/v1"}, {"base_url": f"https://a/v1?key={KEY}"},
    ):  # fmt: skip
        models = {"far": {"openai": "m", "base_url": "https://a/v1", **far}}
        raw = loading.merge(one_fit(), {"models": models})
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(raw))
        with pytest.raises(ImprintError, match=r"models\.far") as caught:
            loading.load([path])
        assert KEY not in str(caught.value)
    security.seen(
        "a server's key in the config, in place of its variable's name or in the address", "refused without showing it"
    )
