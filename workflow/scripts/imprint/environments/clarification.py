"""Does a model ask when a request breaks off? The model sees the beginning of a user's first turn. If its reply asks,
the user gives the rest. If not, the user says that the message broke off, while there are chances left. Then the user
asks for the final answer; only this answer is scored.

user: What can I use instead of ...
assistant: Instead of what?
user: ... buttermilk in a pancake recipe?

Please give me your final answer now.
assistant: Stir a spoonful of lemon juice into ordinary milk.

A reply asks if it has a question mark after a word, so rhetorical questions count too. Every request breaks off, so
this environment cannot tell a model that asks when it has to from one that always asks.

The state of this dialogue is {"asked_in": 0, "replies": 2, "withheld": ["buttermilk", "pancake", "recipe"]}. `asked_in`
is the number of the reply that asked, from 0, or null. `replies` counts the replies, with the final answer. `withheld`
has the words of four letters or more, and the numbers, that are in the rest and not in the beginning.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from imprint.models.chat_text import Message
from imprint.policies.dialogue import Outcome, Request, Turns
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.tables.inputs import Read

GAP = "..."
BROKE_OFF = "My message broke off before its end."
FINAL = "Please give me your final answer now."
QUESTION = re.compile(r"\w['\")\]]{0,3}\?")
SHORT = 3  # letters; a word of no more than these is no detail


class Settings(Strict):
    shown: float = Field(0.5, gt=0, lt=1, description="share of the request's words that is shown, rounded down")
    chances: int = Field(2, ge=1, le=8, description="replies in which the model may ask before its final answer")


def asks(reply: str) -> bool:
    """Whether a reply holds a question."""
    return QUESTION.search(reply) is not None


def broken_off(request: str, shown: float) -> tuple[str, str]:
    """(beginning, rest) of a request, at least a word each. Raises ImprintError for a request of fewer than two
    words."""
    starts = [match.start() for match in re.finditer(r"\S+", request)]
    if len(starts) < 2:
        raise ImprintError(f"the request {request!r:.40} has fewer than two words, so nothing of it can be withheld")
    cut = starts[max(1, int(shown * len(starts)))]
    return request[:cut].rstrip(), request[cut:]


def only_in(rest: str, beginning: str) -> list[str]:
    """The distinct words of `rest` that are longer than SHORT or numbers and not in `beginning`, in order."""
    beginning_words = set(re.findall(r"\w+", beginning.casefold()))
    words = re.findall(r"\w+", rest.casefold())
    details = (word for word in words if len(word) > SHORT or word.isdecimal())
    return list(dict.fromkeys(word for word in details if word not in beginning_words))


def turns(row: dict[str, Any], settings: Settings, inputs: Read) -> Turns:
    """One request for each chance until the model asks, and one for the final answer."""
    place = next((place for place, message in enumerate(row["messages"]) if message["role"] == "user"), None)
    if place is None:
        raise ImprintError("the row has no user's turn; play on a dataset of dialogues")
    beginning, rest = broken_off(row["messages"][place]["content"], settings.shown)
    messages: list[Message] = [*row["messages"][:place], _user(f"{beginning} {GAP}")]
    asked_in, replies = None, 0
    while asked_in is None and replies < settings.chances:
        (reply,) = yield [Request(messages)]
        if asks(reply.text or ""):
            asked_in, answer = replies, f"{GAP} {rest}\n\n{FINAL}"
        else:
            answer = BROKE_OFF if replies + 1 < settings.chances else FINAL
        messages = [*messages, {"role": "assistant", "content": reply.text or ""}, _user(answer)]
        replies += 1
    (final,) = yield [Request(messages)]
    state = {"asked_in": asked_in, "replies": replies + 1, "withheld": only_in(rest, beginning)}
    return Outcome(final.text or "", state, final)


def _user(content: str) -> Message:
    return {"role": "user", "content": content}
