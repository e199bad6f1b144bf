"""Calls that must come back: a function runs in a process of its own, which is killed when its time is over.

A check of a response can be sent into an endless simplification or a slow pattern by that response, and Python's signal
handlers do not interrupt it. `call` hands the arguments to a worker as JSON, and the kernel kills what has computed for
too long. It counts CPU time, so that no verdict depends on how busy the machine is; only after PATIENCE times the limit
by the clock is a call given up. Memory is limited too. A worker has no environment, stays alive from call to call, and
is replaced after it was killed.

    call("imprint.scores.ifeval:follows", ["punctuation:no_comma", {}, ["a, b"]])  ->  [False, False]

With `jailed` the worker lives in a jail (`imprint.isolation`), and answers each call in a child of its own, which may
start nothing, sees no call before or after its own, and is gone with its answer. So whatever a response does to the
function that checks it, it does to itself alone.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from imprint import isolation, jail
from imprint.errors import ImprintError

LIMIT = 1.8  # CPU seconds of one call: with ending what overran it, less than 2
PATIENCE = 15  # times the limit: how long an answer is waited for where others keep the processor busy
START = 120.0  # seconds in which a worker must have imported what it runs
MEMORY = 4 << 30  # bytes of address space of a worker, and of each child of one in a jail
SCRATCH = 1 << 20  # bytes of the folder that libraries may want while they are imported
ANSWER = 1 << 20  # bytes of one reply
LIBRARIES = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
PATHS = list(dict.fromkeys(os.path.realpath(path) for path in (str(Path(__file__).parent.parent), *LIBRARIES)))
"""Where a worker imports from: the package, and the libraries of this environment."""
LAUNCH = """
import json, sys
sys.path += json.loads(sys.argv[1])
from imprint import bounded
bounded.serve(*sys.argv[2:])
"""


class Failure(Exception):
    """There is no answer."""


class Timeout(Failure):
    """The call was ended because it took too long."""


class Stumble(Failure):
    """The function raised something that is no statement about its arguments."""


class _Worker:
    """A process that answers calls, a line of JSON each, once it has run `warm` of a module."""

    def __init__(self, module: str, jailed: bool) -> None:
        arguments = ["-c", LAUNCH, json.dumps(PATHS), module, "jailed" if jailed else ""]
        if jailed:
            self.process = isolation.start(
                arguments, memory=MEMORY, scratch=SCRATCH, cpu=0, processes=True, readable=PATHS
            )
        else:
            self.process = subprocess.Popen(
                [os.path.realpath(sys.executable), *jail.FLAGS, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=jail.ENVIRONMENT,
            )
        self.unread = b""
        deadline = time.monotonic() + START
        try:
            if jailed and (first := self._line(deadline)) != isolation.READY.strip():
                raise isolation.missing(first or self.unread)
            if (reply := self._line(deadline)) != b'"ready"':
                said = (reply or self.unread).decode(errors="replace")[-500:]
                raise ImprintError(f"the process that runs {module} cannot be started: {said or 'it said nothing'}")
        except ImprintError:
            isolation.end(self.process)
            raise

    def _line(self, deadline: float) -> bytes | None:
        """The next line, or None when the time is over or the process has died."""
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        while b"\n" not in self.unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                return None
            piece = os.read(pipe, 1 << 16)
            self.unread += piece
            if not piece or len(self.unread) > ANSWER:
                return None
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def call(self, function: str, arguments: list[Any], limit: float) -> Any:
        deadline = time.monotonic() + PATIENCE * limit
        # json escapes everything beyond ASCII, lone surrogates too.
        self._send(json.dumps([function, arguments, limit]).encode() + b"\n", deadline)
        reply = self._line(deadline + 5.0)  # a jailed worker itself ends its child at the deadline
        if reply is None:
            isolation.end(self.process)
            overran = self.process.returncode == -signal.SIGPROF or time.monotonic() >= deadline
            kind, value = ("timeout", None) if overran else ("death", "its process has died")
        else:
            try:
                kind, value = json.loads(reply)
            except (ValueError, TypeError, RecursionError):  # what a jailed child says need not be an answer
                kind, value = "death", "its answer is not JSON"
        if kind == "value":
            return value
        if kind == "error":
            raise ImprintError(str(value))
        if kind == "timeout":
            raise Timeout(f"it did not answer within {limit:g} s of CPU time")
        raise (Stumble if kind == "stumble" else Failure)(str(value))

    def _send(self, line: bytes, deadline: float) -> None:
        """Write a line, as far as the process takes it in time; what went wrong shows when the reply is read."""
        assert self.process.stdin is not None
        pipe, rest = self.process.stdin.fileno(), memoryview(line)
        os.set_blocking(pipe, False)
        with contextlib.suppress(BrokenPipeError):
            while rest and (left := deadline - time.monotonic()) > 0 and select.select([], [pipe], [], left)[1]:
                rest = rest[os.write(pipe, rest[: 1 << 16]) :]


_workers: dict[tuple[str, bool], _Worker] = {}


def call(function: str, arguments: list[Any], *, limit: float = LIMIT, warm: str = "", jailed: bool = False) -> Any:
    """The value (plain JSON) of `MODULE:FUNCTION` for JSON arguments. Raises `Timeout` after `limit` CPU seconds,
    `Stumble` when the function raises, but ImprintError when that is what it raises, and `Failure` when its process
    dies. `warm` names the module whose `warm()` the worker runs before time counts, to import what is slow (empty: the
    function's). Where the function's module has `ahead`, the worker itself calls that with the arguments first, and its
    time does not count."""
    key = warm or function.partition(":")[0], jailed
    worker = _workers.get(key)
    if worker is None or worker.process.poll() is not None:
        if worker is not None:
            isolation.end(worker.process)
        worker = _workers[key] = _Worker(*key)
    try:
        return worker.call(function, arguments, limit)
    except Failure as error:
        if worker.process.poll() is not None:
            isolation.end(_workers.pop(key).process)
        raise type(error)(f"{function}: {error}") from None


@atexit.register
def close() -> None:
    """End all workers."""
    while _workers:
        isolation.end(_workers.popitem()[1].process)


def serve(module: str, jailed: str) -> None:
    """The worker: replies to the calls on its standard input, so that nothing that a check prints gets in between."""
    import resource

    replies, nothing = os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        if warm := getattr(importlib.import_module(module), "warm", None):
            warm()
    except Exception as error:
        _write(replies, json.dumps(f"{type(error).__name__}: {error}"[:1000]).encode() + b"\n")
        return
    if jailed:
        jail.filters(True)  # made once, for all children
        os.chmod("/tmp", 0o555)  # nothing that one child leaves behind can be found by the next
    gc.collect()
    gc.freeze()  # otherwise the garbage collector would write to, and so copy, every page shared with a child
    _write(replies, b'"ready"\n')
    for line in sys.stdin.buffer:
        function, arguments, limit = json.loads(line)
        where, _, name = function.partition(":")
        try:
            home = importlib.import_module(where)
            if ahead := getattr(home, "ahead", None):
                ahead(*arguments)
        except Exception as error:
            reply = _failure(error)
        else:
            answer = _answer_in_a_child if jailed else _answer
            reply = answer(getattr(home, name), arguments, limit)
        _write(replies, reply + b"\n")


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _failure(error: Exception) -> bytes:
    if isinstance(error, ImprintError | ImportError):
        return json.dumps(["error", str(error)]).encode()
    return json.dumps(["stumble", f"{type(error).__name__}: {error}"[:1000]]).encode()


def _answer(function: Any, arguments: list[Any], limit: float) -> bytes:
    """The reply to one call. SIGPROF, unhandled, ends the process wherever it is."""
    signal.setitimer(signal.ITIMER_PROF, limit)
    try:
        reply = json.dumps(["value", function(*arguments)]).encode()
    except Exception as error:
        reply = _failure(error)
    signal.setitimer(signal.ITIMER_PROF, 0)
    return reply if len(reply) < ANSWER else json.dumps(["stumble", f"{len(reply)} bytes of an answer"]).encode()


def _answer_in_a_child(function: Any, arguments: list[Any], limit: float) -> bytes:
    """The reply to one call, from a child that lives no longer than the call and has nothing of this process in reach
    but a copy of its memory."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.closerange(0, there)
            os.closerange(there + 1, 64)
            for _standard in (0, 1, 2):
                os.open(os.devnull, os.O_RDWR)
            jail.limit(MEMORY, int(limit) + 1, 0)
            jail.refuse_system_calls(alone=True)
            _write(there, _answer(function, arguments, limit))
        finally:
            os._exit(0)
    os.close(there)
    reply, deadline = bytearray(), time.monotonic() + PATIENCE * limit
    while len(reply) < ANSWER and (left := deadline - time.monotonic()) > 0 and select.select([here], [], [], left)[0]:
        if not (piece := os.read(here, 1 << 16)):
            break
        reply += piece
    os.close(here)
    late = time.monotonic() >= deadline
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU)):
        return b'["timeout", null]'
    whole = 0 < len(reply) < ANSWER and b"\n" not in reply
    return bytes(reply) if whole else b'["death", "the process of the call has died"]'
