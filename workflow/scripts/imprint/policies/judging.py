"""The judge job: puts the questions of an eval's judged scores to a judge, which is an arm, about every response.

A judged score has QUESTIONS (name -> text with {task} and {response}) and ANSWER_TOKENS; it reads the answers when it
scores. The questions are params of this job and the score's code is none, so that a fix to how answers are read asks
nothing again. As a teacher, the judge is asked with its weights at the first seed, outside its own context.
"""

from __future__ import annotations

import re
from pathlib import Path

from imprint.models import chains
from imprint.models.chat_text import Message
from imprint.policies import policy, teacher
from imprint.policies.dialogue import Request
from imprint.runtime import parquet, work
from imprint.runtime.plugins import Strict
from imprint.tables import dataset_rows


class Asked(Strict):
    """What one score asks: name -> text, and the longest answer in tokens."""

    questions: dict[str, str]
    max_new_tokens: int


class Spec(Strict):
    """What a judge job makes: the judgements on one run. `questions` is by score."""

    arm: str
    seed: int
    eval: str
    judge: str
    questions: dict[str, Asked]
    policy: policy.Spec
    limit: int | None


def run(
    *,
    manifests: list[Path],
    dataset: Path,
    generations: Path,
    spec: Spec,
    out: Path,
    code: str,
    device: str,
) -> None:
    """Write the judgements on one run. A response that is missing is not asked about; an answer that the engine could
    not give is a row with `error`. The answers are kept as shards, so a killed job asks only for the rest."""
    tasks = {row["example_id"]: row["messages"] for row in dataset_rows.read(dataset, spec.limit)}
    generated = parquet.read(generations, "generations").to_pylist()
    responses = [row for row in generated if row["final"] and row["error"] is None]
    dtype = chains.dtype_of(spec.policy.dtype, device)
    identity = work.identity(spec, [dataset, generations], manifests, code, device, dtype)
    rows = []
    with work.folder(out.with_suffix(".work"), identity) as scratch:
        ask = teacher.asker(spec.policy, manifests, scratch, device)
        for score, asked in spec.questions.items():
            pairs = [(row, name) for row in responses for name in asked.questions]
            requests = [
                question(asked.questions[name], tasks[row["example_id"]], row["response"], asked.max_new_tokens)
                for row, name in pairs
            ]
            for (row, name), answer in zip(pairs, ask(requests, score), strict=True):
                rows.append(
                    {
                        **{key: row[key] for key in ("arm", "seed", "eval", "example_id", "sample")},
                        **{"score": score, "question": name, "judge": spec.judge, "answer": answer.text},
                        **{"response_tokens": answer.response_tokens, "error": answer.error},
                    }
                )
        parquet.write(out, "judgements", rows)
        work.remove(scratch)


def question(template: str, messages: list[Message], response: str, max_new_tokens: int) -> Request:
    """One question about one response. What stands in braces inside the task or the response stays as it is."""
    alone = len(messages) == 1
    task = "\n\n".join(m["content"] if alone else f"{m['role'].capitalize()}: {m['content']}" for m in messages)
    parts = {"task": task, "response": response}
    text = re.sub(r"\{(task|response)\}", lambda match: parts[match[1]], template)
    return Request([{"role": "user", "content": text}], max_new_tokens=max_new_tokens)
