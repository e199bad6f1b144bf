"""Calls that must come back: a function runs in a process of its own, which is killed when its time is over.

A verifier of mathematics or of a written constraint can be sent into an endless simplification or a slow pattern by a
response, and Python's signal handlers do not interrupt it. `call` hands the arguments to a worker as JSON, and the
kernel kills the worker once it has computed for too long: by its CPU time, so that no verdict depends on how busy the
machine is. The worker also has limited memory, stays alive from call to call, and is replaced after it was killed.

    call("imprint.scores.math:judge", ["\\\\frac12", "0.5", True])  ->  1.0
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from imprint.errors import ImprintError

LIMIT = 1.8  # CPU seconds of one call: with ending the worker that overran it, less than 2
PATIENCE = 15  # times the limit: how long an answer is waited for where others keep the processor busy
START = 120.0  # seconds in which a worker must have imported what it runs
MEMORY = 4 << 30  # bytes of address space of a worker
ANSWER = 1 << 20  # bytes of one reply


class Failure(Exception):
    """The call took too much time, ran out of memory, or raised something that is no statement about its arguments."""


class Stumble(Failure):
    """The function raised; its worker is as good as before."""


class _Worker:
    """A process that answers calls of one module, a line of JSON each, once it has run the module's `warm`."""

    def __init__(self, module: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "imprint.bounded", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        )
        self.rest = b""
        reply = self._reply(time.monotonic() + START)
        if reply is None or json.loads(reply) != "ready":
            self.kill()
            raise ImprintError(f"the process that runs {module} cannot be started: {str(reply)[:500]}")

    def _reply(self, deadline: float) -> bytes | None:
        """The next line, or None when the time is over or the process has died."""
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        while b"\n" not in self.rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                return None
            some = os.read(pipe, 1 << 16)
            self.rest += some
            if not some or len(self.rest) > ANSWER:
                return None
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def call(self, function: str, arguments: list[Any], limit: float) -> Any:
        assert self.process.stdin is not None
        pipe = self.process.stdin.fileno()
        deadline = time.monotonic() + PATIENCE * limit
        # json escapes everything beyond ASCII, lone surrogates too.
        line = memoryview(json.dumps([function, arguments, limit]).encode() + b"\n")
        os.set_blocking(pipe, False)
        try:
            while line:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([], [pipe], [], left)[1]:
                    raise Failure("it did not take its arguments in time")
                line = line[os.write(pipe, line[: 1 << 16]) :]
        except BrokenPipeError:
            raise Failure("the worker has died") from None
        reply = self._reply(deadline)
        if reply is None:
            raise Failure(f"it did not answer within {limit:g} s of CPU time")
        kind, value = json.loads(reply)
        if kind == "failure":
            raise Stumble(value)
        if kind == "error":
            raise ImprintError(value)
        return value

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


_workers: dict[str, _Worker] = {}
_inside = False  # this process is a worker: it is bounded already


def call(function: str, arguments: list[Any], limit: float = LIMIT, ready: str | None = None) -> Any:
    """The value (plain JSON) of `MODULE:FUNCTION` for JSON arguments. Raises `Failure` after `limit` CPU seconds, when
    the worker dies, and when the function raises, but ImprintError when that is what the function raises. `ready` names
    the module whose `warm()` the worker runs before time counts, to import what is slow (unset: the function's)."""
    module, _, name = function.partition(":")
    if _inside:
        return getattr(importlib.import_module(module), name)(*arguments)
    key = ready or module
    worker = _workers.get(key)
    if worker is None or worker.process.poll() is not None:
        if worker is not None:
            worker.kill()
        worker = _workers[key] = _Worker(key)
    try:
        return worker.call(function, arguments, limit)
    except Stumble:
        raise
    except Failure as error:
        _workers.pop(key).kill()
        raise Failure(f"{function}: {error}") from None


@atexit.register
def close() -> None:
    """End all workers."""
    while _workers:
        _workers.popitem()[1].kill()


def _serve(module: str) -> None:
    """The worker: replies to calls on the real standard output, so that nothing a verifier prints gets in between."""
    import resource

    global _inside
    _inside = True
    # Run as `-m`, this file is `__main__`; what a function imports is the module of that name.
    importlib.import_module("imprint.bounded")._inside = True  # type: ignore[attr-defined]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def say(value: Any) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        ready = getattr(importlib.import_module(module), "warm", None)
        if ready:
            ready()
    except Exception as error:
        say(f"{type(error).__name__}: {error}")
        return
    say("ready")
    for line in sys.stdin:
        function, arguments, limit = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, limit)  # SIGPROF, unhandled, ends the process wherever it is
        try:
            where, _, name = function.partition(":")
            say(["value", getattr(importlib.import_module(where), name)(*arguments)])
        except (ImprintError, ImportError) as error:
            say(["error", str(error)])
        except Exception as error:
            say(["failure", f"{type(error).__name__}: {error}"[:1000]])
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    sys.path[:] = list(dict.fromkeys([str(Path(__file__).parents[1]), *sys.path]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(sys.argv[1])
