"""The judge job: asks a judge, which is an arm, the questions of an eval's judged scores about every response.

A judged score has QUESTIONS (name -> text with {task}, {response} and {other}) and ANSWER_TOKENS. It reads the judge's
answers when it scores. The job depends on the questions but not on the score's code, so a fix to how answers are read
does not rerun the job. Like a teacher, the judge has the weights of its first seed and none of its contexts.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field

from imprint.engines import Response, failed
from imprint.models.chat_text import Message
from imprint.policies import answers, policy, teacher
from imprint.policies.dialogue import Request
from imprint.runtime import parquet, work
from imprint.runtime.plugins import Plug, Strict
from imprint.tables import dataset_rows

Texts = dict[tuple[str, int], str]
"""(example, sample) -> what the judge is shown of the response."""


class ScoreQuestions(Strict):
    """The questions of one score (name -> text), the greatest length of an answer in tokens, and the (arm, eval) whose
    responses are shown as {other}, or None. Of a response the judge is shown what the contexts find in it: `contexts`
    in one that is judged, `against_contexts` in another's. Without contexts it is shown all of it."""

    questions: dict[str, str]
    max_new_tokens: int
    against: tuple[str, str] | None = None
    contexts: list[Plug] = Field([])
    against_contexts: list[Plug] = Field([])


class Spec(Strict):
    """What a judge job makes: the judgements on one run. `questions` has the questions of each score, by its name;
    `others` has the (arm, eval) of the runs that are shown beside this one, in the order of the rule's files."""

    arm: str
    seed: int
    eval: str
    judge: str
    questions: dict[str, ScoreQuestions]
    others: list[tuple[str, str]] = Field([])
    policy: policy.Spec
    limit: int | None


def run(
    *,
    manifests: list[Path],
    dataset: Path,
    generations: Path,
    others: list[Path],
    spec: Spec,
    out: Path,
    code: str,
    device: str,
    gpus: int = 1,
) -> None:
    """Write the judgements on one run to `out`. There are no questions about a response that failed. If the engine
    could not answer a question, or if there is no response to show beside the judged one, its row has an `error`. A
    work folder keeps answers as shards, so that a killed job repeats no finished batch."""
    tasks = {row["example_id"]: row["messages"] for row in dataset_rows.read(dataset, spec.limit)}
    files = dict(zip(spec.others, others, strict=True))
    ranks = policy.ranks(spec.policy, manifests, gpus)
    identity = work.identity(
        spec, [dataset, generations, *others], manifests, code, *policy.where(spec.policy, device, ranks)
    )
    rows = []
    with work.folder(out.with_suffix(".work"), identity) as scratch:
        ask = teacher.asker(spec.policy, manifests, scratch, device, ranks)
        for score, questions in spec.questions.items():
            judged = _texts(generations, questions.contexts)
            beside = _texts(files[questions.against], questions.against_contexts) if questions.against else {}
            asked = [
                (key, name, _request(questions, template, tasks[key[0]], text, beside.get(key)))
                for key, text in judged.items()
                for name, template in questions.questions.items()
            ]
            judge_answers = iter(ask([request for *_, request in asked if isinstance(request, Request)], score))
            for (example_id, sample), name, request in asked:
                answer = next(judge_answers) if isinstance(request, Request) else request
                rows.append(
                    {
                        **{"arm": spec.arm, "seed": spec.seed, "eval": spec.eval},
                        **{"example_id": example_id, "sample": sample},
                        **{"score": score, "question": name, "judge": spec.judge, "answer": answer.text},
                        **{"response_tokens": answer.response_tokens, "error": answer.error},
                    }
                )
        parquet.write(out, "judgements", rows)
        work.remove(scratch)


def _texts(generations: Path, contexts: list[Plug]) -> Texts:
    """What the contexts find in the responses of a run, without those that failed."""
    rows = parquet.read(generations, "generations").to_pylist()
    return {
        (row["example_id"], row["sample"]): answers.answer(contexts, row["response"])[0]
        for row in rows
        if row["final"] and row["error"] is None
    }


def _request(
    questions: ScoreQuestions, template: str, messages: list[Message], response: str, other: str | None
) -> Request | Response:
    """One question about a response, or the error that there is no response to show beside it."""
    if questions.against is not None and other is None:
        return failed("arm '{}' has no response on '{}' to show beside this one".format(*questions.against))
    return question(template, messages, response, questions.max_new_tokens, other or "")


def question(template: str, messages: list[Message], response: str, max_new_tokens: int, other: str = "") -> Request:
    """A question about a response. `template` is a text with {task}, the dialogue before the response, {response} and
    {other}. Braces inside these texts are kept. A text whose place is behind "> " is quoted, line by line, so that
    nothing in it can pass for a line of the question."""
    only_one = len(messages) == 1
    task = "\n\n".join(m["content"] if only_one else f"{m['role'].capitalize()}: {m['content']}" for m in messages)
    parts = {"task": task, "response": response, "other": other}

    def filled(match: re.Match[str]) -> str:
        text = parts[match[2]]
        return "\n".join(f"> {line}" for line in text.splitlines() or [""]) if match[1] else text

    text = re.sub(r"(?m)(^> )?\{(task|response|other)\}", filled, template)
    return Request([{"role": "user", "content": text}], max_new_tokens=max_new_tokens)
