"""Calls with a limit of time: a function runs in a worker process, which is killed when the time is over.

A response can send its check into an endless simplification or a slow pattern, and Python's signal handlers do not
interrupt it. `call` hands the arguments to a worker as JSON, and the kernel kills a worker that computes for too long.
The limit is CPU time, so that verdicts do not depend on how busy the machine is; a call is also given up after PATIENCE
times the limit by the clock. Memory is limited too. A worker has no environment variables of ours, stays alive from
call to call, and is replaced after it was killed.

    call("imprint.scores.ifeval:follows", ["punctuation:no_comma", {}, ["a, b"]])  ->  [False, False]

With `jailed` the worker lives in a jail (`scoring/isolation.py`), and answers each call in a new child process. The
child may not start processes, sees no other call, and ends with its answer. So a response that takes over its check
changes its own verdict and no other.
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

from imprint.runtime.errors import ImprintError
from imprint.scoring import isolation, jail

LIMIT = 1.8  # CPU seconds of one call; less than 2 with the time that killing takes
PATIENCE = 15  # times the limit: the longest wait for an answer by the clock, on a busy machine
START = 120.0  # seconds in which a worker must have started and run `warm`
MEMORY = 4 << 30  # bytes of address space of a worker, and of each child of a jailed worker
SCRATCH = 1 << 20  # bytes of a jail's /tmp, which some libraries need for their import
ANSWER = 1 << 20  # bytes of one reply
LIBRARIES = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
PATHS = list(dict.fromkeys(os.path.realpath(path) for path in (str(Path(__file__).parents[2]), *LIBRARIES)))
"""The folders from which a worker imports: that of the package, and the libraries of this environment."""
LAUNCH = """
import json, sys
sys.path += json.loads(sys.argv[1])
from imprint.scoring import bounded
bounded.serve(*sys.argv[2:])
"""


class Failure(Exception):
    """The call gave no answer."""


class Timeout(Failure):
    """The call was ended because it took too long."""


class Stumble(Failure):
    """The function raised an error other than ImprintError, so it did not expect its arguments."""


class _Worker:
    """A process that runs `warm`, and then answers calls. A call and its reply are a line of JSON each."""

    def __init__(self, warm: tuple[str, ...], jailed: bool) -> None:
        arguments = ["-c", LAUNCH, json.dumps(PATHS), json.dumps(warm), "jailed" if jailed else ""]
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
                output = (reply or self.unread).decode(errors="replace")[-500:]
                raise ImprintError(
                    f"the process that runs {' '.join(warm)} cannot be started: {output or 'it said nothing'}"
                )
        except ImprintError:
            isolation.end(self.process)
            raise

    def _line(self, deadline: float) -> bytes | None:
        """The next line; None if the time is over, the process has died, or the line is too long."""
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        while b"\n" not in self.unread:
            seconds = deadline - time.monotonic()
            if seconds <= 0 or not select.select([pipe], [], [], seconds)[0]:
                return None
            piece = os.read(pipe, 1 << 16)
            self.unread += piece
            if not piece or len(self.unread) > ANSWER:
                return None
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def call(self, functions: list[str], arguments: list[Any], limit: float) -> Any:
        deadline = time.monotonic() + PATIENCE * limit
        # json.dumps escapes everything beyond ASCII, also lone surrogates, so encode cannot fail.
        self._send(json.dumps([functions, arguments, limit]).encode() + b"\n", deadline)
        reply = self._line(deadline + 5.0)  # a jailed worker itself ends its child at the deadline
        if reply is None:
            isolation.end(self.process)
            overran = self.process.returncode == -signal.SIGPROF or time.monotonic() >= deadline
            kind, value = ("timeout", None) if overran else ("death", "its process has died")
        else:
            try:
                kind, value = json.loads(reply)
            except (ValueError, TypeError, RecursionError):  # a jailed child may write anything
                kind, value = "death", "its answer is not JSON"
        if kind == "value":
            return value
        if kind == "error":
            raise ImprintError(str(value))
        if kind == "timeout":
            raise Timeout(f"it did not answer within {limit:g} s of CPU time")
        raise (Stumble if kind == "stumble" else Failure)(str(value))

    def _send(self, line: bytes, deadline: float) -> None:
        """Write a line, or as much of it as the process reads in time. A failure shows when the reply is read."""
        assert self.process.stdin is not None
        pipe, unsent = self.process.stdin.fileno(), memoryview(line)
        os.set_blocking(pipe, False)
        with contextlib.suppress(BrokenPipeError):
            while unsent and (seconds := deadline - time.monotonic()) > 0 and select.select([], [pipe], [], seconds)[1]:
                unsent = unsent[os.write(pipe, unsent[: 1 << 16]) :]


_workers: dict[tuple[tuple[str, ...], bool], _Worker] = {}


def call(
    function: str,
    arguments: list[Any],
    *,
    limit: float = LIMIT,
    warm: tuple[str, ...] = (),
    ahead: str = "",
    jailed: bool = False,
) -> Any:
    """The value (plain JSON) of `MODULE:FUNCTION` for JSON arguments.

    `warm` is what the worker does when it starts: it imports a MODULE, by default that of the function, or runs a
    `MODULE:FUNCTION` with the arguments that follow in the tuple. Calls with the same `warm` share a worker. `ahead` is
    a `MODULE:FUNCTION` that the worker itself runs with the arguments before each call, outside the child of a jailed
    worker. The time of `warm` and `ahead` does not count.

    Raises ImprintError if the function raises it, `Stumble` if it raises another error, `Timeout` after `limit` CPU
    seconds, and `Failure` if its process dies."""
    key = (warm or (function.partition(":")[0],), jailed)
    worker = _workers.get(key)
    if worker is None or worker.process.poll() is not None:
        if worker is not None:
            isolation.end(worker.process)
        worker = _workers[key] = _Worker(*key)
    try:
        return worker.call([ahead, function], arguments, limit)
    except Failure as error:
        if worker.process.poll() is not None:
            isolation.end(_workers.pop(key).process)
        raise type(error)(f"{function}: {error}") from None


@atexit.register
def close() -> None:
    """End all workers."""
    while _workers:
        isolation.end(_workers.popitem()[1].process)


def serve(warm: str, jailed: str) -> None:
    """The worker: answers the calls on its standard input. Its replies go to a copy of the standard output, and the
    standard output itself to /dev/null, so that nothing that a check prints gets between the replies."""
    import resource

    replies, nothing = os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        name, *name_arguments = json.loads(warm)
        if ":" in name:
            _function(name)(*name_arguments)
        else:
            importlib.import_module(name)
    except Exception as error:
        _write(replies, json.dumps(f"{type(error).__name__}: {error}"[:1000]).encode() + b"\n")
        return
    if jailed:
        jail.filters(True)  # cached for all children
        os.chmod("/tmp", 0o555)  # a child cannot leave files for the next one
    gc.collect()
    gc.freeze()  # otherwise a child's garbage collector would write to, and so copy, every shared page
    _write(replies, b'"ready"\n')
    for line in sys.stdin.buffer:
        (ahead, name), arguments, limit = json.loads(line)
        try:
            function = _function(name)
            if ahead:
                _function(ahead)(*arguments)
        except Exception as error:
            reply = _failure(error)
        else:
            answer = _answer_in_a_child if jailed else _answer
            reply = answer(function, arguments, limit)
        _write(replies, reply + b"\n")


def _function(name: str) -> Any:
    """The function that `MODULE:FUNCTION` names."""
    module, _, function = name.partition(":")
    return vars(importlib.import_module(module))[function]


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _failure(error: Exception) -> bytes:
    if isinstance(error, ImprintError | ImportError):
        return json.dumps(["error", str(error)]).encode()
    return json.dumps(["stumble", f"{type(error).__name__}: {error}"[:1000]]).encode()


def _answer(function: Any, arguments: list[Any], limit: float) -> bytes:
    """The reply to one call. After `limit` CPU seconds SIGPROF kills the process, because nothing handles it."""
    signal.setitimer(signal.ITIMER_PROF, limit)
    try:
        reply = json.dumps(["value", function(*arguments)]).encode()
    except Exception as error:
        reply = _failure(error)
    signal.setitimer(signal.ITIMER_PROF, 0)
    return reply if len(reply) < ANSWER else json.dumps(["stumble", f"{len(reply)} bytes of an answer"]).encode()


def _answer_in_a_child(function: Any, arguments: list[Any], limit: float) -> bytes:
    """The reply to one call, from a child process that lives no longer than the call. It has a copy of this process's
    memory, and can reach nothing else of this process."""
    our_end, child_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.closerange(0, child_end)
            os.closerange(child_end + 1, 64)
            for _standard in (0, 1, 2):
                os.open(os.devnull, os.O_RDWR)
            jail.limit(MEMORY, int(limit) + 1, 0)
            jail.refuse_system_calls(alone=True)
            _write(child_end, _answer(function, arguments, limit))
        finally:
            os._exit(0)
    os.close(child_end)
    reply, deadline = bytearray(), time.monotonic() + PATIENCE * limit
    while len(reply) < ANSWER:
        seconds = deadline - time.monotonic()
        if seconds <= 0 or not select.select([our_end], [], [], seconds)[0]:
            break
        if not (piece := os.read(our_end, 1 << 16)):
            break
        reply += piece
    os.close(our_end)
    late = time.monotonic() >= deadline
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU)):
        return b'["timeout", null]'
    complete = 0 < len(reply) < ANSWER and b"\n" not in reply
    return bytes(reply) if complete else b'["death", "the process of the call has died"]'
