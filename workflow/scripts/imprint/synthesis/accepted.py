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

from typing import Any

from pydantic import Field

from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict
from imprint.synthesis import SynthesisedRows
from imprint.tables.inputs import Read
from imprint.training.rewards import Reward, Term


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
    path = inputs.runs[settings.arm, settings.eval]
    examples = {row["example_id"]: row for row in inputs.datasets[settings.dataset]}
    reward = Reward(settings.score, [])
    accepted: dict[str, str] = {}
    attempts = []
    for response in parquet.read(path, "generations").to_pylist():
        example = examples.get(response["example_id"])
        if example is None:
            raise ImprintError(
                f"synth 'accepted': {path} answers rows that are not in '{settings.dataset}'; write the dataset of the "
                f"eval '{settings.eval}'"
            )
        if not response["final"]:
            continue
        reason = _reason(response, example, reward)
        if reason is None:
            accepted.setdefault(response["example_id"], response["response"])
        attempts.append(
            {
                "example_id": response["example_id"],
                "kept": reason is None and accepted[response["example_id"]] == response["response"],
                "reason": reason,
                "response": response["response"],
            }
        )
    if not accepted:
        raise ImprintError(
            f"synth 'accepted': {settings.score.name} accepts no answer in {path}; take an arm that learned"
        )
    return SynthesisedRows(
        [_dialogue(examples[name], accepted[name]) for name in examples if name in accepted], attempts
    )


def _reason(response: dict[str, Any], example: dict[str, Any], reward: Reward) -> str | None:
    """Why a response is not accepted; None if it is."""
    if response["error"] is not None or response["finish_reason"] is None:
        return "no written answer"
    if response["finish_reason"] == "length":
        return "cut at the limit of tokens"
    return (
        None
        if reward.value({**example, "state": None}, response["response"] or "") == 1
        else "not accepted by the score"
    )


def _dialogue(example: dict[str, Any], answer: str) -> dict[str, Any]:
    messages = [*example["messages"], {"role": "assistant", "content": answer}]
    return {**example, "messages": messages, "reference": None}
