"""A server with the chat interface of OpenAI on this machine: it says what a test writes down, or what a model says,
and has faults on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Asked = dict[str, Any]
KEY = "sk-this-is-a-secret-0123456789"


def completion(text: str | None, **changes: Any) -> dict[str, Any]:
    """An answer in the form of the interface; `changes` replace parts of it."""
    choice = {
        "index": 0, "message": {"role": "assistant", "content": text},
        "finish_reason": changes.pop("finish_reason", "stop"), "logprobs": changes.pop("logprobs", None),
    }  # fmt: skip
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "1", "object": "chat.completion", "model": "m-1", "choices": [choice], "usage": usage, **changes}


class Server(ThreadingHTTPServer):
    """Answers by `says`, which gets a request's body. What stands in `faults` is done first, a fault a request: a
    status with headers and body, or a function that writes to the connection."""

    daemon_threads = True

    def __init__(self, says: Callable[[Asked], Any]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.says, self.faults = says, list[Any]()
        self.asked: list[Asked] = []
        self.headers: list[dict[str, str]] = []
        self.open = self.most_open = 0
        self.times: list[float] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with server.lock:
            server.times.append(time.monotonic())
            server.asked.append(json.loads(body))
            server.headers.append(dict(self.headers))
            server.open += 1
            server.most_open = max(server.most_open, server.open)
            fault = server.faults.pop(0) if server.faults else None
        try:
            if callable(fault):
                fault(self)
                self.close_connection = True
            elif fault is not None:
                self.reply(*fault)
            elif self.path != "/v1/chat/completions":
                self.reply(404, {}, b'{"error": {"message": "no such path"}}')
            else:
                said = server.says(json.loads(body))
                self.reply(*(said if isinstance(said, tuple) else (200, {}, json.dumps(said).encode())))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with server.lock:
                server.open -= 1

    do_GET = do_POST

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@contextmanager
def serving(says: Callable[[Asked], Any]) -> Iterator[Server]:
    """A server at work for the length of the block."""
    server = Server(says)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def of_model(folder: Path) -> Callable[[Asked], Any]:
    """What a model says that lies in a folder, through the engine `transformers`, one request at a time. It says
    the tokens of an answer where it is asked for them."""
    import torch

    from imprint.engines import Prompt
    from imprint.runtime import plugins

    engine = plugins.load("engines", "transformers").start([folder / "manifest.json"], "float32", "cpu", 1)
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    of_character = {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
    lock = threading.Lock()

    def token_bytes(token: int) -> list[int]:
        if token in engine.tokenizer.all_special_ids:
            return []
        return [of_character[character] for character in engine.tokenizer.convert_ids_to_tokens(token)]

    def says(asked: Asked) -> Any:
        text, breaks = engine.render(asked["messages"])
        prompt = Prompt(
            text, asked.get("max_tokens", asked.get("max_completion_tokens")), tuple(asked.get("stop", ())),
            asked.get("temperature", 1.0), asked.get("top_p", 1.0), asked.get("seed", 0), breaks,
        )  # fmt: skip
        tokens = engine.tokens(text, breaks)
        with lock, torch.inference_mode():
            (row,) = engine.decode([prompt], [tokens])
        pieces = [{"token": "", "bytes": token_bytes(token), "logprob": -1.0} for token in row.tokens]
        usage = {"prompt_tokens": len(tokens), "completion_tokens": len(row.tokens)}
        logprobs = {"content": pieces} if asked.get("logprobs") else None
        return completion(row.text(), finish_reason=row.reason, usage=usage, logprobs=logprobs, model=asked["model"])

    return says
