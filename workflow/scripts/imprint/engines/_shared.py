"""The engine `transformers` on several GPUs: ranks that share a model by tensor parallelism. Each computes with its
part of every layer, and all have the same logits, so they draw the same tokens.

The job's own process loads no model. It renders prompts, sends each batch to all ranks, and takes the answers of
rank 0. So shards, locks and records are those of a job on one GPU."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, NoReturn

from imprint.engines import Candidates, Pass, Prompt, Response
from imprint.models import chains, chat_text
from imprint.models.chat_text import ChatText, Message
from imprint.runtime import job_record, rank_processes
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.runtime.rank_processes import Command
from imprint.runtime.ranks import STORE, Ranks

APART = 600.0
"""Seconds by which ranks may answer one after another. If they differ in a token, some may wait for a pass that the
others never make."""


class Order(Strict):
    """What every rank gets from the job: what `start` of an engine gets, and where the ranks find each other."""

    chain: list[Path]
    dtype: str
    device: str
    batch_size: int
    ranks: int
    meeting: Path


class Together:
    """The ranks as one engine. They end with this process, and when the engine is thrown away."""

    model: Any = None

    def __init__(self, chain: list[Path], dtype: str, device: str, batch_size: int, ranks: int) -> None:
        import torch

        # The import makes the program part of the job's code. It comes late because the program imports this module.
        from imprint.engines import _rank as program

        self.tokenizer, self.batch_size, self.passing = chains.tokenizer(chain), batch_size, Pass()
        self._running = ExitStack()
        folder = Path(self._running.enter_context(tempfile.TemporaryDirectory(prefix="imprint-ranks-")))
        order = Order(
            chain=chain, dtype=dtype, device=device, batch_size=batch_size, ranks=ranks, meeting=folder / STORE
        )
        pipes = [Pipe() for _ in range(ranks)]
        self._told = [ours for ours, _ in pipes]
        commands = []
        for place, (_, theirs) in enumerate(pipes):
            words = [program.__name__, order.model_dump_json(), str(theirs.fileno()), str(os.getpid()), str(place)]
            commands.append(Command(Ranks(place, ranks), words, [theirs.fileno()]))
        threads = max(1, torch.get_num_threads() // ranks)
        self._processes = self._running.enter_context(rank_processes.started(commands, device, threads))
        for _, theirs in pipes:
            theirs.close()  # so that a pipe comes to its end with its rank
        self.name, self.limit = self._answer()

    def render(self, messages: Sequence[Message], prefill: str = "") -> ChatText:
        """The prompt of a dialogue whose assistant's turn begins with `prefill`, as `chat_text.render` says."""
        return chat_text.render(self.tokenizer, messages, prefill)

    def tokens(self, text: str, breaks: tuple[int, ...] = ()) -> list[int]:
        """Token ids of rendered text, as `chat_text.tokens` says."""
        return chat_text.tokens(self.tokenizer, text, breaks)

    def generate(self, prompts: list[Prompt]) -> list[Response]:
        """Continue every prompt, as one rank does."""
        responses: list[Response] = self._ask("generate", prompts)
        return responses

    def loglikelihood(self, asked: list[Candidates]) -> list[list[Response]]:
        """The log-likelihood of each continuation behind its prompt, as one rank computes it."""
        responses: list[list[Response]] = self._ask("loglikelihood", asked)
        return responses

    def _ask(self, what: str, given: list[Any]) -> Any:
        """What rank 0 answers when all ranks are asked."""
        for connection in self._told:
            try:
                connection.send((what, given))
            except BrokenPipeError:
                break  # `_answer` says how the rank has ended
        return self._answer()

    def _answer(self) -> Any:
        """What rank 0 says next, once all ranks have said the same. Raises ImprintError, and ends the ranks, when one
        of them has ended, and when they do not agree."""
        said: dict[int, dict[str, Any]] = {}
        places = {connection: place for place, connection in enumerate(self._told)}
        while places:
            answered = wait(list(places), APART if said else None)
            if not answered:
                self._disagree(len(self._told))
            for ready in answered:
                assert isinstance(ready, Connection)
                place = places[ready]
                try:
                    said[place] = ready.recv()
                except (EOFError, ConnectionResetError):
                    self._refuse(said, place)
                del places[ready]
                if "answer" not in said[place]:
                    self._refuse(said, place)
        job_record.add(rank_processes.used([said[place] for place in sorted(said)]))
        if len({answer["hash"] for answer in said.values()}) > 1:
            self._disagree(len(said))
        return said[0]["answer"]

    def _disagree(self, ranks: int) -> NoReturn:
        self._running.close()
        raise ImprintError(
            f"the {ranks} GPUs that share this model have computed different answers; write `resources: {{gpu: 1}}` on "
            "the arm, or run on GPUs of one kind"
        )

    def _refuse(self, said: dict[int, dict[str, Any]], place: int) -> NoReturn:
        """End all ranks, and raise ImprintError for the one that failed first: that at `place`, or another one for
        which it waited."""
        with suppress(subprocess.TimeoutExpired):  # one that has said its error may hang at its end
            self._processes[place].wait(10.0)
        statuses = [process.poll() for process in self._processes]
        self._running.close()
        rank_processes.refuse([said.get(each, {}) for each in range(len(statuses))], statuses, "engine")
        raise ImprintError(f"rank {place} of the engine's {len(statuses)} ranks has ended without an answer; run again")
