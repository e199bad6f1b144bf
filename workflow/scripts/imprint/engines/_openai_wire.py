"""Requests to a server with the chat interface of OpenAI, repeated where that may help.

What the server sends is not trusted. A body has a limit of bytes and of time, is not unpacked, and is read as JSON of
one form. A redirect is never followed, so the key goes to no other host. The key is cut out of everything that the
server says before it is kept or printed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from imprint.engines import _openai_forms as forms
from imprint.engines._openai_kept import Answer, Purse
from imprint.runtime import servers
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import canonical

if TYPE_CHECKING:
    import httpx

PATIENCE = 600.0
"""Seconds that one answer may take."""
CONNECT = 20.0
"""Seconds until a connection must be there."""
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Seconds before a request is tried again."""
LONGEST_WAIT = 900.0
"""The most seconds that a server may let us wait (Retry-After)."""
MOST_BYTES = 16 * 2**20
"""The largest body."""
SAID = 300
"""The most characters of what a server says in an error."""
KEPT = "the answers so far are kept, so run again when it is mended"


@dataclass(frozen=True)
class Server:
    """A model on a server, and how it is asked. `where` is its place in the config, for messages."""

    where: str
    base_url: str
    model: str
    key: str = field(repr=False)
    access: servers.Access

    @classmethod
    def of(cls, folder: str, base_url: str, model: str) -> Server:
        """The server of a model's folder (NAME-FINGERPRINT), as this process may ask it. Raises ImprintError where its
        key is not set."""
        name, access = folder.rpartition("-")[0], servers.access(folder)
        return cls(f"models.{name}", base_url, model, servers.key(access, name), access)

    def clean(self, text: str) -> str:
        """What the server has said, without the key."""
        return text.replace(self.key, "[key]") if self.key else text

    def wrong(self, what: str, todo: str) -> ImprintError:
        """An error that ends the job."""
        return ImprintError(f"{self.where}: the server at {self.base_url} {self.clean(what)}; {todo}")


class Refused(Exception):
    """The server does not answer this request, whenever it is sent. Others may be answered. `lost`: as in Again."""

    def __init__(self, why: str, lost: bool = False) -> None:
        super().__init__(why)
        self.lost = lost


class Again(Exception):
    """A request that may be answered when it is sent again, after `after` seconds at least. `lost`: there may have been
    an answer, which has cost something. `own`: what came was an answer to this request, and could not be read."""

    def __init__(self, why: str, after: float = 0.0, lost: bool = False, own: bool = False) -> None:
        super().__init__(why)
        self.after, self.lost, self.own = after, lost, own


