"""Where a job runs: the resources that an arm asks for itself go before those of the profile.

A profile speaks of rules (`set-resources: {train_sft: {mem_mb: ...}}`). An arm of another size than the rest says so in
the config, `resources: {gpu: 4, mem_mb: "200000 * attempt"}`, for its fit, its generation, and where it teaches or
judges. Numbers are taken as they are; a text is an expression as in a profile, so that a retry can ask for more. None
of it enters an identity.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

AMOUNTS = ("gpu", "threads", "mem_mb", "runtime", "disk_mb")
KNOWN = (*AMOUNTS, "gpu_model", "slurm_partition", "slurm_account", "slurm_extra", "qos", "constraint")
"""What an arm may ask for: snakemake's names, and those that its Slurm executor reads."""

LARGEST = 1e12  # more of anything is a mistake
LARGEST_BASE, LARGEST_EXPONENT = 1e6, 8  # of a power
OPERATIONS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}

ArmOf = Callable[[str, Any], str]  # rule and wildcards -> the arm whose weights the job loads


def checked(resources: dict[str, int | str]) -> dict[str, int | str]:
    """Raises ValueError for an amount that is more than arithmetic with `attempt`, since Snakemake would run it as
    Python, or comes to no amount; and for text that a shell would read as more than a word of an option."""
    for key, value in resources.items():
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
    """What an expression comes to on the first attempt. Raises ValueError for anything but sums, products and small
    powers of numbers and `attempt`: Python would work on `9**9**9` without end."""
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


def place(workflow: Any, arms: Mapping[str, Mapping[str, int | str]], arm_of: ArmOf) -> None:
    """Let `arms` (name -> resources) override the resources of the rules that run a model. Snakemake has no override
    finer than a rule, so each resource that some arm names is wrapped after the rules are defined."""
    from snakemake.resources import Resource

    own = {arm: mapping for arm, mapping in arms.items() if mapping}
    _refuse_what_is_capped(own, workflow.resource_settings.resources)
    for rule in workflow.rules if own else ():
        if rule.name in ("generate", "judge", "synthesize") or rule.name.startswith("train_"):
            for key in sorted({key for mapping in own.values() for key in mapping}):
                name = "_cores" if key == "threads" else key
                given = {arm: _resource(name, mapping[key]) for arm, mapping in own.items() if key in mapping}
                rule.resources[name] = Resource(name, _chosen(given, rule.resources.get(name), arm_of))


def _refuse_what_is_capped(own: Mapping[str, Mapping[str, int | str]], caps: Mapping[str, Any]) -> None:
    """Snakemake would cut a request to the cap in silence, and the job would run on fewer GPUs than it was made for."""
    from snakemake.exceptions import WorkflowError

    cap = caps.get("gpu")
    cap = getattr(cap, "value", cap)
    for arm, mapping in own.items():
        wanted = mapping.get("gpu")
        if isinstance(wanted, int) and isinstance(cap, int) and wanted > cap:
            raise WorkflowError(
                f"arms.{arm}.resources.gpu: found {wanted}, but this profile has {cap} (`resources: gpu`); ask for "
                "fewer, or raise the profile's where there are more"
            )


def _resource(name: str, value: int | str) -> Any:
    from snakemake.resources import Resource

    amount = isinstance(value, str) and (name == "_cores" or name in AMOUNTS)
    return Resource.from_cli_expression(name, value) if amount else Resource(name, value)


def _chosen(given: Mapping[str, Any], fallback: Any, arm_of: ArmOf) -> Callable[..., Any]:
    """A resource function in snakemake's signature: the arm's own value, else what the rule has anyway."""

    def value(
        wildcards: Any, input: Any, attempt: int, rulename: str, async_run: Any, threads: int | None = None
    ) -> int | str | None:
        more = {} if threads is None else {"threads": threads}
        resource = given.get(arm_of(rulename, wildcards), fallback)
        found: int | str | None = resource.evaluate(
            wildcards, input=input, attempt=attempt, rulename=rulename, async_run=async_run, **more
        ).value
        return found

    return value
