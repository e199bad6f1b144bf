"""IFEval: does a response follow the verifiable instructions of its prompt?

Paper: Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models. The verdicts equal those of its
scorer (google-research, instruction_following_eval), except on two prompts that count a character beyond a-z.

Strict: the checker accepts the response as it is. Loose: the checker accepts at least one variant of the response, out
of {complete, without first line, without last line, without both} x {as it is, every `*` deleted}. A response that is
blank or longer than 200,000 characters follows nothing. A prompt is passed if all its instructions are; with the loose
criterion, each instruction may pass on another variant. Each instruction has a verdict of its own, so the mean over all
verdicts is the pooled rate of the paper.

    reference {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}, response "Well, yes.\\nYes."
    -> prompt_strict 0, prompt_loose 1, instruction_strict 0 and instruction_loose 1 with item 0
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from imprint import instructions
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.scores import LONGEST, Reads, Verdict

ASKS = "generate"
VERSION = "1"
PRIMARY = "prompt_strict"
METRICS = {"prompt_strict": 1, "prompt_loose": 1, "instruction_strict": 1, "instruction_loose": 1}


class Settings(Strict):
    """Nothing to set: the rules are the benchmark's."""


class Reference(Reads):
    instruction_id_list: list[str] = Field(description="the ids of the prompt's instructions")
    kwargs: list[dict[str, Any]] = Field(description="the criteria of each instruction, as IFEval's own file has them")

    @model_validator(mode="after")
    def _can_be_judged(self) -> Reference:
        try:
            instructions.check_all(self.instruction_id_list, self.kwargs, "instruction_id_list")
        except ImprintError as error:
            raise ValueError(str(error)) from None
        return self


def variants(response: str) -> list[str]:
    """The distinct non-blank texts that the loose criterion tries, the response itself first."""
    lines = response.split("\n")
    cuts = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [text for text in dict.fromkeys([*cuts, *(cut.replace("*", "") for cut in cuts)]) if text.strip()]


def follows(instruction: str, kwargs: dict[str, Any], texts: list[str]) -> tuple[bool, bool]:
    """(strict, loose) for one instruction; `texts` are `variants` of a response that is not blank."""
    from imprint.instructions.checkers import checker

    # One checker for all variants, because a new one could have another criterion.
    check = checker(instruction, kwargs)
    strict = bool(check.check_following(texts[0]))
    return strict, strict or any(check.check_following(text) for text in texts[1:])


def warm() -> None:
    """Import the checkers and the tables that they read."""
    criteria: dict[str, dict[str, Any]] = {
        "language:response_language": {"language": "en"},
        "length_constraints:number_sentences": {"relation": "at least", "num_sentences": 1},
    }
    for name, kwargs in criteria.items():
        follows(name, kwargs, ["A sentence. Another one."])


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """Verdicts of 0 or 1: two for the prompt, then two for each instruction with its index as `item` and its id as
    `label`."""
    reference = row["reference"]
    pairs = instructions.check_all(reference["instruction_id_list"], reference["kwargs"], "reference")
    if len(response) <= LONGEST and response.strip():
        texts = variants(response)
        results = [follows(name, kwargs, texts) for name, kwargs in pairs]
    else:
        results = [(False, False)] * len(pairs)
    verdicts = [
        Verdict("prompt_strict", float(all(strict for strict, _ in results))),
        Verdict("prompt_loose", float(all(loose for _, loose in results))),
    ]
    for item, ((name, _), (strict, loose)) in enumerate(zip(pairs, results, strict=True)):
        verdicts.append(Verdict("instruction_strict", float(strict), item, name))
        verdicts.append(Verdict("instruction_loose", float(loose), item, name))
    return verdicts


def required(row: dict[str, Any]) -> list[str]:
    """The criteria of each instruction: "relation at least, num words 30"."""
    return [
        ", ".join(f"{name.replace('_', ' ')} {_words(value)}" for name, value in kwargs.items() if value is not None)
        for kwargs in row["reference"]["kwargs"]
    ]


def faults(row: dict[str, Any], item: int, response: str) -> list[tuple[int, int]]:
    """Where a response breaks an instruction that is broken at a place."""
    from imprint.instructions import faults as instruction

    reference = row["reference"]
    return instruction.faults(reference["instruction_id_list"][item], reference["kwargs"][item], response)


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
