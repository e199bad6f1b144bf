"""A row is known by its content, whatever file, name or annotation it comes with."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from random import Random
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import one_fit
from imprint.config import graph, loading
from imprint.dag import leakage
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.datasets import ifeval_format
from imprint.methods import sft
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs
from imprint.tables import contamination, content, dataset_rows, overlap


def row(*turns: str, reference: object = None, **fields: str) -> dict:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return {"messages": messages, "reference": reference, "fields": fields}


def plain(text: str) -> dict:
    return {"messages": [], "reference": {"options": [text]}}


def shared(train: list[dict], held_out: list[dict], near: bool = True) -> list[overlap.Match]:
    return contamination.shared(dataset_rows.identified(train), dataset_rows.identified(held_out), near)


def words(n: int, first: int = 0) -> str:
    """n different words."""
    return " ".join(f"w{i}" for i in range(first, first + n))


PASSAGE = (
    "The barn owl is among the most widespread of all land birds. Its pale face works like a dish, gathering faint "
    "sounds. Barn owls do not hoot; their usual call is a long, rasping shriek that inspired many ghost stories."
)
QUESTION = "Why do the tides follow the moon, and not the sun?"


def test_case_punctuation_and_annotations_do_not_hide_a_row() -> None:
    train = [row("How do tides   work?", "By gravity.", role_prompt="You are a sailor.")]
    assert shared(train, [row("how do tides work")])
    assert not shared(train, [row("how do winds work")])


def test_a_later_turn_counts_but_a_stock_phrase_does_not() -> None:
    train = [
        row("Tell me about the moon.", "It is far.", "Go on.", "It is grey.", "And how do tides work then?", "Well.")
    ]
    assert shared(train, [row("And how do tides work then?")])
    assert not shared(train, [row("Tell me about Mars, please.", "Red.", "Go on.")])


@pytest.mark.parametrize("reference", [None, {}, {"options": None}, {"options": 5}, {"options": [1]}])
def test_odd_references_are_left_to_the_scores(reference: dict | None) -> None:
    odd = {"messages": [], "reference": reference}
    assert content.asked(odd) == content.held_out(odd) == content.trained_on(odd)
    assert content.asked(odd) in (set(), {"1"})


def test_plain_text_is_known_by_itself() -> None:
    passage = plain("The sea was calm that night.")
    assert shared([passage], [passage])
    assert shared([row("The sea was calm that night")], [passage])


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        (row("Tell me about owls.", PASSAGE), plain(PASSAGE)),
        ({"messages": [{"role": "system", "content": QUESTION}, *row("Go on.", "Well.")["messages"]]}, row(QUESTION)),
        (row("Ask me something.", QUESTION), row(QUESTION)),
        (row("Ask me something.", "No.", role_prompt=QUESTION), row(QUESTION)),
        (row("Explain it.", PASSAGE), row("What is known of barn owls?", reference={"solution": {"text": PASSAGE}})),
        (row("Explain it.", PASSAGE), row("What is known of barn owls?", PASSAGE)),
    ],
    ids=["a passage as an answer", "system", "assistant", "role prompt", "a long reference", "a long answer"],
)
def test_every_turn_is_read(train: dict, held_out: dict, near: bool) -> None:
    (match,) = shared([row("Something else is asked here."), train], [held_out, row("And here is another one?")], near)
    assert match.equal and match.overlap == 1
    expected = [dataset_rows.identified([one])[0]["example_id"] for one in (held_out, train)]
    assert [match.example_id, match.train_example_id] == expected


@pytest.mark.parametrize("text", [QUESTION, PASSAGE, "How do tides work?"], ids=["question", "passage", "short"])
@pytest.mark.parametrize(("before", "after"), [("Please tell:", ""), ("", "Thank you!"), (words(300), words(300))])
def test_words_around_it_do_not_hide_a_text(text: str, before: str, after: str) -> None:
    for train in (row(f"{before} {text} {after}"), row("Say it.", f"{before} {text} {after}")):
        (match,) = shared([train], [row(text)])
        assert match.overlap == 1 and not match.equal
        assert not shared([train], [row(text)], near=False)


def test_what_is_short_or_only_alike_is_no_leak() -> None:
    assert not shared([row("Well, go on then, please.")], [row("Go on.")]), "three words are compared as a whole"
    assert not shared([row("Name a planet.", "Mars, of course.")], [row("Mars?")])
    assert not shared([row("How do tides really work?")], [row("How do tides work?")])
    assert not shared([row("What?", "Mercury")], [row("Which planet?", reference={"options": ["Mercury"]})])
    answer = {"options": ["a", "b"], "why": "It is the nearest one to the sun of all."}
    assert not shared([row("What?", answer["why"])], [row("Which planet is it?", reference=answer)])
    assert not shared([row("Where is it?", reference={"why": PASSAGE})], [plain(PASSAGE)]), "no words to train on"


@pytest.mark.parametrize(("n", "leaks"), [(7, False), (8, False), (9, False), (10, True), (11, True), (20, True)])
def test_half_of_a_text_is_a_near_copy(n: int, leaks: bool) -> None:
    for start in (0, 20 - n):
        matches = shared([row(f"Please read {words(n, start)} aloud")], [row(words(20))])
        assert bool(matches) == leaks
        assert [match.overlap for match in matches] == ([pytest.approx(n / 20)] if leaks else [])


def test_one_changed_word_leaves_the_rest_covered() -> None:
    changed = f"{words(10)} other {words(19, 11)}"
    (match,) = shared([row(changed)], [row(words(30))])
    assert match.overlap == pytest.approx(29 / 30)


def test_two_rows_do_not_add_up() -> None:
    parts = [row(words(9)), row(words(9, 9))]
    assert not shared(parts, [row(words(19))])
    both = row(words(9), words(9, 9))
    assert shared([both], [row(words(19))])[0].overlap == pytest.approx(18 / 19)


def test_of_several_rows_the_one_that_covers_most_is_named() -> None:
    train = dataset_rows.identified([row(words(12)), row(f"Read {words(20)}"), row(words(15)), row("Read it.", "No.")])
    (match,) = contamination.shared(train, dataset_rows.identified([row(words(20))]))
    assert match.train_example_id == train[1]["example_id"] and match.overlap == 1


INSTRUCTION = "Think about it step by step and put the final answer into a box at the end."


def test_what_many_rows_say_is_nobodys_text() -> None:
    train = [row(f"{words(6, 10 * i)}? {INSTRUCTION}") for i in range(20)]
    asks_something_else = row(f"Why is the sky so blue today? {INSTRUCTION}")
    assert shared(train[:1], [asks_something_else]), "one row alone does not show that the instruction is one"
    assert not shared(train, [asks_something_else])
    (match,) = shared(train, [row(f"Well: {words(6, 50)}? {INSTRUCTION}")])
    assert match.overlap > 0.5
    assert shared([*train, row("Go on.", asks_something_else["messages"][0]["content"])], [asks_something_else])


def test_copies_of_a_leak_do_not_hide_it() -> None:
    text = f"{words(15)} {words(10, 100)}"
    for train in ([row(words(15))] * 50, [row(f"{words(3, 1000 + 10 * i)} {text}") for i in range(50)]):
        assert shared(train, [row(text)])


def test_rows_of_one_generator_are_compared_as_wholes() -> None:
    raw = {"n": 300, "instructions": "all", "per_prompt": 1}
    train, test = (list(ifeval_format.rows(ifeval_format.Settings(**raw, part=part), {})) for part in ("train", "test"))
    assert shared(train[:4] + test[:5], test, near=False) == shared(test[:5], test, near=False) != []
    made = loading.load([Path("tests/real.yaml")])
    assert graph.generators(made, "outlines") == set()
    assert graph.generators(made, "constraints") == {"ifeval_format"}
    assert not graph.near_copies_count(made, "constraints", "constraints_seen")
    assert graph.near_copies_count(made, "constraints", "household")
    assert graph.near_copies_count(made, "dialogues", "dialogues_shuffled")
    synthesised = made.model_copy(update={"datasets": {**made.datasets, "dialogues": made.datasets["constraints"]}})
    assert not graph.near_copies_count(synthesised, "dialogues_shuffled", "constraints_seen"), "it is made from them"


TEXTS = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=30).map(" ".join)
ROWS = st.lists(st.tuples(TEXTS, TEXTS).map(lambda turns: row(*turns)), min_size=1, max_size=8)


@given(ROWS, ROWS)
def test_a_row_always_finds_itself(train: list[dict], others: list[dict]) -> None:
    held_out = dataset_rows.identified([r for r in train if content.asked(r)])
    matches = contamination.shared(dataset_rows.identified([*others, *train]), held_out)
    assert [match.example_id for match in matches] == [r["example_id"] for r in held_out]
    assert all(match.equal and match.overlap == 1 for match in matches)


@given(ROWS, TEXTS.filter(lambda text: text.count(" ") >= 3), st.randoms())
def test_a_text_is_found_within_a_row_whatever_its_words_weigh(train: list[dict], text: str, rng: Random) -> None:
    holder = row("What?", f"{words(rng.randrange(9))} {text} {words(rng.randrange(9))}")
    (match,) = shared([*train, holder], [row(text)])
    assert match.overlap == pytest.approx(1)


@given(ROWS, ROWS, st.randoms())
def test_the_order_of_rows_does_not_matter(train: list[dict], held_out: list[dict], rng: Random) -> None:
    train, held_out = dataset_rows.identified(train), dataset_rows.identified(held_out)
    matches = contamination.shared(train, held_out)
    rng.shuffle(train)
    rng.shuffle(held_out)
    assert sorted(contamination.shared(train, held_out)) == sorted(matches)


@given(ROWS, TEXTS)
def test_more_words_lower_the_overlap(train: list[dict], text: str) -> None:
    def share(n: int) -> float:
        return next((match.overlap for match in shared(train, [row(f"{text} {words(n)}")])), 0.0)

    shares = [share(n) for n in range(0, 40, 3)]
    assert all(after <= before + 1e-9 for before, after in pairwise(shares)) and shares[-1] == 0


@given(ROWS, st.lists(TEXTS, min_size=1, max_size=5))
def test_other_words_are_no_leak(train: list[dict], texts: list[str]) -> None:
    held_out = [row(" ".join(f"other_{word}" for word in text.split())) for text in texts]
    assert not shared(train, held_out)


@given(ROWS, ROWS)
def test_the_lookup_misses_nothing(train: list[dict], held_out: list[dict]) -> None:
    """Every training row is tried on every text, without an index of the telling n-grams."""
    matches = shared(train, held_out)
    with mock.patch.object(overlap, "_telling", lambda grams, weights: set(grams)):
        assert shared(train, held_out) == matches


def test_large_sets_are_compared_in_seconds() -> None:
    rng = Random(0)
    vocabulary = words(5000).split()

    def text(n: int) -> str:
        return " ".join(rng.choices(vocabulary, k=n))

    held_out = [(f"e{i}", [text(60)]) for i in range(1000)]
    train = [(f"t{i}", [f"{text(150)} {held_out[i][1][0] if i < 10 else ''} {text(150)}"]) for i in range(5000)]
    before = time.process_time()
    matches = overlap.matches(train, held_out)
    assert [(match.example_id, match.train_example_id) for match in matches] == [(f"e{i}", f"t{i}") for i in range(10)]
    assert time.process_time() - before < 30, "about 1.5 s"


def test_the_job_stops_or_writes_the_tables(tmp_path: Path) -> None:
    near = row("Please tell me, one two three four five six seven eight?", "Go.")
    held_out = [row("One two, three four"), row("One two three four five six seven eight"), row("Another one is here.")]
    for name, rows in {"train": [row("One two three four?", "1"), near], "test": held_out}.items():
        dataset_rows.write(tmp_path / f"{name}.parquet", name, rows, "0")
    train, test = (str(tmp_path / f"{name}.parquet") for name in ("train", "test"))
    strict, allowed, whole = (
        contamination.Pair(
            arm="a1", dataset="train", train=train, transductive=transductive, eval="e1", held_out=test, near=near
        )
        for transductive, near in ((False, True), (True, True), (True, False))
    )
    out, rows_out = tmp_path / "out.parquet", tmp_path / "rows.parquet"
    first, second = (dataset_rows.identified([held_out[i]])[0]["example_id"] for i in (0, 1))
    sources = [r["example_id"] for r in dataset_rows.read(Path(train))]
    said = (
        rf"arms\.a1: trains on 'train', which shares 2 row\(s\) with the eval 'e1', 1 word for word and 1 as a near "
        rf"copy: {first} \('One two, three four'\) in {sources[0]}, {second} \('One .* eight'\) "
        rf"in {sources[1]} to 100%; take"
    )
    with pytest.raises(ImprintError, match=said):
        contamination.run(contamination.Spec(pairs=[strict]), out, rows_out)
    assert not out.exists() and not rows_out.exists()
    contamination.run(contamination.Spec(pairs=[allowed, whole]), out, rows_out)
    pairs = parquet.read(out, "contamination").to_pylist()
    assert [(pair["n_train"], pair["n_eval"], pair["n_shared"], pair["n_near"]) for pair in pairs] == [
        (2, 3, 1, 1),
        (2, 3, 1, 0),
    ]
    listed = parquet.read(rows_out, "contamination_rows").to_pylist()
    names = {"arm": "a1", "dataset": "train", "eval": "e1"}
    equal = {**names, "example_id": first, "train_example_id": sources[0], "overlap": 1.0, "equal": True}
    assert listed == [
        equal,
        {**equal, "example_id": second, "train_example_id": sources[1], "equal": False},
        equal,
    ]


def test_what_an_eval_holds_can_be_left_out() -> None:
    question = words(20)
    held_out = {"e1": [row(question)], "e2": [row(words(12, 200)), row(QUESTION)]}
    held_out = {name: dataset_rows.identified(rows) for name, rows in held_out.items()}
    copies = [row(f"Please read {question} aloud"), row(f"Now read {question} aloud"), row(question, "One answer.")]
    others = [row(words(20, 400)), row("Ask me something.", f"Well: {words(12, 200)}?")]
    train = dataset_rows.identified([*copies, *others, row(question, "One answer.")])
    kept, dropped = contamination.without(train, held_out)
    assert kept == [train[3]] and list(dropped.values()).count("e1") == 4 and dropped[train[4]["example_id"]] == "e2"
    assert contamination.without(kept, held_out) == (kept, {}) and contamination.without(train, {}) == (train, {})


@given(ROWS, ROWS, ROWS)
@settings(deadline=None)
def test_nothing_is_found_in_what_is_left(train: list[dict], one: list[dict], two: list[dict]) -> None:
    train = dataset_rows.identified(train)
    held_out = {"one": dataset_rows.identified(one), "two": dataset_rows.identified(two)}
    kept, dropped = contamination.without(train, held_out)
    assert not any(contamination.shared(kept, rows) for rows in held_out.values())
    assert [r for r in train if r["example_id"] not in dropped] == kept and set(dropped.values()) <= set(held_out)


def test_a_set_without_an_evals_rows_passes_the_check() -> None:
    raw = one_fit()
    raw["arms"]["tuned"]["fit"]["data"] = "general"
    with pytest.raises(ImprintError, match=r"trains on 'general', .* \(`synth: without`\)"):
        leakage.check(loading.parse(raw))
    raw["datasets"] |= {
        "made": {"generated": "ifeval_format", "n": 40, "instructions": "all", "part": "test"},
        "mixed": {"synth": "without", "from": "dialogues", "rows_of": ["general", "made"]},
    }
    raw["arms"]["tuned"]["fit"]["data"] = "mixed"
    raw["evals"]["made"] = {"dataset": "made", "score": "ifeval"}
    config = loading.parse(raw)
    rows = leakage.check(config)
    assert rows["mixed"] == rows["dialogues"], "these share nothing"
    assert graph.comes_from(config, "mixed") == ["dialogues"] and graph.left_out(config, "mixed") == ("general", "made")
    assert graph.generators(config, "mixed") == set() and graph.near_copies_count(config, "mixed", "made")
    raw["datasets"]["half"] = {"synth": "without", "from": "general", "rows_of": ["general"]}
    raw["arms"]["tuned"]["fit"]["data"] = "half"
    with pytest.raises(ImprintError, match="dataset 'general': general hold all of its 200 rows"):
        leakage.check(loading.parse(raw))


def test_a_message_names_the_first_few() -> None:
    rows = dataset_rows.identified([row(words(20, 100 * i)) for i in range(9)])
    told = contamination.message("a", "d", "e", rows, contamination.shared(rows, rows))
    assert [r["example_id"] in told for r in rows] == [True] * 3 + [False] * 6
    assert "shares 9 row(s) with the eval 'e', 9 word for word and 0 as a near copy" in told and ", ...;" in told


def test_a_fit_on_the_runs_of_an_eval_trains_on_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    made = loading.parse(one_fit())
    leakage.check(made)
    monkeypatch.setattr(sft, "inputs", lambda settings: Inputs(runs=(("base", "general"),)))
    with pytest.raises(ImprintError, match=r"arms\.tuned: trains on 'general', which shares 200 row"):
        leakage.check(made)
    assert ("tuned", "general") in Experiment(made).trainings
    (pair,) = all_jobs(Experiment(made))["check_leakage"].spec(()).pairs
    assert (pair.arm, pair.dataset, pair.eval, pair.transductive) == ("tuned", "general", "general", False)
