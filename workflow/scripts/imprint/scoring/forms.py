"""The forms in which prompts ask for answers: tagged blocks, \\boxed{}, and fenced blocks of code."""

from __future__ import annotations

OPEN, CLOSE = "<answer>", "</answer>"
BOX = "\\boxed{"
FENCE = "```"
LONGEST = 1_000  # characters of an answer in a box; a longer text is not an answer


def well_formed(text: str, tag: str, outside: bool = False) -> bool:
    """Whether `text` is one `tag` block and then one answer block; `outside` allows other text around them. Takes
    linear time."""
    tags = (f"<{tag}>", f"</{tag}>", OPEN, CLOSE)
    if any(text.count(mark) != 1 for mark in tags):
        return False
    places = [text.index(mark) for mark in tags]
    if places != sorted(places):
        return False
    tag_open, tag_close, answer_open, answer_close = places
    around = (text[:tag_open], text[tag_close + len(tags[1]) : answer_open], text[answer_close + len(CLOSE) :])
    return outside or not any(part.strip() for part in around)


def answer_block(text: str) -> str:
    """The text of the last answer block that is opened and closed; "" without such a block."""
    before, closed, _ = text.rpartition(CLOSE)
    _, opened, inside = before.rpartition(OPEN)
    return inside.strip() if closed and opened else ""


def boxed(text: str) -> str | None:
    """The content of the last \\boxed{} of a text, up to its balancing brace; None if there is no box, or if it has no
    end within LONGEST characters."""
    start = text.rfind(BOX)
    if start < 0:
        return None
    depth = 1
    for place in range(start + len(BOX), min(len(text), start + len(BOX) + LONGEST + 1)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + len(BOX) : place].strip()
    return None


def fenced(part: str) -> str:
    """A part of a response as one or more blocks of code. A part without a block becomes one, and a block that has no
    end gets one, so that what follows is no part of it."""
    if FENCE not in part:
        return f"{FENCE}\n{part}\n{FENCE}"
    return f"{part}\n{FENCE}" if part.count(FENCE) % 2 else part
