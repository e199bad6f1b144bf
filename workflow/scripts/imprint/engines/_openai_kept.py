"""What a server has answered: one file a request, below `resources/answers/`.

An answer costs money, and a server may say something else when it is asked again. So the first answer is the record:
neither a killed job nor a changed config asks for it twice. It is found by the hash of the request, and lies outside
the work folders of jobs, which are emptied when the work changes. All configs of a checkout share the answers, as they
share models. The files also say how many tokens the answers have cost.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.identity import fingerprint, write_json
from imprint.runtime.plugins import Strict

ANSWERS = Path("resources/answers")
LOCK = ".lock"


class Answer(Strict):
    """What a server has said. `model`: by the name that it gives itself. `pieces`: the bytes of each token, where they
    were asked for. `cost`: tokens read and written, as the server counts them, or where it does not, the most that they
    can be."""

    text: str
    finish_reason: str | None
    model: str | None
    prompt_tokens: int | None
    response_tokens: int | None
    pieces: list[list[int]] | None
    cost: int = Field(ge=0)
    seconds: float


class _Record(Strict):
    """A file: the answer, and what was asked where."""

    base_url: str
    request: dict[str, Any]
    answer: Answer


class Kept:
    """The answers of one model on one server."""

    def __init__(self, base_url: str, model: str, answers: Path = ANSWERS) -> None:
        self.base_url = base_url
        self.folder = answers / fingerprint([base_url, model])[:16]
        self._costs: dict[str, int] = {}

    def path(self, request: dict[str, Any]) -> Path:
        """The file of a request."""
        name = fingerprint([self.base_url, request])
        return self.folder / name[:2] / f"{name}.json"

    def read(self, request: dict[str, Any]) -> Answer | None:
        """The answer to a request; None if it is not there. A file that cannot be used is named on stderr."""
        path = self.path(request)
        if not path.is_file():
            return None
        try:
            record = _Record.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            record = None
        if record is None or (record.base_url, record.request) != (self.base_url, request):
            print(shown(f"imprint: {path} is no answer to what was asked; it is asked again"), file=sys.stderr)
            return None
        return record.answer

    def write(self, request: dict[str, Any], answer: Answer) -> None:
        """Keep an answer."""
        record = _Record(base_url=self.base_url, request=request, answer=answer)
        write_json(self.path(request), record.model_dump())

    def cost(self) -> int:
        """The tokens of all answers. Each file is read once. A broken one costs nothing: it will be asked again."""
        for path in self.folder.glob("??/*.json"):
            if path.name not in self._costs:
                try:
                    self._costs[path.name] = _Record.model_validate_json(path.read_bytes()).answer.cost
                except (OSError, ValidationError):
                    self._costs[path.name] = 0
        return sum(self._costs.values())

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the right to ask this server for this model. One process has it at a time, so that the limits hold for
        all. The kernel takes it from a process that dies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class Purse:
    """The tokens that may still be spent. A request takes the most that it can cost, and gives back what it did not
    cost."""

    def __init__(self, limit: int | None, spent: int, where: str) -> None:
        self.limit, self.spent, self.where = limit, spent, where
        self._lock = threading.Lock()

    def take(self, most: int) -> None:
        """Raises ImprintError where the limit could be passed; then nothing is taken."""
        with self._lock:
            if self.limit is not None and self.spent + most > self.limit:
                raise ImprintError(
                    f"{self.where}.limits.tokens: the limit is {self.limit:,} tokens; {self.spent:,} are spent or on "
                    f"their way, and the next request may take up to {most:,}, so it was not sent. The answers so far "
                    "are kept; write a higher limit and run again"
                )
            self.spent += most

    def give_back(self, tokens: int) -> None:
        """What was taken and not spent."""
        with self._lock:
            self.spent -= tokens
