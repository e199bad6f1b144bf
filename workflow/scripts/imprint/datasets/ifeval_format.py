"""Generated prompts in IFEval's format: a base request and one to three verifiable instructions, in our own words.

Training on `instructions: train` and testing on `instructions: held_out` measures how well instruction following
carries over to types never trained on. `part: test` of the trained types measures how well it carries over to new
requests.

    seed 0 -> "Explain how rain forms. Answer with less than 60 words."
    reference {"instruction_id_list": ["length_constraints:number_words"],
               "kwargs": [{"relation": "less than", "num_words": 60}], "prompt": ...}
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import Field

from imprint.instructions import INSTRUCTIONS
from imprint.instructions.requests import Request, questions, requests
from imprint.instructions.wording import ALONE, CLASHES, HELD_OUT, WORDINGS, sentence
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict

CONSTRAINED = "detectable_format:constrained_response"


class Settings(Strict):
    """What to generate; equal settings give equal rows, and a smaller n gives the first rows of a larger one."""

    n: int = Field(ge=1, description="Number of prompts.")
    instructions: Literal["train", "held_out", "all"] = Field(
        description="Which of the 25 instruction types: the 15 for training, the 10 held out, or all."
    )
    only: list[str] | None = Field(
        default=None, min_length=1, description="Of these types, only the ones named, such as [punctuation:no_comma]."
    )
    part: Literal["train", "test"] | None = Field(
        default=None,
        description="Which base requests; the parts share none. Unset: train for instructions: train, else test.",
    )
    per_prompt: int = Field(default=1, ge=1, le=3, description="Largest number of instructions in a prompt.")
    stated: bool = Field(
        default=True,
        description="Whether a prompt says its instructions. false leaves the request alone: the score then measures "
        "whether an answer follows them unasked, or asked in another place (context `instruction`).",
    )
    seed: int = Field(default=0, description="Seed of all draws.")


def types(which: Literal["train", "held_out", "all"]) -> list[str]:
    """The instruction ids of a side of the split, sorted."""
    return [name for name in sorted(INSTRUCTIONS) if which == "all" or (name in HELD_OUT) == (which == "held_out")]


def kinds(settings: Settings) -> tuple[str, frozenset[str]]:
    """The types of instructions that the rows can have."""
    pool = types(settings.instructions)
    return "instruction types", frozenset(name for name in pool if settings.only is None or name in settings.only)


def compatible(names: list[str]) -> bool:
    """Whether one prompt may hold all these instructions."""
    if len(names) == 1:
        return True
    alone = any(name in ALONE for name in names)
    return not alone and len(set(names)) == len(names) and all(len(clash & set(names)) < 2 for clash in CLASHES)


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """Settings.n rows. The types take turns as a prompt's first instruction, each with its own order of the base
    requests, so no type meets a request twice and no two prompts are equal. Raises ImprintError when n is larger than
    types x requests."""
    part = settings.part or ("train" if settings.instructions == "train" else "test")
    pool = types(settings.instructions)
    if unknown := sorted(set(settings.only or ()) - set(pool)):
        raise ImprintError(
            f"ifeval_format: '{unknown[0]}' is no type of instructions: {settings.instructions}; write some of: "
            f"{', '.join(pool)}"
        )
    pool = [name for name in pool if settings.only is None or name in settings.only]
    rng = Random(f"ifeval_format {settings.seed} {settings.instructions} {part}")
    columns = []
    for name in pool:
        subjects = questions(part) if name == CONSTRAINED else requests(part)
        columns.append([(name, subject) for subject in rng.sample(subjects, len(subjects))])
    pairs = [pair for turn in zip_longest(*columns) for pair in rng.sample(turn, len(turn)) if pair]
    if settings.n > len(pairs):
        raise ImprintError(
            f"ifeval_format cannot make n: {settings.n} different prompts with instructions: {settings.instructions} "
            f"and part: {part}; write n: {len(pairs)} or less"
        )
    for first, request in pairs[: settings.n]:
        row = _row(rng, first, request, pool, settings.per_prompt)
        yield row if settings.stated else {**row, "messages": [{"role": "user", "content": request.text}]}


def _row(rng: Random, first: str, request: Request, pool: list[str], per_prompt: int) -> dict[str, Any]:
    names = [first]
    for name in rng.sample(pool, len(pool))[: 0 if first in ALONE else None]:
        if len(names) < per_prompt and compatible([*names, name]):
            names.append(name)
    names = names[: rng.randint(1, per_prompt)]
    criteria = [WORDINGS[name].draw(rng, request) for name in names]
    pairs = zip(names, criteria, strict=True)
    sentences = [sentence(rng.choice(WORDINGS[name].phrasings), criterion) for name, criterion in pairs]
    prompt = " ".join([request.text, *sentences])
    return {
        "messages": [{"role": "user", "content": prompt}],
        "reference": {"instruction_id_list": names, "kwargs": criteria, "prompt": prompt},
        "fields": {},
        "strata": {"instruction": first, "split": "held_out" if first in HELD_OUT else "train"},
        "cluster": request.text,  # the same request stands in several rows, under other instructions
    }
