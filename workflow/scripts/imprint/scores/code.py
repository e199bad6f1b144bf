"""Does the function that a response writes pass the benchmark's tests? HumanEval's inputs (`passed_base`), and all of
HumanEval+'s (`passed`, arXiv 2305.01210), against what the reference solution returns.

The code runs isolated (`imprint.isolation`): no network, no files, limited memory, time and processes. Whatever it does
to itself there, it has failed, and the next response is judged. Taken is the last block of Python that defines the
function, else the last block, else the whole response; without a definition it is read as what follows the prompt.
"""

from __future__ import annotations

import functools
import json
import math
import re
import secrets
from typing import Any

from imprint import isolation
from imprint.errors import ImprintError
from imprint.plugins import Strict
from imprint.scores import Verdict

ASKS = "generate"
VERSION = "2"
PRIMARY = "passed"
METRICS = {"passed": 1, "passed_base": 1}

SECONDS = 20.0  # of CPU time that the code may take; what compares its results afterwards may take as long
ISOLATES = True  # this process only hands the code to a jail, and compares what comes back
RETURNED = 1 << 24  # bytes that the results may take
LONGEST = 50_000  # characters of code; more is no function
BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)

# What runs in the jail knows neither the reference nor what it returns, so code that looks around there finds nothing
# to copy; and it hands back plain data, so an object that claims to equal everything equals nothing.
HARNESS = r"""
import copy, hashlib, json, sys
LONG = 10000  # characters; of a longer result only a digest is told, since some inputs give megabytes
def pack(value):
    kind = type(value)
    if value is None or kind in (bool, str) or kind is int and -(2**53) < value < 2**53:
        return value
    if kind is int:
        return {"int": hex(value)}
    if kind is float:
        return value if value - value == 0 else {"float": value.hex()}
    if kind is list:
        return [pack(part) for part in value]
    if kind is tuple:
        return {"tuple": [pack(part) for part in value]}
    if kind in (set, frozenset):
        return {"set": sorted((pack(part) for part in value), key=json.dumps)}
    if kind is dict:
        return {"dict": [[pack(key), pack(part)] for key, part in value.items()]}
    return {"other": kind.__name__}
def rounded(value):  # equal values look alike: floats to the tolerance's digits, whole ones as integers
    kind = type(value)
    if kind is float and value - value == 0:
        value = round(value, 6) if -1e6 < value < 1e6 else float(f"{value:.7g}")
        return int(value) if value.is_integer() else value
    if kind in (list, tuple, set):
        return kind(rounded(part) for part in value)
    if kind is dict:
        return {rounded(key): rounded(part) for key, part in value.items()}
    return value
def tell(value):
    short = json.dumps(pack(rounded(value)))
    if len(short) <= LONG:
        return json.dumps(pack(value))
    return json.dumps({"digest": hashlib.sha256(short.encode()).hexdigest()})
def main(said, code, name, inputs):
    inputs = json.loads(inputs)
    returned = {part: [] for part in inputs}
    try:
        space = {"__name__": "response"}
        exec(code, space)
        for part in inputs:
            for given in inputs[part]:
                returned[part].append(tell(space[name](*copy.deepcopy(given))))
    except BaseException as error:
        print(type(error).__name__, str(error)[:200])
    sys.stdout.flush()
    print("\n" + said + json.dumps(returned), flush=True)
"""


class Settings(Strict):
    """Nothing to set."""


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
    if not isinstance(reference["inputs"], str):
        raise ImprintError(f"reference.inputs: found {reference['inputs']!r:.80}; write JSON as text")
    isolation.check()
    if not response.strip() or len(response) > LONGEST:
        return [Verdict(metric, 0.0, unparsed=True) for metric in METRICS]
    passed = judged(reference, extract(response, reference["prompt"], reference["entry_point"]))
    base = float(passed.get("base", False))
    return [Verdict("passed", float(base and passed.get("extra", False))), Verdict("passed_base", base)]


def judged(reference: dict[str, Any], code: str) -> dict[str, bool]:
    """Which parts of the inputs some code passes; nothing where it does not come to an end."""
    inputs, name, find_zero = reference["inputs"], reference["entry_point"], reference["task_id"] == "HumanEval/32"
    given = json.loads(inputs)
    # Any zero of the polynomial is right, so what the reference finds does not matter.
    wanted = given if find_zero else _wanted(reference["prompt"] + reference["canonical_solution"], name, inputs)
    found = _returned(code, name, inputs)
    passed = {}
    for part, expected in wanted.items():
        pairs = list(zip(expected, found.get(part, []), strict=False))
        right = _root if find_zero else _same
        passed[part] = len(pairs) == len(given[part]) and all(right(*pair, reference["atol"]) for pair in pairs)
    return passed


@functools.lru_cache(maxsize=256)
def _wanted(code: str, name: str, inputs: str) -> dict[str, list[Any]]:
    """What the reference solution returns, by part of the inputs."""
    found = _returned(code, name, inputs)
    for part, given in json.loads(inputs).items():
        if len(found.get(part, [])) != len(given):
            raise ImprintError(
                f"reference: its own canonical_solution of '{name}' does not run on all of its inputs '{part}'; "
                "restore the row"
            )
    return found


def _returned(code: str, name: str, inputs: str) -> dict[str, list[Any]]:
    """What a function returns for each of the inputs, up to the first that it fails on; nothing where it does not come
    to an end."""
    said = secrets.token_hex(16)  # so that printing a result is none
    program = HARNESS + f"main(*{[said, code, name, inputs]!r})\n"
    found = isolation.run(program, SECONDS, RETURNED)
    _, mark, told = found.text.rpartition(said)
    try:
        if mark and found.end == "ended":
            returned = json.loads(told).items()
            return {str(part): [_unpack(json.loads(value)) for value in values] for part, values in returned}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
        pass  # the response has tampered with what tells
    return {}


def _unpack(told: Any) -> Any:
    """What the harness has packed. Raises for anything else, and gives an object that equals nothing for a value of a
    type that no reference returns."""
    if told is None or isinstance(told, bool | str | int | float):
        return told
    if isinstance(told, list):
        return [_unpack(part) for part in told]
    ((kind, value),) = told.items()
    if kind == "int":
        return int(value, 16)
    if kind == "float":
        return float.fromhex(value)
    if kind == "dict":
        return {_unpack(key): _unpack(part) for key, part in value}
    if kind == "digest":
        return kind, str(value)
    if kind in ("tuple", "set"):
        return {"tuple": tuple, "set": set}[kind](_unpack(part) for part in value)
    return object()


def _same(expected: Any, found: Any, atol: float) -> bool:
    """Equality as the benchmark means it: floats within its tolerance, lists and tuples of their own kind."""
    if isinstance(expected, float) and isinstance(found, int | float) and not isinstance(found, bool):
        try:
            return expected == found or math.isclose(expected, found, rel_tol=1e-7, abs_tol=max(atol, 1e-6))
        except OverflowError:  # an integer beyond all floats
            return False
    if isinstance(expected, list | tuple):
        alike = type(expected) is type(found) and len(expected) == len(found)
        return alike and all(_same(*pair, atol) for pair in zip(expected, found, strict=True))
    return bool(expected == found)


def _root(given: list[Any], found: Any, atol: float) -> bool:
    """Whether a number is a zero of the polynomial whose coefficients are given."""
    try:
        return bool(abs(sum(factor * found**power for power, factor in enumerate(given[0]))) <= max(atol, 1e-4))
    except (TypeError, OverflowError, ZeroDivisionError):
        return False
