"""What it costs to start a job that runs a model: `python benchmarks/job_start.py MODEL`.

MODEL is a folder under resources/models. A job starts the engine and answers one prompt with one token. It does so in a
process that imports the libraries itself, and in a fork of the fork server, which has imported them once. The two take
turns, with one thread. CPU seconds are those of the job's process and of its fork; what the server's one import costs
stands apart. The last line is one JSON object with the figures, the limits and `holds`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from imprint.runtime import fork_server, frame

LIMIT = 1 / 3  # CPU seconds of a job in a fork, over those of a job that imports the libraries itself
JOB = """
import json, resource, sys
from pathlib import Path
from imprint.runtime import fork_server, frame
frame.prepare(1)
fork_server.hand_over()
import torch
torch.set_num_threads(1)
from imprint.engines import Prompt, transformers
engine = transformers.start([Path("{model}")], "float32", "cpu", 1)
(response,) = engine.generate([Prompt("Once", 1)])
used = resource.getrusage(resource.RUSAGE_SELF)
Path("{answer}").write_text(json.dumps([response.text, used.ru_utime + used.ru_stime]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    frame.serve_forks()
    address = os.environ[fork_server.ADDRESS]
    with tempfile.TemporaryDirectory() as folder:
        script, answer = Path(folder, "job.py"), Path(folder, "answer.json")
        script.write_text(JOB.format(model=(options.model / "manifest.json").resolve(), answer=answer))
        seconds: dict[str, list[float]] = {"imported": [], "forked": []}
        texts = set()
        run(script, answer, address)  # the server imports the libraries now
        for _ in range(options.rounds):
            for way, server in (("imported", ""), ("forked", address)):
                text, taken = run(script, answer, server)
                texts.add(text)
                seconds[way].append(taken)
    for way, taken_by in seconds.items():
        print(f"{way}: {', '.join(f'{one:.2f}' for one in taken_by)} CPU seconds")
    ratio = statistics.median(a / b for a, b in zip(seconds["forked"], seconds["imported"], strict=True))
    print(
        json.dumps(
            {
                "ratio": round(ratio, 3),
                **{f"{way}_cpu_seconds": round(statistics.median(each), 2) for way, each in seconds.items()},
                "same_text": len(texts) == 1,
                "limits": {"ratio": round(LIMIT, 3)},
                "holds": ratio <= LIMIT and len(texts) == 1,
            }
        )
    )


def run(script: Path, answer: Path, address: str) -> tuple[str, float]:
    """The text that a job answers, and its CPU seconds; `address` is the fork server's, empty for none."""
    environment = {**os.environ, "PYTHONPATH": str(Path(frame.__file__).parents[2]), fork_server.ADDRESS: address}
    with subprocess.Popen([sys.executable, str(script)], env=environment) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"the job ended with {process.returncode}")
    text, of_answering = json.loads(answer.read_text())
    own = used.ru_utime + used.ru_stime
    return text, own + of_answering if address else own


if __name__ == "__main__":
    main()
