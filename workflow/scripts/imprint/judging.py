"""The judge job: puts the questions of an eval's judged scores to a judge, which is an arm, about every response.

A judged score has QUESTIONS (name -> text with {task} and {response}) and ANSWER_TOKENS; it reads the answers when it
scores. The questions are params of this job and the score's code is none, so that a fix to how answers are read asks
nothing again. As a teacher, the judge is asked with its weights at the first seed, outside its own context.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from imprint import generation, models, tables, work
from imprint.contexts import Message, Request
from imprint.identity import file_sha256, fingerprint, read_manifest


def run(
    *,
    manifests: list[Path],
    dataset: Path,
    generations: Path,
    spec: dict[str, Any],
    out: Path,
    code: list[Path],
    device: str,
) -> None:
    """Write the judgements on one run. `spec` has arm, seed, eval, judge, limit, engine, and `questions`: score -> its
    "questions" and "max_new_tokens". A response that is missing is not asked about; an answer that the engine could not
    give is a row with `error`. The answers are kept as shards, so a killed job asks only for the rest."""
    identity = {
        "spec": spec,
        "data": [file_sha256(dataset), file_sha256(generations)],
        "judge": [read_manifest(path)["fingerprint"] for path in manifests],
        "code": work.sums(code),
    }
    tasks = {row["example_id"]: row["messages"] for row in tables.read_dataset(dataset, spec["limit"])}
    found = tables.read(generations, "generations").to_pylist()
    responses = [row for row in found if row["final"] and row["error"] is None]
    rows = []
    here = [device, models.dtype_of(spec["engine"]["dtype"], device)]
    with work.folder(out.with_suffix(".work"), fingerprint({**identity, "device": here})) as scratch:
        ask = generation.asker(manifests, spec["engine"], scratch, device)
        for score, asked in spec["questions"].items():
            pairs = [(row, name) for row in responses for name in asked["questions"]]
            requests = [
                question(asked["questions"][name], tasks[row["example_id"]], row["response"], asked["max_new_tokens"])
                for row, name in pairs
            ]
            for (row, name), answer in zip(pairs, ask(requests, score), strict=True):
                rows.append(
                    {
                        **{key: row[key] for key in ("arm", "seed", "eval", "example_id", "sample")},
                        **{"score": score, "question": name, "judge": spec["judge"], "answer": answer.text},
                        **{"response_tokens": answer.response_tokens, "error": answer.error},
                    }
                )
        tables.write(out, "judgements", rows)
        work.remove(scratch)


def question(template: str, messages: list[Message], response: str, max_new_tokens: int) -> Request:
    """One question about one response. What stands in braces inside the task or the response stays as it is."""
    alone = len(messages) == 1
    task = "\n\n".join(m["content"] if alone else f"{m['role'].capitalize()}: {m['content']}" for m in messages)
    given = {"task": task, "response": response}
    text = re.sub(r"\{(task|response)\}", lambda match: given[match[1]], template)
    return Request([{"role": "user", "content": text}], max_new_tokens=max_new_tokens)
