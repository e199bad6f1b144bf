"""Which examples of an eval a training set also holds: word for word, or as a near copy.

Near copies are judged as in Tulu 3 (Lambert et al. 2024, arXiv 2411.15124): a word of the eval's text is covered by a
training row if 8 words in a row around it are also in one of the row's texts, and a text is a near copy if half of it
is covered by one training row. A text of 4 to 7 words is covered where a text of the row contains it; a shorter one is
only compared as a whole.

Words that many rows say tell no example from another: "express your answer as a common fraction". GPT-3 (Brown et al.
2020, arXiv 2005.14165, appendix C) leaves out n-grams that are in more than ten training documents, and decon
(github.com/allenai/decon) weighs them by their inverse document frequency. Here a word weighs 1 / k: k rows, of the
training set and of the eval together, say the commonest four words around it, where the text and its copy count as one.
Words that no training row says weigh 1. A full copy has the overlap 1 whatever its words weigh.

The n-grams of the eval are held in memory, and the training rows pass by once; of these only the n-grams that the eval
has too are kept. N-grams are compared by their 64-bit hashes."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

N = 8
PHRASE = 4
THRESHOLD = 0.5

Texts = tuple[str, Collection[str]]
"""A row: its id, and its normalised texts, words with a space between them."""


class Match(NamedTuple):
    """An example of an eval, the training row that covers most of one of its texts, and the share that is covered.
    `equal`: the row has the text itself."""

    example_id: str
    train_example_id: str
    overlap: float
    equal: bool


class _Copy(NamedTuple):
    """What a training row holds of a text. The smallest is the best one, so the order of rows does not matter."""

    differs: bool
    missing: float
    train_example_id: str


class _Passed(NamedTuple):
    """What the training rows have in common with an eval.

    `equal`: a text -> the first id of a row that has it. `phrases`: four words -> the number of different rows that say
    them. `shared`: the n-grams of a row that the eval has too, sorted, as bytes -> the first id of such a row."""

    equal: dict[str, str]
    phrases: Counter[int]
    shared: dict[bytes, str]


def matches(train: Iterable[Texts], held_out: Iterable[Texts], near: bool = True) -> list[Match]:
    """The examples of an eval that a training set also holds, in the eval's order; without `near`, only equal ones."""
    examples = list(held_out)
    grams = {text: _grams(text) if near else [] for _, texts in examples for text in texts}
    passed = _pass_by(train, grams)
    copies = {text: _Copy(False, 0.0, row) for text, row in passed.equal.items()} | _near_copies(grams, passed)
    listed = []
    for example_id, texts in examples:
        if of_example := [copies[text] for text in texts if text in copies]:
            best = min(of_example)
            listed.append(Match(example_id, best.train_example_id, 1 - best.missing, not best.differs))
    return listed


def _hashes(words: list[str], n: int) -> Iterator[int]:
    """The n-grams of words, in order."""
    return map(hash, zip(*(words[start:] for start in range(n)), strict=False))


def _grams(text: str) -> list[int]:
    """The n-grams by which a text of an eval is looked up; a short text is one n-gram."""
    words = text.split()
    return list(_hashes(words, min(N, len(words)))) if len(words) >= PHRASE else []


def _pass_by(train: Iterable[Texts], grams: Mapping[str, list[int]]) -> _Passed:
    """Read the training rows once. `grams`: each text of the eval -> its n-grams."""
    looked_up = {text for text, of_text in grams.items() if of_text}
    wanted = {gram for text in looked_up for gram in grams[text]}
    phrases = {phrase for text in looked_up for phrase in _hashes(text.split(), PHRASE)}
    short = defaultdict(list)  # the first words of a short text -> such texts
    for text in looked_up:
        if len(words := text.split()) < N:
            short[next(_hashes(words, PHRASE))].append(text)
    passed, seen = _Passed({}, Counter(), {}), set[int]()
    for example_id, texts in train:
        shared, said = set[int](), set[int]()
        for text in texts:
            if text in grams:
                passed.equal[text] = min(example_id, passed.equal.get(text, example_id))
            words = text.split()
            shared.update(wanted.intersection(_hashes(words, N)))
            said.update(in_text := phrases.intersection(_hashes(words, PHRASE)))
            for start in short.keys() & in_text:
                shared.update(grams[other][0] for other in short[start] if f" {other} " in f" {text} ")
        if shared:
            key = array("q", sorted(shared)).tobytes()
            passed.shared[key] = min(example_id, passed.shared.get(key, example_id))
        if said and (content := hash(frozenset(texts))) not in seen:
            seen.add(content)
            passed.phrases.update(said)
    return passed


def _near_copies(grams: Mapping[str, list[int]], passed: _Passed) -> dict[str, _Copy]:
    """The best near copy of each text that has one and is no training row's text."""
    held = {gram for key in passed.shared for gram in array("q", key)}
    texts = [text for text, of_text in grams.items() if text not in passed.equal and not held.isdisjoint(of_text)]
    if not texts:
        return {}
    in_eval = Counter(phrase for text in grams for phrase in set(_hashes(text.split(), PHRASE)))
    count = Counter({phrase: rows + in_eval[phrase] - 1 for phrase, rows in passed.phrases.items()})
    weights = {text: _weights(text.split(), count) for text in texts}
    telling = {text: _telling(grams[text], weights[text]) & held for text in texts}
    wanted = set[int]().union(*telling.values())
    holders = defaultdict(list)  # an n-gram -> the keys of `shared` that have it
    for key in passed.shared:
        for gram in wanted.intersection(array("q", key)):
            holders[gram].append(key)
    copies = {}
    for text in texts:
        near = []
        for key in {key for gram in telling[text] for key in holders[gram]}:
            if (share := _share(grams[text], weights[text], array("q", key))) >= THRESHOLD:
                near.append(_Copy(True, 1 - share, passed.shared[key]))
        if near:
            copies[text] = min(near)
    return copies


def _weights(words: list[str], count: Counter[int]) -> list[float]:
    """The weight of each word. `count`: four words -> how many rows say them."""
    largest = [1] * len(words)
    for place, phrase in enumerate(_hashes(words, PHRASE)):
        for word in range(place, place + PHRASE):
            largest[word] = max(largest[word], count[phrase])
    return [1 / rows for rows in largest]


def _telling(grams: list[int], weights: list[float]) -> set[int]:
    """The n-grams around the heaviest words of a text. A row without any of them covers less than THRESHOLD."""
    n = len(weights) - len(grams) + 1
    may_miss = (1 - THRESHOLD) * sum(weights)
    telling = set[int]()
    for word in sorted(range(len(weights)), key=lambda word: -weights[word]):
        telling.update(grams[max(0, word - n + 1) : word + 1])
        may_miss -= weights[word]
        if may_miss < 0:
            break
    return telling


def _share(grams: list[int], weights: list[float], of_row: Iterable[int]) -> float:
    """The share of a text's weight that a row covers."""
    n = len(weights) - len(grams) + 1
    held = set(of_row)
    covered = {word for place, gram in enumerate(grams) if gram in held for word in range(place, place + n)}
    return sum(weights[word] for word in sorted(covered)) / sum(weights)
