"""IFEval's prompts (Zhou et al. 2023): a reader of input_data.jsonl, one object a line.

{"key": 1001, "prompt": "Write ... no commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint import instructions
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict

FIELDS = ("key", "prompt", "instruction_id_list", "kwargs")


class Settings(Strict):
    """Nothing to set."""


def kinds(settings: Settings) -> tuple[str, frozenset[str]]:
    """All types of instructions. A fit may have been trained on some of them (`datasets/ifeval_format.py`)."""
    return "instruction types", frozenset(instructions.INSTRUCTIONS)


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """One row per line of the one file in `paths`: the prompt as the user's turn, and as reference what scores/ifeval
    needs. Raises ImprintError with the number of a line that is not such an object or that cannot be judged."""
    if len(paths) != 1:
        raise ImprintError(f"ifeval reads one file, input_data.jsonl, but was given {sorted(paths) or 'none'}")
    ((name, path),) = paths.items()
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            record = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ImprintError(f"{where}: not valid UTF-8 ({error}); save the file as UTF-8") from error
        except ValueError as error:
            raise ImprintError(f"{where}: not valid JSON ({error})") from error
        missing = [field for field in FIELDS if not isinstance(record, dict) or field not in record]
        if missing:
            raise ImprintError(f"{where}: no {', '.join(missing)}; a row has the fields {', '.join(FIELDS)}")
        prompt = record["prompt"]
        if not isinstance(prompt, str) or not prompt.strip():
            raise ImprintError(f"{where}: the prompt is {prompt!r}; it must be a text that is not blank")
        pairs = instructions.check_all(record["instruction_id_list"], record["kwargs"], where)
        yield {
            "messages": [{"role": "user", "content": prompt}],
            "reference": {
                "instruction_id_list": [instruction for instruction, _ in pairs],
                "kwargs": [criteria for _, criteria in pairs],
                "prompt": prompt,
            },
            "fields": {"key": record["key"]},
            "strata": {"instructions": len(pairs)},
        }
