"""Generated IFEval-format prompts: split, determinism, and that every combination asked for can be met."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from imprint import instructions
from imprint.config import loading
from imprint.dag.experiment import Experiment
from imprint.dag.report_facts import of_eval
from imprint.datasets import ifeval_format as generator
from imprint.instructions.requests import questions, requests
from imprint.instructions.wording import ALONE, CLASHES, HELD_OUT, WORDINGS, sentence
from imprint.runtime.errors import ImprintError
from imprint.scores import ifeval
from imprint.tables import dataset_rows

CORE = "there is a tale to tell here and it is not the same as one told at home"


def make(**settings: Any) -> list[dict[str, Any]]:
    return list(generator.rows(generator.Settings(**settings), {}))


def test_evals_know_which_types_are_trained_on() -> None:
    made = {"generated": "ifeval_format", "n": 1}
    one = "startend:end_checker"
    raw: dict[str, Any] = {
        "models": {"tiny": {"wheel": "tiny==1.0", "sha256": "0" * 64}},
        "datasets": {
            "train": {**made, "instructions": "train"},
            "seen": {**made, "instructions": "train", "part": "test"},
            "new": {**made, "instructions": "held_out"},
            "both": {**made, "instructions": "all"},
            "real": {"catalog": "ifeval"},
            "other": {"bundled": "general.jsonl"},
        },
        "evals": {
            **{name: {"dataset": name, "score": "ifeval"} for name in ("seen", "new", "both", "real")},
            "other": {"dataset": "other", "score": "options"},
        },
        "arms": {"base": {"model": "tiny"}},
    }

    def told() -> dict[str, str]:
        found = Experiment(loading.parse(raw))
        assert not of_eval(found, "other").held_out
        return {name: of_eval(found, name).description for name in raw["evals"]}

    assert set(told().values()) == {""}, "nothing is trained"
    raw["arms"]["rft"] = {"parent": "base", "fit": {"method": "grpo", "data": "train", "reward": "ifeval"}}
    assert told() == {
        "seen": "instruction types trained on",
        "new": "held-out instruction types",
        "both": "10 of 25 instruction types held out",
        "real": "10 of 25 instruction types held out",
        "other": "",
    }
    assert of_eval(Experiment(loading.parse(raw)), "both").held_out == tuple(sorted(HELD_OUT))
    raw["datasets"]["train"]["only"] = [one]
    assert told()["seen"] == "14 of 15 instruction types held out", "what is trained on counts, not the split's name"


def whole(name: str, criteria: dict[str, Any]) -> str:
    """A response to an instruction that stands alone."""
    return {
        "combination:repeat_prompt": f"{criteria.get('prompt_to_repeat')} {CORE}",
        "combination:two_responses": f"{CORE}\n******\nNot so.",
        "detectable_format:constrained_response": "My answer is no.",
        "detectable_format:json_format": json.dumps({"tale": CORE}),
        "language:response_language": {
            "de": "Das Wetter ist heute schön und wir gehen mit den Kindern in den Garten.",
            "es": "El tiempo es muy bueno hoy y vamos al jardín con los niños de la escuela.",
            "fr": "Il fait très beau aujourd'hui et nous allons au jardin avec les enfants.",
            "it": "Oggi il tempo è molto bello e andiamo in giardino con i bambini della scuola.",
            "pt": "Hoje o tempo está muito bom e não vamos à escola com as crianças.",
            "ru": "Сегодня очень хорошая погода, и мы идём в сад вместе с детьми.",
        }.get(criteria.get("language", ""), ""),
    }[name]


def composed(asked: dict[str, dict[str, Any]]) -> str:
    """A response that meets several instructions at once, built from the criteria."""
    # Language detection needs some running text: capitals give it little to go by.
    short = asked.get("length_constraints:number_words", {}).get("relation") == "less than"
    text = CORE if short or "change_case:english_capital" not in asked else f"{CORE} {CORE} {CORE}"
    if given := asked.get("keywords:existence"):
        text += " " + " ".join(given["keywords"])
    for name, token, number, relation in (
        ("keywords:frequency", None, "frequency", "relation"),
        ("keywords:letter_frequency", None, "let_frequency", "let_relation"),
        ("change_case:capital_word_frequency", "AA", "capital_frequency", "capital_relation"),
        ("length_constraints:number_words", CORE, "num_words", "relation"),
    ):
        given = asked.get(name, {})
        if given.get(relation) == "at least":
            times = given[number] if token != CORE else given[number] // 10
            text += f" {given.get('keyword') or given.get('letter') or token}" * times
    text += " [note]" * asked.get("detectable_content:number_placeholders", {}).get("num_placeholders", 0)
    text += " *note*" * asked.get("detectable_format:number_highlighted_sections", {}).get("num_highlights", 0)
    if "detectable_format:title" in asked:
        text = f"<<note>> {text}"
    if (given := asked.get("length_constraints:number_sentences")) and given["relation"] == "at least":
        text += "." + " Is it so?" * given["num_sentences"]
    if given := asked.get("length_constraints:number_paragraphs"):
        text = "\n***\n".join([text, *["the rest of it"] * (given["num_paragraphs"] - 1)])
    if given := asked.get("length_constraints:nth_paragraph_first_word"):
        pieces = [text, *["the rest of it"] * (given["num_paragraphs"] - 1)]
        pieces[given["nth_paragraph"] - 1] = f"{given['first_word']} {pieces[given['nth_paragraph'] - 1]}"
        text = "\n\n".join(pieces)
    if given := asked.get("detectable_format:multiple_sections"):
        text = "\n".join(f"{given['section_spliter']} {at + 1}\n{text if not at else 'the rest'}" for at in range(9))
        text = text.split(f"\n{given['section_spliter']} {given['num_sections'] + 1}\n")[0]
    text += "\n* note" * asked.get("detectable_format:number_bullet_lists", {}).get("num_bullets", 0)
    if given := asked.get("detectable_content:postscript"):
        text += f"\n{given['postscript_marker']} note"
    if given := asked.get("startend:end_checker"):
        text += f"\n{given['end_phrase']}"
    if "change_case:english_capital" in asked:
        text = text.upper()
    if "change_case:english_lowercase" in asked:
        text = text.lower()
    return f'"{text}"' if "startend:quotation" in asked else text


def followed(row: dict[str, Any]) -> str:
    """A response that follows a generated row."""
    reference = row["reference"]
    asked = dict(zip(reference["instruction_id_list"], reference["kwargs"], strict=True))
    first = reference["instruction_id_list"][0]
    return whole(first, asked[first]) if first in ALONE else composed(asked)


def test_split_and_wordings_cover_the_25_types() -> None:
    assert set(WORDINGS) == set(instructions.INSTRUCTIONS)
    assert (len(generator.types("train")), len(generator.types("held_out")), len(generator.types("all"))) == (
        15,
        10,
        25,
    )
    assert not set(generator.types("train")) & set(generator.types("held_out"))
    for wording in WORDINGS.values():
        assert len(set(wording.phrasings)) >= 2
    assert set().union(*CLASHES) | ALONE | set(HELD_OUT) <= set(WORDINGS)
    families = {name.split(":")[0] for name in WORDINGS}
    for family in families - {"language", "punctuation"}:  # these have one member
        assert {name in HELD_OUT for name in WORDINGS if name.startswith(family)} == {True, False}


def test_base_requests() -> None:
    both = [requests("train"), requests("test")]
    texts = [{request.text for request in part} for part in both]
    assert not texts[0] & texts[1]
    assert len(texts[0] | texts[1]) == len(both[0]) + len(both[1]) >= 120
    assert all(len(set(request.words)) == 3 for part in both for request in part)
    assert not {request.text for request in questions("train")} & {request.text for request in questions("test")}


@pytest.mark.parametrize("which", ["train", "held_out", "all"])
@pytest.mark.parametrize("per_prompt", [1, 2, 3])
def test_rows_are_well_formed_and_can_be_followed(which: str, per_prompt: int) -> None:
    rows = make(n=150, instructions=which, per_prompt=per_prompt)
    allowed = set(generator.types(which))
    assert {row["strata"]["instruction"] for row in rows} == allowed
    for row in rows:
        reference = row["reference"]
        names = reference["instruction_id_list"]
        assert row["messages"] == [{"role": "user", "content": reference["prompt"]}]
        assert 1 <= len(names) <= per_prompt
        assert set(names) <= allowed
        assert generator.compatible(names)
        assert names[0] == row["strata"]["instruction"]
        assert row["strata"]["split"] == ("held_out" if names[0] in HELD_OUT else "train")
        for name, given in instructions.check_all(names, reference["kwargs"], "row"):
            known = {sentence(phrasing, given) for phrasing in WORDINGS[name].phrasings}
            assert any(text in reference["prompt"] for text in known)
        failed = [v for v in ifeval.score(row, followed(row), ifeval.Settings()) if v.value != 1.0]
        assert not failed, (reference, followed(row))
        assert ifeval.score(row, " ", ifeval.Settings())[1].value == 0.0


@pytest.mark.parametrize("size", [2, 3])
def test_every_allowed_combination_can_be_followed(size: int) -> None:
    rng = generator.Random("combinations")
    subjects = requests("train")
    groups = [list(names) for names in itertools.combinations(generator.types("all"), size)]
    groups = [names for names in groups if generator.compatible(names)]
    assert all(len(names) == size for names in groups)
    for names in groups if size == 2 else rng.sample(groups, 150):
        criteria = [WORDINGS[name].draw(rng, rng.choice(subjects)) for name in names]
        row = {"reference": {"instruction_id_list": names, "kwargs": criteria}}
        response = composed(dict(zip(names, criteria, strict=True)))
        failed = [v.label for v in ifeval.score(row, response, ifeval.Settings()) if v.value != 1.0]
        assert not failed, (failed, row, response)


def test_train_and_held_out_share_no_row_and_no_base_request() -> None:
    train = make(n=256, instructions="train")
    test = make(n=256, instructions="train", part="test")
    held_out = make(n=64, instructions="held_out")
    ids = [dataset_rows.ids({"messages": row["messages"], "reference": row["reference"]} for row in rows)
           for rows in (train, test, held_out)]  # fmt: skip
    assert [len(set(part)) for part in ids] == [256, 256, 64]
    assert not set(ids[0]) & (set(ids[1]) | set(ids[2]))
    unseen = tuple(request.text for request in requests("test") + questions("test"))
    assert not any(row["reference"]["prompt"].startswith(unseen) for row in train)
    assert all(row["reference"]["prompt"].startswith(unseen) for row in test + held_out)


def test_a_base_request_under_several_instructions_is_one_cluster() -> None:
    rows = make(n=64, instructions="train", part="test")
    base = {request.text for request in requests("test") + questions("test")}
    assert {row["cluster"] for row in rows} <= base
    assert all(row["reference"]["prompt"].startswith(row["cluster"]) for row in rows)
    assert len({row["cluster"] for row in rows}) < 64 == len({row["reference"]["prompt"] for row in rows})
    few = make(n=32, instructions="train", part="test")
    assert len({row["cluster"] for row in few}) == 22


def test_seed_and_size() -> None:
    assert make(n=64, instructions="all", per_prompt=3)[:20] == make(n=20, instructions="all", per_prompt=3)
    assert make(n=20, instructions="train") != make(n=20, instructions="train", seed=1)
    prompts = [row["reference"]["prompt"] for row in make(n=900, instructions="all", part="train", per_prompt=3)]
    assert len(set(prompts)) == 900


def test_too_many_rows_are_an_error_that_names_the_limit() -> None:
    with pytest.raises(ImprintError, match=r"write n: 380 or less"):
        make(n=381, instructions="held_out")
    assert len({row["reference"]["prompt"] for row in make(n=380, instructions="held_out")}) == 380


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 1, "per_prompt": 4}, {"n": 1, "part": "eval"}, {"n": 1, "x": 1}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        generator.Settings(**{"instructions": "train", **wrong})


def test_quick() -> None:
    start = time.process_time()
    make(n=256, instructions="train", per_prompt=3)
    assert time.process_time() - start < 0.5


FRESH = """
import json, sys
from imprint.datasets import ifeval_format as generator
rows = list(generator.rows(generator.Settings(n=100, instructions="all", per_prompt=3, seed=3), {}))
assert not {"torch", "transformers", "lm_eval", "nltk", "langdetect"} & set(sys.modules)
print(json.dumps(rows))
"""


def test_same_rows_in_every_process() -> None:
    outputs = []
    for seed in ("1", "2"):
        package = Path(instructions.__file__).parents[2]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(package)}
        run = subprocess.run([sys.executable, "-c", FRESH], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        outputs.append(json.loads(run.stdout))
    assert outputs[0] == outputs[1] == make(n=100, instructions="all", per_prompt=3, seed=3)


def test_an_instruction_that_is_not_stated_is_judged_all_the_same() -> None:
    keys = {"n": 12, "instructions": "train", "per_prompt": 2}
    said, unsaid = (list(generator.rows(generator.Settings(**keys, stated=stated), {})) for stated in (True, False))
    for one, other in zip(said, unsaid, strict=True):
        assert other["messages"] == [{"role": "user", "content": one["cluster"]}]
        assert {**one, "messages": None} == {**other, "messages": None}
