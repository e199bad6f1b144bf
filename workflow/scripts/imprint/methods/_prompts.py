"""The prompts of a fit that draws completions: its rows under its contexts, as the trainer takes them."""

from __future__ import annotations

from typing import Any

from imprint.methods import Fit
from imprint.models.chat_text import unanswered
from imprint.policies import answers
from imprint.policies.dialogue import Request, single
from imprint.policies.policy import Draw, Policy
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import canonical
from imprint.training.rewards import Reward


def ask(job: Fit, row: dict[str, Any]) -> Request:
    """The one request that the contexts make of a row, without the assistant turns at the row's end. Raises
    ImprintError if they make none or several."""
    try:
        return single(job.contexts, row, Request(unanswered(row["messages"])), job.inputs)
    except ImprintError as error:
        raise ImprintError(f"arm '{job.arm}': {error}") from error


def check_form(job: Fit) -> None:
    """Raise ImprintError for a reward for a form that the contexts do not ask for: no completion would have it."""
    form = answers.form(job.contexts)
    for term in job.settings.reward:
        wanted = plugins.load("scores", term.score).form(term.settings)
        if wanted is not None and wanted != form:
            raise ImprintError(
                f"arm '{job.arm}': the reward {term.score} asks for <{wanted}>, but the context asks for "
                f"{f'<{form}>' if form else 'no tags'}; write {{{term.score}: TAG}} with the style of the context"
            )


def prompts(job: Fit, policy: Policy, rewards: list[Reward]) -> tuple[list[dict[str, Any]], tuple[str, ...], int]:
    """The rows as the trainer takes them, the texts that end a completion, and the number of rows left out because a
    reward cannot judge their reference. Raises ImprintError for a prompt that does not fit into the model's positions,
    and if no row is left."""
    s, engine = job.settings, policy.engine
    rows, left_out, stop = [], 0, set()
    for row in job.inputs.datasets[s.data]:
        if any(reward.value(row, "") is None for reward in rewards):
            left_out += 1
            continue
        request = ask(job, row)
        stop.add(tuple(request.stop))
        try:
            prompt = policy.prompt_for(request, Draw(s.completion_tokens, s.temperature, s.top_p))
        except ImprintError as error:
            raise ImprintError(f"arm '{job.arm}': example {row['example_id']}: {error}") from error
        size = len(engine.tokens(prompt.text, prompt.breaks))
        if engine.limit is not None and size + s.completion_tokens > engine.limit:
            raise ImprintError(
                f"arm '{job.arm}': the prompt of example {row['example_id']} has {size} tokens, and with "
                f"completion_tokens: {s.completion_tokens} is beyond the model's {engine.limit} positions"
            )
        rows.append(
            {
                "prompt": prompt.text,
                "breaks": prompt.breaks,
                "example_id": row["example_id"],
                "messages": row["messages"],
                "reference": canonical(row.get("reference")),
                "fields": canonical(row.get("fields") or {}),
            }
        )
    for reward in rewards:
        reward.failed = 0
    if not rows:
        raise ImprintError(
            f"arm '{job.arm}': dataset '{job.settings.data}' has no row that the rewards can judge ({left_out} left "
            "out); check its references"
        )
    return rows, next(iter(stop)), left_out
