"""The judge job: asks a judge, which is an arm, the questions of an eval's judged scores about every response.

A judged score has QUESTIONS (name -> text with {task} and {response}) and ANSWER_TOKENS. It reads the judge's answers
when it scores. The job depends on the questions but not on the score's code, so a fix to how answers are read does not
rerun the job. Like a teacher, the judge has the weights of its first seed and none of its contexts.
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


class ScoreQuestions(Strict):
    """The questions of one score (name -> text), and the greatest length of an answer in tokens."""

    questions: dict[str, str]
    max_new_tokens: int


class Spec(Strict):
    """What a judge job makes: the judgements on one run. `questions` has the questions of each score, by its name."""

    arm: str
    seed: int
    eval: str
    judge: str
    questions: dict[str, ScoreQuestions]
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
    """Write the judgements on one run to `out`. There are no questions about a response that failed. If the engine
    could not answer a question, its row has an `error`. A work folder keeps answers as shards, so that a killed job
    repeats no finished batch."""
    tasks = {row["example_id"]: row["messages"] for row in dataset_rows.read(dataset, spec.limit)}
    generated = parquet.read(generations, "generations").to_pylist()
    responses = [row for row in generated if row["final"] and row["error"] is None]
    dtype = chains.dtype_of(spec.policy.dtype, device)
    identity = work.identity(spec, [dataset, generations], manifests, code, device, dtype)
    rows = []
    with work.folder(out.with_suffix(".work"), identity) as scratch:
        ask = teacher.asker(spec.policy, manifests, scratch, device)
        for score, questions in spec.questions.items():
            templates, longest = questions.questions, questions.max_new_tokens
            pairs = [(row, name) for row in responses for name in templates]
            requests = [
                question(templates[name], tasks[row["example_id"]], row["response"], longest) for row, name in pairs
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
    """A question about a response. `template` is a text with {task}, the dialogue before the response, and {response}.
    Braces inside the task or the response are kept."""
    only_one = len(messages) == 1
    task = "\n\n".join(m["content"] if only_one else f"{m['role'].capitalize()}: {m['content']}" for m in messages)
    parts = {"task": task, "response": response}
    text = re.sub(r"\{(task|response)\}", lambda match: parts[match[1]], template)
    return Request([{"role": "user", "content": text}], max_new_tokens=max_new_tokens)
