"""`python -m imprint.score SCORE rows.jsonl`: verdicts on responses, without a model.

A row is a JSON object with `response` and the reference fields of a dataset row, beside `response` or under
`reference`. For IFEval these are `prompt`, `instruction_id_list` and `kwargs`, as in its own files. With `--references
FILE`, a row takes the fields that it lacks from the row of FILE with the same `prompt`. SCORE is written as in a
config, with settings if it has any: `ifeval`, or `{format: {tag: plan}}`.

The output is one JSON object for each row: the row's number and key, and each metric as a number, or as a list in item
order. `unverified` says why a check came to no verdict.

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

from imprint.config.references import ScoreRef
from imprint.runtime import plugins
from imprint.runtime.errors import OBEYED, ImprintError, shown
from imprint.scores import Option, Verdict
from imprint.scoring import bounded, verification
from imprint.tables import json_lines

NO_REFERENCE = frozenset(("response", "answers", "state", "messages", "fields", "strata", "cluster"))
"""Fields of a row that are not reference fields, if the row has no `reference`."""


def score_named(text: str) -> ScoreRef:
    """The score that a command line names, `NAME` or `{NAME: SETTINGS}`. Raises ImprintError for anything else."""
    try:
        written = yaml.safe_load(text)
    except (yaml.YAMLError, LookupError, ValueError, RecursionError):  # YAML tags with odd values raise the last three
        raise ImprintError(f"{text}: not YAML; write NAME or '{{NAME: {{key: value}}}}'") from None
    try:
        return ScoreRef.model_validate(written)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (text, *first["loc"])))
        raise ImprintError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _response(value: Any, asks: str) -> str | list[Option]:
    if asks == "loglikelihood":
        try:
            if not isinstance(value, list):
                raise TypeError
            return [Option(**option) for option in value]
        except TypeError:
            raise ImprintError(
                f'the field "response" holds {value!r:.80}; write a list with one '
                '{"text": ..., "logprob": nats, "tokens": count} an option'
            ) from None
    if not isinstance(value, str):
        raise ImprintError(f'the field "response" holds {type(value).__name__}; write text')
    return value


def verdicts(ref: ScoreRef, row: dict[str, Any]) -> dict[str, Any]:
    """The output row of one input row. Raises ImprintError if a field is missing or wrong, and `bounded.Failure` if the
    check comes to no verdict."""
    module = plugins.load("scores", ref.name)
    if "response" not in row:
        raise ImprintError('has no field "response"; add the text that is to be scored')
    beside = {key: value for key, value in row.items() if key not in NO_REFERENCE}
    example = {
        "example_id": str(row.get("key", row.get("example_id", ""))),
        "messages": row.get("messages") or [{"role": "user", "content": row.get("prompt", "")}],
        "reference": row.get("reference", beside),
        "fields": row.get("fields", {}),
        "state": row.get("state"),
    }
    if not isinstance(example["reference"], dict):
        raise ImprintError(f'the field "reference" holds {example["reference"]!r:.80}; write an object')
    response = _response(row["response"], module.ASKS)
    if module.QUESTIONS:  # a row may have a judge's answers; without them the metrics are null
        example["answers"] = row.get("answers", {})
    metrics: list[Verdict] = verification.verdicts(ref.name, ref.settings, example, response)
    out: dict[str, Any] = {key: row[key] for key in ("key", "example_id") if key in row}
    labels: dict[int, str | None] = {}
    for verdict in metrics:
        if verdict.item is None:
            out[verdict.metric] = verdict.value
        else:
            out.setdefault(verdict.metric, []).append(verdict.value)
            labels[verdict.item] = verdict.label
    if labels:
        out["labels"] = [labels[item] for item in sorted(labels)]
    if any(verdict.unparsed for verdict in metrics):
        out["unparsed"] = True
    return out


def _rows(lines: Any, name: str, references: str | None) -> Any:
    """(line number, row) of every row of a file, with the fields that the references have for its prompt."""
    by_prompt: dict[Any, dict[str, Any]] = {}
    if references:
        with Path(references).open(encoding="utf-8") as file:
            by_prompt = {str(row.get("prompt")): row for _, row in json_lines.rows(file, references)}
    for number, row in json_lines.rows(lines, name):
        prompt = str(row.get("prompt"))
        if references and prompt not in by_prompt:
            raise ImprintError(f"{name}, line {number}: {references} has no prompt {prompt!r:.80}")
        yield number, {**by_prompt.get(prompt, {}), **row}


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
                except bounded.Stumble as error:  # a score relies on a reader's checks, which are not run here
                    raise ImprintError(
                        f"{options.rows}, line {number}: not what the score {ref.name} reads ({error}); compare its "
                        "fields with a row of a dataset"
                    ) from None
                except bounded.Failure as error:
                    out = {"unverified": str(error)}
                line = json.dumps({"row": number, **out}, ensure_ascii=False)
                print(OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", line), flush=True)  # escaped: equal JSON
    except UnicodeDecodeError as error:
        sys.exit(f"imprint.score: byte {error.start} of the input is not UTF-8; save it as UTF-8")
    except (ImprintError, OSError) as error:
        sys.exit(f"imprint.score: {shown(error)}")


if __name__ == "__main__":
    main()
