"""How a response goes about its task: four behaviours (after Gandhi et al., arXiv 2503.01307) and the five styles that
prior prompts ask for (arXiv 2505.14157), by our own rules. Each metric is 1 if its rule finds at least one sign, else
0; all are descriptive. The rules look for fixed English phrases, so they see less than a reader does. Use them to
compare arms, not as absolute shares.

"Let me check: 3 * 4 = 12. That is wrong, so let me try 4 * 4." -> verification 1, backtracking 1, the others 0
"""

from __future__ import annotations

import re
from typing import Any

from imprint.runtime.plugins import Strict
from imprint.scores import Verdict

ASKS = "generate"
READS = "response"
VERSION = "1"
PRIMARY = "verification"

HEAD = 20_000  # characters; the rules read the beginning of a response

RULES = {
    # The response compares a result with the task.
    "verification": r"\b(?:let (?:me|us)|let's|i(?:'ll| will| should)|we(?:'ll| can| should)?) (?:double[- ])?"
    r"(?:check|verify|confirm)\b|\bto (?:check|verify|confirm) (?:this|that|it|the|my|our)\b"
    r"|\b(?:checking|verifying) (?:this|that|it|the|my|our)\b|\bdouble[- ]check"
    r"|\bplug(?:ging)? (?:it|this|that|them)? ?back",
    # It gives up one path for another.
    "backtracking": r"\b(?:wait|hmm|actually)[,.!]|\bthat(?:'s| is| was) (?:not right|wrong|incorrect)"
    r"|\bthis (?:does not|doesn't|did not|didn't) work|\b(?:made|is) a mistake|\blet (?:me|us) (?:try|start|go)"
    r" (?:again|over|back|another|a different|something else|[\d(])|\binstead,? (?:let|i|we|try)\b|\bgo back to\b",
    # It names smaller goals on the way.
    "subgoals": r"\b(?:step|part) (?:1|one)\b|^[ \t]*(?:1[.)]|first(?:ly)?,)[^\n]*\n(?:[^\n]*\n){0,8}?[ \t]*"
    r"(?:2[.)]|second(?:ly)?,|then,|next,)|\bfirst,? (?:i|we|let's|let us|let me)\b[^.\n]{0,200}[.\n][^.\n]{0,200}"
    r"\b(?:then|next|second)\b|\bthe (?:first|next) (?:step|goal) is\b",
    # It works from the target back to the start.
    "backward_chaining": r"\bwork(?:ing)? (?:backwards?|back from)\b|\bstart(?:ing)? (?:from|with) the (?:end|goal"
    r"|target|answer|result)\b|\bto (?:get|reach|obtain|make) [^.\n]{1,60}, (?:i|we|you) (?:would |will )?(?:first )?"
    r"need\b",
    "style_think": r"</?think>|\b(?:let me|let us|let's) think\b|\bi (?:think|wonder|suppose)\b|\bso if\b"
    r"|\bthat means\b",
    "style_plan": r"</?plan>|\b(?:the|my|our|a) plan\b|^[ \t]*plan:|\bstep (?:1|one)\b",
    "style_code": r"</?code>|```|^[ \t]*(?:def \w+\(|import \w|for \w+ in |while .*:$|print\()",
    "style_knowledge": r"</?knowledge>|\b(?:recall|remember) that\b|\b(?:is|are) (?:defined as|known (?:as|to))\b"
    r"|\bby (?:the )?(?:definition|theorem)\b|\bwe know that\b|\bit is known\b",
    "style_examples": r"</?examples>|\bfor (?:example|instance)\b|\be\.g\.|^[ \t]*example(?: \d+)?:|\b(?:in|like) the "
    r"(?:above |given |first |second )?examples?\b",
}
METRICS = dict.fromkeys(RULES, 0)
_RULES = {name: re.compile(rule, re.IGNORECASE | re.MULTILINE) for name, rule in RULES.items()}


class Settings(Strict):
    """Nothing to set: the rules are fixed, so that arms can be compared."""


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """One verdict for each behaviour, 1 or 0."""
    text = response[:HEAD]
    return [Verdict(name, float(bool(rule.search(text)))) for name, rule in _RULES.items()]
