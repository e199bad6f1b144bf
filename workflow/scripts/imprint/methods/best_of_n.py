"""Best-of-n fine-tuning: of the responses of a run to each example, the model is trained on the one with the highest
score, as with `sft`. It is known as rejection sampling fine-tuning too, and is one round of RAFT (Dong et al., arXiv
2304.06767). Stiennon et al. (arXiv 2009.01325) take the best of n without training on it.

evals:
  draws: {dataset: practice, samples: 8, temperature: 1.0, arms: [base]}
arms:
  best: {parent: base, fit: {method: best_of_n, run: {arm: base, eval: draws}, score: ifeval, least: 1}}

Each seed reads the run of its own seed. Of equally good responses the first is taken. A response that is blank, that
was cut at the limit of tokens, or whose check came to no verdict is never taken.

The fit's contexts say how an example is put to the model and, as in `grpo`, which part of a response is judged. A
response is trained on whole. So where the run's arm answers under a context that has it write more than the answer, the
fit needs that context too.

Several rounds are a chain of arms: `again` has the parent `best`, and reads the run of `best`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pydantic import Field, model_validator

from imprint.methods import Fit, sft
from imprint.methods.sft import holds, makes, shared
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.plugins import Inputs, Strict
from imprint.training.rewards import Reward, Term
from imprint.training.run_rewards import Rewarded, dialogue, rewarded

__all__ = ["Settings", "fit", "holds", "inputs", "makes", "shared"]


class Run(Strict):
    """The responses of an arm to an eval."""

    arm: str = Field(description="the arm that answered")
    eval: str = Field(description="the eval that it answered in words, with `samples` responses an example")
    dataset: str = Field(description="the dataset of the eval; the config fills it in")


class Settings(sft.Recipe):
    run: Run = Field(description="the run whose responses are taken, `{arm: ARM, eval: EVAL}`")
    score: Term | None = Field(
        None,
        description="what says how good a response is, written as a reward of `grpo` is: NAME, NAME.METRIC (not the "
        "primary metric), or either with settings; null is the score of the eval, by its primary metric",
    )
    least: float | None = Field(
        None,
        description="the value that a response must reach; examples without such a response are left out. Null takes "
        "the best one, however bad; for a score of 0 and 1 write 1",
    )

    @model_validator(mode="after")
    def _has_a_score(self) -> Settings:
        if self.score is None:
            raise ValueError("score: the eval of the run only samples, so it has none; write `score: NAME`")
        return self


def inputs(settings: Settings) -> Inputs:
    """The run, the dataset that it answers, and the score."""
    return Inputs(
        datasets=(settings.run.dataset,),
        runs=((settings.run.arm, settings.run.eval),),
        plugins=(("scores", settings.score.score),) if settings.score else (),
    )


def best(responses: Iterable[Rewarded]) -> dict[str, Rewarded]:
    """Example -> the response with the highest value, of equal ones that with the lowest sample. An example whose
    responses have no value is left out."""
    found: dict[str, Rewarded] = {}
    for response in responses:
        if response.value is not None:
            other = found.get(response.example_id, response)
            found[response.example_id] = max(other, response, key=lambda one: (one.value, -one.sample))
    return found


def fit(job: Fit) -> dict[str, Any]:
    """Choose the responses, and train on them as `sft` does. Returns the metrics for the manifest. Raises ImprintError
    if no response is left to train on."""
    run, least = job.settings.run, job.settings.least
    where = f"arm '{job.arm}', dataset '{run.dataset}', eval '{run.eval}'"
    examples, reward = job.inputs.datasets[run.dataset], Reward(job.settings.score, job.contexts)
    responses = list(rewarded(job.inputs.runs[run.arm, run.eval], examples, reward, where))
    scored = best(responses)
    taken = {key: one for key, one in scored.items() if least is None or (one.value or 0.0) >= least}
    counts = {
        "dropped_rows": len(scored) - len(taken),
        "unscored_rows": len(examples) - len(scored),
        "responses": len(responses),
        "unscored_responses": sum(one.value is None for one in responses),
    }
    below = "" if least is None else f", {counts['dropped_rows']} dropped, since none of their responses has {least:g}"
    reasons = sorted(Counter(one.reason for one in responses if one.reason is not None).items())
    why = f" ({', '.join(f'{reason}: {number}' for reason, number in reasons)})" if reasons else ""
    summary = (
        f"{len(examples)} examples by {job.settings.score.name}: {len(taken)} kept{below}, {counts['unscored_rows']} "
        f"without a scored response; {counts['unscored_responses']} of {len(responses)} responses have no score{why}"
    )
    if not taken:
        raise ImprintError(
            f"{where}: {summary}; lower `least`, draw more `samples`, or take an arm that answers better"
        )
    print(shown(f"imprint: {job.arm} seed {job.seed}: {summary}"), file=sys.stderr, flush=True)
    rows = [dialogue(row, taken[row["example_id"]].text) for row in examples if row["example_id"] in taken]
    inputs_of_sft = replace(job.inputs, datasets={**job.inputs.datasets, run.dataset: rows})
    metrics = sft.on_rows(replace(job, inputs=inputs_of_sft), run.dataset)
    values = [one.value for one in taken.values() if one.value is not None]
    return {**metrics, **counts, "mean_score": sum(values) / len(values)}
