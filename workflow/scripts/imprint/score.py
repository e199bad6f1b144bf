"""`python -m imprint.score SCORE rows.jsonl`: verdicts on responses, without a model.

A row is one JSON object with `response` and what the score needs: the reference fields of a dataset row beside it or
under `reference`. For IFEval that is `prompt`, `instruction_id_list` and `kwargs`, as in its own files. One JSON object
a row comes out: the row's number and key, and each metric as a number, or as a list in item order.

    $ python -m imprint.score ifeval rows.jsonl
    {"row": 1, "key": 1001, "prompt_strict": 0.0, ..., "instruction_strict": [1.0, 0.0], "labels": ["...", "..."]}
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from imprint import plugins, scoring
from imprint.errors import ImprintError
from imprint.scores import Option, Verdict


def verdicts(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """One input row to one output row; raises `ImprintError` when a field is missing."""
    module = plugins.load("scores", name)
    if "response" not in row:
        raise ImprintError('has no field "response"; add the text that is to be scored')
    given = {
        key: value for key, value in row.items() if key not in ("response", "answers", "messages", "fields", "strata")
    }
    example = {
        "example_id": str(row.get("key", row.get("example_id", ""))),
        "messages": row.get("messages") or [{"role": "user", "content": row.get("prompt", "")}],
        "reference": row.get("reference", given),
        "fields": row.get("fields", {}),
    }
    response = row["response"]
    if module.ASKS == "loglikelihood":
        response = [Option(**option) for option in response]
    elif not isinstance(response, str):
        raise ImprintError(f'the field "response" holds {type(response).__name__}; write text')
    # A judged score reads a judge's answers, which a row may bring along; without them its metrics are null.
    answers = [row.get("answers", {})] if hasattr(module, "QUESTIONS") else []
    found: list[Verdict] = module.score(example, response, module.Settings(), *answers)
    out: dict[str, Any] = {key: row[key] for key in ("key", "example_id") if key in row}
    labels: dict[int, str | None] = {}
    for verdict in found:
        if verdict.item is None:
            out[verdict.metric] = verdict.value
        else:
            out.setdefault(verdict.metric, []).append(verdict.value)
            labels[verdict.item] = verdict.label
    if labels:
        out["labels"] = [labels[item] for item in sorted(labels)]
    if any(verdict.unparsed for verdict in found):
        out["unparsed"] = True
    return out


def main(arguments: list[str] | None = None) -> None:
    """Score a JSONL file (or standard input, `-`) and print JSONL."""
    parser = argparse.ArgumentParser(prog="python -m imprint.score", description="Score responses without a model.")
    parser.add_argument("score", help=f"one of: {', '.join(plugins.names('scores'))}")
    parser.add_argument("rows", help="a JSONL file, or - for standard input")
    options = parser.parse_args(arguments)
    try:
        plugins.path("scores", options.score)
        with sys.stdin if options.rows == "-" else Path(options.rows).open(encoding="utf-8") as lines:
            for number, row in scoring.rows_of(lines, options.rows):
                try:
                    out = verdicts(options.score, row)
                except ImprintError as error:
                    raise ImprintError(f"{options.rows}, line {number}: {error}") from None
                print(json.dumps({"row": number, **out}, ensure_ascii=False), flush=True)
    except (ImprintError, OSError, UnicodeDecodeError) as error:
        sys.exit(f"imprint.score: {error}")


if __name__ == "__main__":
    main()
