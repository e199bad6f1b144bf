"""The resources that an arm may ask for in the config (`resources: {gpu: 4, mem_mb: "200000 * attempt"}`), and the
amounts that are accepted."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable

AMOUNTS = ("gpu", "gpu_memory_gb", "threads", "mem_mb", "runtime", "disk_mb")
NODES = "nodes"
RESOURCES = (*AMOUNTS, NODES, "gpu_model", "slurm_partition", "slurm_account", "slurm_extra", "qos", "constraint")
"""Resources that an arm may ask for: Snakemake's names, those that its Slurm executor reads, and `gpu_memory_gb`, which
says how much memory a GPU of the arm's jobs has. With `nodes`, the amounts are those of each node."""
MOST_NODES = 10_000  # no cluster has more

LARGEST = 1e12  # a larger amount of anything is a mistake
LARGEST_BASE, LARGEST_EXPONENT = 1e6, 8  # of a power in an expression
OPERATIONS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


def checked(resources: dict[str, int | str]) -> dict[str, int | str]:
    """The same resources. Raises ValueError for an amount that is not arithmetic with `attempt`, since Snakemake would
    run it as Python; for one below 1 (`gpu`: below 0) or above `LARGEST`; for `nodes` that are no whole number; and for
    other text with characters that a shell may obey."""
    for key, value in resources.items():
        if key == NODES:
            if not (type(value) is int and 1 <= value <= MOST_NODES):
                raise ValueError(f"{key}: found {value!r:.80}; write a whole number, 1 or more")
            continue
        if key not in AMOUNTS:
            if not re.fullmatch(r"[\w@%+=:,./ -]*", str(value), re.ASCII):
                raise ValueError(f"{key}: found {value!r:.80}; write letters, digits, spaces and any of _@%+=:,./-")
            continue
        try:
            amount = _amount(ast.parse(str(value), mode="eval").body)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, ArithmeticError):  # TypeError: complex
            raise ValueError(
                f"{key}: found {value!r:.80}; write a number, or arithmetic such as '32000 * attempt'"
            ) from None
        if not (0 if key == "gpu" else 1) <= amount <= LARGEST:
            raise ValueError(f"{key}: found {value!r:.80}, which comes to {amount:.6g}; write an amount above zero")
    return resources


def _amount(node: ast.expr) -> float:
    """The value of an expression on the first attempt. Raises ValueError for anything but sums, products and small
    powers of numbers and `attempt`; a large power such as `9**9**9` would keep Python busy without end."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name) and node.id == "attempt":
        return 1.0
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_amount(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = _amount(node.left), _amount(node.right)
        if isinstance(node.op, ast.Pow) and not (abs(left) <= LARGEST_BASE and 0 <= right <= LARGEST_EXPONENT):
            raise ValueError
        return float(OPERATIONS[type(node.op)](left, right))
    raise ValueError
