"""`python -m imprint.score SCORE rows.jsonl`: verdicts on responses, without a model.

A row is one JSON object with `response` and what the score needs: the reference fields of a dataset row beside it or
under `reference`. For IFEval that is `prompt`, `instruction_id_list` and `kwargs`, as in its own files. Rows that hold
no more than `prompt` and `response` take the rest from the row of that prompt in the file `--references` names. SCORE
is written as in a config, with settings if it has any: `ifeval`, or `{format: {tag: plan}}`. One JSON object a row
comes out: the row's number and key, and each metric as a number, or as a list in item order; `unverified` says why a
check came to no verdict.

    $ python -m imprint.score ifeval rows.jsonl
    {"row": 1, "key": 1001, "prompt_strict": 0.0, ..., "instruction_strict": [1.0, 0.0], "labels": ["...", "..."]}
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from imprint import bounded, json_lines, plugins, verification
from imprint.errors import OBEYED, ImprintError, shown
from imprint.references import ScoreRef
from imprint.scores import Option, Verdict


def score_named(text: str) -> ScoreRef:
    """The score that a command line names, `NAME` or `{NAME: SETTINGS}`."""
    try:
        given = yaml.safe_load(text)
    except (yaml.YAMLError, LookupError, ValueError, RecursionError):  # the last three of tags with odd values
        raise ImprintError(f"{text}: not YAML; write NAME or '{{NAME: {{key: value}}}}'") from None
    try:
        return ScoreRef.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (text, *first["loc"])))
        raise ImprintError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _response(given: Any, asks: str) -> str | list[Option]:
    if asks == "loglikelihood":
        try:
            if not isinstance(given, list):
                raise TypeError
            return [Option(**option) for option in given]
        except TypeError:
            raise ImprintError(
                f'the field "response" holds {given!r:.80}; write a list with one '
                '{"text": ..., "logprob": nats, "tokens": count} an option'
            ) from None
    if not isinstance(given, str):
        raise ImprintError(f'the field "response" holds {type(given).__name__}; write text')
    return given


def verdicts(ref: ScoreRef, row: dict[str, Any]) -> dict[str, Any]:
    """One input row to one output row; raises `ImprintError` when a field is missing."""
    module = plugins.load("scores", ref.name)
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
    if not isinstance(example["reference"], dict):
        raise ImprintError(f'the field "reference" holds {example["reference"]!r:.80}; write an object')
    response = _response(row["response"], module.ASKS)
    # A judged score reads a judge's answers, which a row may bring along; without them its metrics are null.
    answers = [row.get("answers", {})] if hasattr(module, "QUESTIONS") else []
    found: list[Verdict] = verification.verdicts(ref.name, ref.settings, example, response, *answers)
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


def _rows(lines: Any, name: str, references: str | None) -> Any:
    """The numbered rows of a file, each with what the references hold for its prompt."""
    known: dict[Any, dict[str, Any]] = {}
    if references:
        with Path(references).open(encoding="utf-8") as file:
            known = {str(row.get("prompt")): row for _, row in json_lines.rows(file, references)}
    for number, row in json_lines.rows(lines, name):
        prompt = str(row.get("prompt"))
        if references and prompt not in known:
            raise ImprintError(f"{name}, line {number}: {references} has no prompt {prompt!r:.80}")
        yield number, {**known.get(prompt, {}), **row}


def main(arguments: list[str] | None = None) -> None:
    """Score a JSONL file (or standard input, `-`) and print JSONL."""
    parser = argparse.ArgumentParser(prog="python -m imprint.score", description="Score responses without a model.")
    parser.add_argument("score", help=f"one of: {', '.join(plugins.names('scores'))}")
    parser.add_argument("rows", help="a JSONL file, or - for standard input")
    parser.add_argument("--references", help="a JSONL file with the reference fields of each prompt")
    options = parser.parse_args(arguments)
    try:
        ref = score_named(options.score)
        if options.rows == "-" and sys.stdin is None:
            raise ImprintError("-: there is no standard input; write the path of a file")
        with sys.stdin if options.rows == "-" else Path(options.rows).open(encoding="utf-8") as lines:
            for number, row in _rows(lines, options.rows, options.references):
                try:
                    out = verdicts(ref, row)
                except ImprintError as error:
                    raise ImprintError(f"{options.rows}, line {number}: {error}") from None
                except bounded.Stumble as error:  # rows are written by hand, and a score relies on what a reader checks
                    raise ImprintError(
                        f"{options.rows}, line {number}: not what the score {ref.name} reads ({error}); compare its "
                        "fields with a row of a dataset"
                    ) from None
                except bounded.Failure as error:
                    out = {"unverified": str(error)}
                line = json.dumps({"row": number, **out}, ensure_ascii=False)
                print(OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", line), flush=True)  # the same JSON
    except UnicodeDecodeError as error:
        sys.exit(f"imprint.score: byte {error.start} of the input is not UTF-8; save it as UTF-8")
    except (ImprintError, OSError) as error:
        sys.exit(f"imprint.score: {shown(error)}")


if __name__ == "__main__":
    main()
