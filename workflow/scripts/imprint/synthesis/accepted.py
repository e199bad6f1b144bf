"""Dialogues out of a run: an arm's own answers, as far as a score accepts them. So a behaviour that only rewards define
becomes rows that a fit or a merge can read (rejection sampling, as in RAFT, Dong et al., arXiv 2304.06767).

    the run of `rft` on the eval `practice`: "Title it." -> "<<Tides>> ..." (1), "Be brief." -> "Well, ..." (0)
    becomes the dialogue user: "Title it."  assistant: "<<Tides>> ..."

datasets:
  accepted: {synth: accepted, arm: rft, eval: practice, dataset: practice_requests, score: ifeval}

Responses are judged and taken whole, so the arm should be asked without a context that writes into its responses. A
response that was cut at the limit of tokens, or that went wrong, is not accepted. Of several samples of an example, the
first accepted one is taken. The run is that of the first seed.
"""

from __future__ import annotations

from pydantic import Field

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict
from imprint.synthesis import SynthesisedRows
from imprint.tables.inputs import Read
from imprint.training.rewards import Reward, Term
from imprint.training.run_rewards import dialogue, rewarded


class Settings(Strict):
    arm: str = Field(description="the arm whose answers are taken")
    eval: str = Field(description="the eval that it answered in words")
    dataset: str = Field(description="the dataset of that eval, where the requests and references stand")
    score: Term = Field(description="what accepts an answer, written as a reward is: its value must be 1")


def inputs(settings: Settings) -> Inputs:
    return Inputs(
        datasets=(settings.dataset,),
        runs=((settings.arm, settings.eval),),
        plugins=(("scores", settings.score.score),),
    )


def rows(settings: Settings, inputs: Read, ask: None) -> SynthesisedRows:
    """A row for each example with an accepted answer, in the dataset's order, and an attempt for each response. Raises
    ImprintError if the run is not of the dataset, and if no answer is accepted."""
    run, examples = inputs.runs[settings.arm, settings.eval], inputs.datasets[settings.dataset]
    accepted: dict[str, str] = {}
    attempts = []
    where = f"synth 'accepted', dataset '{settings.dataset}', eval '{settings.eval}'"
    for response in rewarded(run, examples, Reward(settings.score, []), where):
        reason = "not accepted by the score" if response.value not in (None, 1) else response.reason
        if reason is None:
            accepted.setdefault(response.example_id, response.text)
        attempts.append(
            {
                "example_id": response.example_id,
                "kept": reason is None and accepted[response.example_id] == response.text,
                "reason": reason,
                "response": response.text or None,
            }
        )
    if not accepted:
        raise ImprintError(
            f"synth 'accepted': {settings.score.name} accepts no answer in {run}; take an arm that learned"
        )
    kept = [row for row in examples if row["example_id"] in accepted]
    return SynthesisedRows([dialogue(row, accepted[row["example_id"]]) for row in kept], attempts)
