"""`python -m imprint.engines._rank ORDER DESCRIPTOR PARENT PLACE`: one of the processes that share a model, started by
`imprint.engines._shared`.

ORDER is a `_shared.Order` in JSON. DESCRIPTOR is the number of an open file descriptor: a pipe through which the parent
asks and this process answers. PARENT is the id of the process that started this one. When the parent ends, this process
ends too. PLACE is the process's place among the ranks."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from imprint.engines import Response
from imprint.engines._shared import Order
from imprint.engines.transformers import Engine
from imprint.models import chains
from imprint.runtime import job_record, parents
from imprint.runtime.errors import ImprintError
from imprint.runtime.ranks import Ranks


def main(order: Order, parent: Connection, place: int) -> None:
    """Answer what the parent asks, until the pipe comes to its end. An error is told to the parent before this process
    ends with it."""
    ranks = Ranks(place, order.ranks)
    try:
        with ranks.joined(order.device, order.meeting):
            model, tokenizer = chains.load(order.chain, order.dtype, order.device, ranks.size, "tp")
            engine = Engine(model, tokenizer, order.batch_size)
            _say(parent, place, [f"{engine.name}, {ranks.size} ranks", engine.limit])
            while True:
                try:
                    what, given = parent.recv()
                except EOFError:
                    return
                _say(parent, place, getattr(engine, what)(given))
    except ImprintError as error:
        parent.send({"error": str(error)})
        sys.exit(1)
    except Exception:
        parent.send({"failed_at": time.time()})
        raise


def _say(parent: Connection, place: int, answer: list[Any]) -> None:
    """Tell the parent an answer. Ranks other than the first tell it only the answer's hash, by which it knows that they
    agree; wall times are no part of it."""
    hashed = hashlib.sha256(repr(_timeless(answer)).encode()).hexdigest()
    told = None if place else answer
    parent.send({"answer": told, "hash": hashed, "used": job_record.used()})


def _timeless(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_timeless(one) for one in answer]
    return dataclasses.replace(answer, seconds=0.0) if isinstance(answer, Response) else answer


if __name__ == "__main__":
    parents.end_with(int(sys.argv[3]))
    main(Order.model_validate_json(sys.argv[1]), Connection(int(sys.argv[2])), int(sys.argv[4]))