class Pace:
    """When the next request may be sent: `interval` seconds after the one before, and after every pause."""

    def __init__(self, interval: float, stop: threading.Event) -> None:
        self.interval, self.stop = interval, stop
        self._next = 0.0
        self._lock = threading.Lock()

    def turn(self) -> None:
        """Wait until a request may be sent."""
        with self._lock:
            moment = max(time.monotonic(), self._next)
            self._next = moment + self.interval
        self.stop.wait(max(0.0, moment - time.monotonic()))

    def pause(self, seconds: float) -> None:
        """Let all requests wait."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class Client:
    """Asks one server; its methods may be called by several threads. When `stop` is set, no request is sent again."""

    def __init__(self, server: Server) -> None:
        import httpx

        self.server = server
        self.url = f"{server.base_url}/chat/completions"
        self.stop = threading.Event()
        limits = server.access.limits
        self.pace = Pace(60 / limits.per_minute if limits.per_minute else 0.0, self.stop)
        self._length = "max_tokens"
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"}
        if server.key:
            headers["Authorization"] = f"Bearer {server.key}"
        self._http = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(PATIENCE, connect=min(CONNECT, PATIENCE)),
            follow_redirects=False,
            limits=httpx.Limits(max_connections=limits.at_once),
        )

    def begin(self) -> None:
        """Begin a call. Another process may have asked just now, so the first request waits as long as the others."""
        self.stop.clear()
        self.pace.pause(self.pace.interval)

    def answer(self, request: dict[str, Any], most: int, purse: Purse) -> Answer:
        """The answer to a request, which can cost `most` tokens. Raises Refused if the server does not answer this
        request, and ImprintError if it answers none."""
        for wait in (*WAITS, None):
            self.pace.turn()
            if self.stop.is_set():
                raise Refused("not asked, since the job has stopped")
            purse.take(most)
            cost = 0
            try:
                answer = self._answer(request, most)
                cost = answer.cost
                return answer
            except Again as error:
                problem, cost = error, most if error.lost else 0
            except Refused as error:
                cost = most if error.lost else 0
                raise
            finally:
                purse.give_back(most - cost)
            if problem.after:
                self.pace.pause(problem.after)
            elif wait is not None:
                self.stop.wait(wait)
        why = f"{problem}, and so {len(WAITS) + 1} times"
        raise Refused(self.server.clean(why)) if problem.own else self.server.wrong(f"gives no answer: {why}", KEPT)

    def _answer(self, request: dict[str, Any], most: int) -> Answer:
        began, length = time.monotonic(), self._length
        named = {length if key == "max_tokens" else key: value for key, value in request.items()}
        status, headers, body = self._send(canonical(named).encode())
        if status != 200:
            raise self._problem(status, headers, body, length)
        try:
            said = forms.Completion.model_validate_json(body)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, problem["loc"]))
            raise Again(f"it is no answer of a chat ({place}: {problem['msg']})"[:SAID], lost=True, own=True) from None
        choice, usage = said.choices[0], said.usage
        content = choice.logprobs.content if choice.logprobs else None
        pieces = None if content is None else [one.bytes or [*one.token.encode()] for one in content]
        if pieces is not None and self.server.key and self.server.key.encode() in b"".join(map(bytes, pieces)):
            pieces = None
        clean = self.server.clean
        return Answer(
            text=clean(choice.message.content or choice.message.refusal or ""),
            finish_reason=None if choice.finish_reason is None else clean(choice.finish_reason)[:SAID],
            model=None if said.model is None else clean(said.model),
            prompt_tokens=usage.prompt_tokens if usage else None,
            response_tokens=usage.completion_tokens if usage else None,
            pieces=pieces if request.get("logprobs") else None,
            cost=usage.prompt_tokens + usage.completion_tokens if usage else most,
            seconds=round(time.monotonic() - began, 3),
        )

    def _send(self, content: bytes) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body of what the server sends back. Raises Again where nothing whole came in time, and
        Refused for a body that is too large."""
        import httpx

        deadline, body, begun = time.monotonic() + PATIENCE, bytearray(), False
        try:
            with self._http.stream("POST", self.url, content=content) as response:
                begun = True
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise Again("it is packed, which was not asked for", lost=True, own=True)
                for part in response.iter_raw():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise Refused(f"the server's answer is larger than {MOST_BYTES // 2**20} MiB", lost=True)
                    if time.monotonic() > deadline:
                        raise Again(f"no whole answer within {PATIENCE:.0f} s", lost=True)
                return response.status_code, response.headers, bytes(body)
        except httpx.ConnectTimeout:
            raise Again(f"no connection within {CONNECT:.0f} s; is `base_url` right?") from None
        except httpx.TimeoutException:
            raise Again(f"no answer within {PATIENCE:.0f} s", lost=True) from None
        except httpx.ConnectError as error:
            why = self.server.clean(str(error))[:SAID]
            raise Again(f"no connection ({why}); is `base_url` right, and does the server run?") from None
        except httpx.HTTPError as error:
            what = "the answer was cut off" if begun else "the connection broke"
            raise Again(f"{what} ({self.server.clean(str(error))[:SAID]})", lost=True) from None

    def _problem(self, status: int, headers: httpx.Headers, body: bytes, length: str) -> Exception:
        """The error for a status that is no answer. `length` is the key that held the limit of tokens."""
        server, variable, problem = self.server, self.server.access.key_env, forms.said(body)
        words = server.clean(problem.message).strip()[:SAID]
        said = f"says {status}" + (f": {words}" if words else "")
        if 300 <= status < 400:
            target = server.clean(headers.get("location", "nowhere"))[:SAID]
            return server.wrong(f"sends on to {target} ({status})", "write the address that answers as `base_url`")
        if status in (401, 403):
            mend = (
                f"set {variable} to a key that this server takes" if variable else "name its key's variable, `key_env`"
            )
            return server.wrong(said, f"{mend}, and run again")
        if status in (404, 405):
            return server.wrong(
                said,
                f"does it know a model '{server.model}' (`openai:`), and is `base_url` right? {self.url} was asked",
            )
        if status == 402 or problem.code == "insufficient_quota":
            return server.wrong(said, f"the account has no credit left; {KEPT}")
        if status == 400 and problem.param == length == "max_tokens" and "max_completion_tokens" in problem.message:
            self._length = "max_completion_tokens"  # the newer name of the same limit
            return Again(said)
        if status in (400, 413, 422):
            return Refused(f"the server {said}")
        if status in (408, 409, 425, 429) or status >= 500:
            after = forms.retry_after(headers.get("retry-after", ""))
            if after > LONGEST_WAIT:
                return server.wrong(said, f"it wants to be asked again in {after:.0f} s; {KEPT}")
            return Again(said, after)
        return server.wrong(said, "that is no answer of a chat; is `base_url` right?")
