"""Does the function that a response writes pass the benchmark's tests? HumanEval's inputs (`passed_base`), and all of
HumanEval+'s (`passed`, arXiv 2305.01210), against what the reference solution returns.

The code runs isolated (`imprint.isolation`): no network, no files, limited memory, time and processes. Whatever it does
to itself there, it has failed, and the next response is judged. Taken is the last block of Python that defines the
function, else the last block, else the whole response; without a definition it is read as what follows the prompt.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

from imprint import isolation
from imprint.errors import ImprintError
from imprint.plugins import Strict
from imprint.scores import Verdict

ASKS = "generate"
VERSION = "1"
PRIMARY = "passed"
METRICS = {"passed": 1, "passed_base": 1}

SECONDS = 20.0
LONGEST = 50_000  # characters of code; more is no function
BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)

# What runs in the jail: the reference first, so that the response's code cannot touch it.
HARNESS = r"""
import copy, json, math, sys
def main(said, code, ref, name, task, inputs, atol):
    inputs = json.loads(inputs)
    def same(one, two):
        if isinstance(one, float) and isinstance(two, (int, float)) and not isinstance(two, bool):
            return one == two or math.isclose(one, two, rel_tol=1e-7, abs_tol=max(atol, 1e-6))
        if isinstance(one, (list, tuple)) and type(one) is type(two):
            return len(one) == len(two) and all(map(same, one, two))
        return type(one) is type(two) and one == two or (one == two and not isinstance(one, (list, tuple)))
    def root(given, found):  # find_zero: any zero of the polynomial is right
        total = sum(factor * found ** power for power, factor in enumerate(given[0]))
        return abs(total) <= max(atol, 1e-4)
    space = {"__name__": "reference"}
    exec(ref, space)
    wanted = {part: [] for part in inputs}
    for part in inputs:
        for given in inputs[part]:
            wanted[part].append(None if task == "HumanEval/32" else space[name](*copy.deepcopy(given)))
    space = {"__name__": "response"}
    passed = dict.fromkeys(inputs, False)
    try:
        exec(code, space)
        function = space[name]
        for part in inputs:
            for given, expected in zip(inputs[part], wanted[part]):
                found = function(*copy.deepcopy(given))
                if not (root(given, found) if task == "HumanEval/32" else same(expected, found)):
                    break
            else:
                passed[part] = True
    except BaseException as error:
        print(type(error).__name__, str(error)[:200])
    sys.stdout.flush()
    print("\n" + said + json.dumps(passed), flush=True)
"""


class Settings(Strict):
    """Nothing to set."""


def conditions() -> str:
    """How responses are isolated here: it goes into the tables beside the version, and from there into the report."""
    return f"isolated by {isolation.check()}"


def extract(response: str, prompt: str, name: str) -> str:
    """The code that a response stands for."""
    define = re.compile(rf"^[ \t]*def[ \t]+{re.escape(name)}\b", re.MULTILINE)
    blocks = [match[1] for match in BLOCK.finditer(response)]
    named = [block for block in blocks if define.search(block)]
    code = (named or blocks or [response])[-1]
    # The prompt's imports and helpers are in force either way.
    return f"{prompt}\n    pass\n\n{code}" if define.search(code) else f"{prompt}{code}"


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """`passed_base` and `passed`, each 0 or 1. Raises ImprintError on a system where nothing can be isolated, and on a
    reference whose own solution does not run."""
    reference = row["reference"]
    keys = ("task_id", "prompt", "entry_point", "canonical_solution", "inputs", "atol")
    if not isinstance(reference, dict) or any(key not in reference for key in keys):
        raise ImprintError(f"reference: found {reference!r:.80}; write {', '.join(keys)} as datasets/humaneval.py does")
    isolation.check()
    if not response.strip() or len(response) > LONGEST:
        return [Verdict(metric, 0.0, unparsed=True) for metric in METRICS]
    passed = judged(reference, extract(response, reference["prompt"], reference["entry_point"]))
    base = float(passed.get("base", False))
    return [Verdict("passed", float(base and passed.get("extra", False))), Verdict("passed_base", base)]


def judged(reference: dict[str, Any], code: str) -> dict[str, bool]:
    """Which parts of the inputs some code passes; nothing where it does not come to an end."""
    said = secrets.token_hex(16)  # so that printing a verdict is none
    given = [said, code, reference["prompt"] + reference["canonical_solution"], reference["entry_point"]]
    given += [reference["task_id"], reference["inputs"], reference["atol"]]
    program = HARNESS + f"main(*{[*given]!r})\n"
    found = isolation.run(program, SECONDS)
    _, mark, verdict = found.text.rpartition(said)
    try:
        return dict(json.loads(verdict)) if mark and found.end == "ended" else {}
    except ValueError:
        return {}
