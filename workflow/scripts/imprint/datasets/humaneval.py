"""HumanEval+ (arXiv 2305.01210; HumanEval: arXiv 2107.03374): functions to complete, with the benchmark's own inputs
and many more. One file serves both: `score: code` reports the base inputs and all inputs separately.

Example: "from typing import List\n\n\ndef has_close_elements(...):" is asked for as one block of Python.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict

DEMAND = "Complete this Python function. Reply with the whole function, imports included, in one code block.\n\n"
KEYS = ("prompt", "entry_point", "canonical_solution", "base_input", "plus_input", "atol")


class Settings(Strict):
    """Nothing to set."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """Reference {task_id, prompt, entry_point, canonical_solution, inputs: JSON text of {"base", "extra"}, atol}. The
    inputs stay text, because some hold NaN or Infinity, which are not JSON."""
    for _, path in sorted(paths.items()):
        try:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            lines = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
        except (OSError, EOFError, ValueError) as error:
            raise ImprintError(f"{path} cannot be read as JSON lines ({error}); delete it and run again") from error
        for row in lines:
            missing = [key for key in KEYS if key not in row]
            if missing:
                raise ImprintError(f"{path}, {row.get('task_id')}: has no {missing[0]}; take the HumanEval+ release")
            yield {
                "messages": [{"role": "user", "content": f"{DEMAND}```python\n{row['prompt'].rstrip()}\n```"}],
                "reference": {
                    "task_id": row["task_id"],
                    **{key: row[key] for key in ("prompt", "entry_point", "canonical_solution", "atol")},
                    "inputs": json.dumps({"base": row["base_input"], "extra": row["plus_input"]}),
                },
                "fields": {},
                "strata": {},
            }
