"""Does the function that a response writes pass the benchmark's tests? Its results are compared with those of the
reference solution, on HumanEval's inputs (`passed_base`), and on all of HumanEval+'s (`passed`, arXiv 2305.01210).

The code runs isolated (`scoring/isolation.py`): no network, no files, limited memory, time and processes. If it damages
its own process, it has failed, and the next response is judged as usual. The code is the last block of Python that
defines the function, else the last block, else the complete response. Code without the definition continues the prompt.
A definition inside \\boxed{} needs no block. Under a prior prompt both parts are read (`contexts/prior_prompt.py`).
"""

from __future__ import annotations

import functools
import json
import math
import re
import secrets
from typing import Any

from pydantic import Field

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.scores import Reads, Verdict
from imprint.scoring import isolation
from imprint.scoring.forms import BOX

ASKS = "generate"
READS = "program"
VERSION = "3"
PRIMARY = "passed"
METRICS = {"passed": 1, "passed_base": 1}

SECONDS = 20.0  # CPU time of the code; comparing its results may take as long again
ISOLATES = True  # the code runs in a jail; this process only compares the results
RETURNED = 1 << 24  # bytes of the results at most
LONGEST = 50_000  # characters; a longer response is not run
BLOCK = re.compile(r"```([\w+-]*)[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
PYTHON = ("", "python", "py", "python3")  # languages of blocks that are read

# The jail holds neither the reference nor its results, so the code finds nothing there to copy. Only plain data leaves
# the jail, so an object that claims to equal everything equals nothing.
HARNESS = r"""
import copy, hashlib, json, sys
LONG = 10000  # characters; a longer result is replaced by a digest, since some inputs give megabytes
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
            for arguments in inputs[part]:
                returned[part].append(tell(space[name](*copy.deepcopy(arguments))))
    except BaseException as error:
        print(type(error).__name__, str(error)[:200])
    sys.stdout.flush()
    print("\n" + said + json.dumps(returned), flush=True)
"""


class Settings(Strict):
    """Nothing to set."""


class Reference(Reads):
    """A problem as `datasets/humaneval.py` has it."""

    task_id: str = Field(description="the problem's name")
    prompt: str = Field(description="the beginning of the program, which the response goes on with")
    entry_point: str = Field(description="the function's name")
    canonical_solution: str = Field(description="the reference solution, which goes on with the prompt")
    inputs: str = Field(description="JSON text: `base` and `extra`, each a list of argument lists")
    atol: float = Field(description="tolerance of results that are numbers")


def extract(response: str, prompt: str, name: str) -> str:
    """The program of a response: its code after the prompt, whose function `name` it completes or defines again."""
    define = re.compile(rf"^[ \t]*def[ \t]+{re.escape(name)}\b", re.MULTILINE)
    fenced = [block for language, block in BLOCK.findall(response) if language.lower() in PYTHON]
    blocks = [_unboxed(block, define) for block in fenced or [response]]
    named = [block for block in blocks if define.search(block)]
    code = (named or blocks)[-1]
    # In both cases the prompt's imports and helpers come first.
    return f"{prompt}\n    pass\n\n{code}" if define.search(code) else f"{prompt}{code}"


def _unboxed(block: str, define: re.Pattern[str]) -> str:
    """The code in a \\boxed{} that holds the definition, up to the last brace, which code may have more of than the box
    balances. A block without such a box is code itself."""
    inside = block.partition(BOX)[2]
    return (inside.rpartition("}")[0] or inside) if define.search(inside) else block


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """`passed_base` and `passed`, each 0 or 1. Raises ImprintError on a system that cannot isolate code, and for a
    reference whose own solution does not run."""
    reference = row["reference"]
    isolation.check()
    if not response.strip() or len(response) > LONGEST:
        return [Verdict(metric, 0.0, unparsed=True) for metric in METRICS]
    passed = judged(reference, extract(response, reference["prompt"], reference["entry_point"]))
    base = float(passed.get("base", False))
    return [Verdict("passed", float(base and passed.get("extra", False))), Verdict("passed_base", base)]


def judged(reference: dict[str, Any], code: str) -> dict[str, bool]:
    """Part of the inputs -> whether the code passes it. Code that does not end passes no part."""
    inputs, name, find_zero = reference["inputs"], reference["entry_point"], reference["task_id"] == "HumanEval/32"
    arguments = json.loads(inputs)
    # Any zero of the polynomial is right, so it is checked, and not compared with the reference's zero.
    solution = reference["prompt"] + reference["canonical_solution"]
    expected = arguments if find_zero else _expected(solution, name, inputs)
    returned = _returned(code, name, inputs)
    passed = {}
    for part, values in expected.items():
        pairs = list(zip(values, returned.get(part, []), strict=False))
        right = _root if find_zero else _same
        passed[part] = len(pairs) == len(arguments[part]) and all(right(*pair, reference["atol"]) for pair in pairs)
    return passed


@functools.lru_cache(maxsize=256)
def _expected(code: str, name: str, inputs: str) -> dict[str, list[Any]]:
    """Part of the inputs -> what the reference solution returns. Raises ImprintError if it does not run."""
    returned = _returned(code, name, inputs)
    for part, arguments in json.loads(inputs).items():
        if len(returned.get(part, [])) != len(arguments):
            raise ImprintError(
                f"reference: its own canonical_solution of '{name}' does not run on all of its inputs '{part}'; "
                "restore the row"
            )
    return returned


def _returned(code: str, name: str, inputs: str) -> dict[str, list[Any]]:
    """Part of the inputs -> what a function returns for each, up to the first input on which it fails. Empty if the
    program does not end."""
    marker = secrets.token_hex(16)  # the code cannot know it, so nothing that it prints is taken for the results
    program = HARNESS + f"main(*{[marker, code, name, inputs]!r})\n"
    outcome = isolation.run(program, SECONDS, RETURNED)
    _, separator, results = outcome.text.rpartition(marker)
    try:
        if separator and outcome.end == "ended":
            returned = json.loads(results).items()
            return {str(part): [_unpack(json.loads(value)) for value in values] for part, values in returned}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
        pass  # the code has tampered with the harness
    return {}


def _unpack(packed: Any) -> Any:
    """The value that the harness has packed. A type that no reference returns becomes an object that equals nothing.
    Raises an error for data that the harness does not write."""
    if packed is None or isinstance(packed, bool | str | int | float):
        return packed
    if isinstance(packed, list):
        return [_unpack(part) for part in packed]
    ((kind, value),) = packed.items()
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


def _same(expected: Any, returned: Any, atol: float) -> bool:
    """Equality by the benchmark's rule: floats within its tolerance; a list does not equal a tuple."""
    if isinstance(expected, float) and isinstance(returned, int | float) and not isinstance(returned, bool):
        try:
            return expected == returned or math.isclose(expected, returned, rel_tol=1e-7, abs_tol=max(atol, 1e-6))
        except OverflowError:  # an integer beyond all floats
            return False
    if isinstance(expected, list | tuple):
        alike = type(expected) is type(returned) and len(expected) == len(returned)
        return alike and all(_same(*pair, atol) for pair in zip(expected, returned, strict=True))
    return bool(expected == returned)


def _root(arguments: list[Any], returned: Any, atol: float) -> bool:
    """Whether the returned number is a zero of the polynomial whose coefficients are the first argument."""
    try:
        return bool(abs(sum(factor * returned**power for power, factor in enumerate(arguments[0]))) <= max(atol, 1e-4))
    except (TypeError, OverflowError, ZeroDivisionError):
        return False
