"""The process in which vLLM runs, as the job sees it: it is started, asked, watched and ended.

vLLM has an environment of its own, since it needs other versions of some packages than the rest of the pipeline. The
process has pipes of its own for what it is asked and what it tells. So what libraries print is no answer; it goes to
the job's log."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any, NoReturn

# The import makes the program part of the job's code.
from imprint.engines import _vllm_worker as program
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.ranks import SUMS

PYTHON = plugins.PACKAGE.parents[2] / ".venv-vllm/bin/python"
STEP = 900.0
"""Seconds within which vLLM must make a step. The longest one reads a few thousand tokens."""
START = 3600.0
"""Seconds within which vLLM must have been imported, and seconds within which a model must have been loaded."""
END = 10.0
"""Seconds that are waited for a process that has told its end, and for its last lines."""
LINES = 12
"""Lines of what an ended process has printed that its error quotes."""


def python() -> Path:
    """The Python of vLLM's environment. Raises ImprintError where it is not installed."""
    if not PYTHON.exists():
        raise ImprintError(f"the engine 'vllm' needs an environment of its own, {PYTHON.parents[1]}; write: make vllm")
    return PYTHON


def environment(threads: int, batch_invariant: bool) -> dict[str, str]:
    """The environment variables of the process. Of the job's own, those that set vLLM or Python are left out: what
    decides a text stands in the config."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "PYTHON"))}
    return {
        **inherited,
        **SUMS,
        "PYTHONUNBUFFERED": "1",  # so that the last lines of a killed process are not lost
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": "",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_BATCH_INVARIANT": str(int(batch_invariant)),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # several jobs may share the cores
        "TORCHDYNAMO_DISABLE": "1",
    }


class Process:
    """The process. It ends with this one, and by `end`."""

    def __init__(self, threads: int, batch_invariant: bool) -> None:
        asked, self._asks = os.pipe()
        self._tells, told = os.pipe()
        os.set_blocking(self._asks, False)
        words = [str(python()), "-P", str(program.__file__), str(asked), str(told), str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                words,
                env=environment(threads, batch_invariant),
                pass_fds=[asked, told],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,  # so that the processes of several GPUs end with it
            )
        finally:
            os.close(asked)
            os.close(told)
        self._rest = b""
        self._printed: deque[str] = deque(maxlen=LINES)
        assert self._process.stdout is not None
        self._printing = Thread(target=_print, args=(self._process.stdout, self._printed), daemon=True)
        self._printing.start()

    def ask(self, **question: Any) -> None:
        """Ask, without an answer."""
        message, deadline = memoryview(json.dumps(question).encode() + b"\n"), time.monotonic() + STEP
        while message:
            self._wait(self._asks, select.POLLOUT, deadline, STEP)
            try:
                message = message[os.write(self._asks, message) :]
            except BrokenPipeError:
                return  # `hear` says how the process has ended
            except BlockingIOError:
                continue

    def hear(self, within: float | None = None) -> dict[str, Any]:
        """What the process tells next. Raises ImprintError, and ends the process, where it has ended or tells nothing
        for so many seconds, STEP by default."""
        within = within or STEP
        deadline = time.monotonic() + within
        while b"\n" not in self._rest:
            self._wait(self._tells, select.POLLIN, deadline, within)
            if not (part := os.read(self._tells, 1 << 16)):
                self._ended()
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            self.end()
            raise ImprintError(f"vLLM has stopped: {message['error']}")
        return message

    def _wait(self, handle: int, event: int, deadline: float, within: float) -> None:
        poll = select.poll()
        poll.register(handle, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            self.end()
            raise ImprintError(f"vLLM has told nothing for {within:.0f} s, so it was ended; run again{self._quoted()}")

    def _ended(self) -> NoReturn:
        """Raise ImprintError for a process that has ended by itself."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END)
        status = self._process.poll()
        self.end()
        if status is not None and status < 0:
            how = f"was ended by {signal.Signals(-status).name} (by SIGKILL where memory runs out)"
        else:
            how = f"ended with exit status {status}"
        raise ImprintError(f"the process of vLLM {how}; run again: what was finished is kept{self._quoted()}")

    def _quoted(self) -> str:
        return "\n".join(["; it last printed:", *self._printed]) if self._printed else ""

    def end(self) -> None:
        """Kill the process and all that it has started."""
        if self._asks < 0:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._printing.join(END)
        os.close(self._asks)
        os.close(self._tells)
        self._asks = self._tells = -1


def _print(output: IO[bytes], last: deque[str]) -> None:
    """Print what the process prints, and keep the last lines."""
    for line in output:
        text = shown(line.decode(errors="replace").rstrip())
        last.append(text)
        print(f"[vllm] {text}", file=sys.stderr, flush=True)
