"""`python -m imprint.training.node ORDER NODE`: the launcher of the ranks on one node, started by
`imprint.training.nodes`.

ORDER is a JSON file with a `launch.Rank`, NODE the node's number, counted from 0. How its ranks have ended is the last
line on standard output. What they print is on standard error. They are ended when standard input ends."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from imprint.runtime.errors import shown
from imprint.runtime.ranks import Ranks
from imprint.training import children
from imprint.training.launch import Rank
from imprint.training.nodes import ANSWER


def main(order: Path, node: int) -> None:
    """Run the node's ranks, and say how they ended. Exits with status 1 if one of them ended badly or was ended."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    rank = Rank.model_validate_json(order.read_text(encoding="utf-8"))
    every = [Ranks(place, rank.size, rank.nodes) for place in range(rank.size)]
    mine = [one for one in every if one.place // one.of_node == node]
    places = ", ".join(str(one.place) for one in mine)
    print(shown(f"imprint: rank {places} on {socket.gethostname()}"), file=sys.stderr, flush=True)
    door = rank.door.socket if rank.door and node == 0 else None
    ended = children.run(order, mine, rank.device, rank.threads, door, until=0)
    with open(stdout, "wb") as file:
        file.write(b"%s%s\n" % (ANSWER, ended.model_dump_json().encode()))
    if any(status != 0 for status in ended.statuses):
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
