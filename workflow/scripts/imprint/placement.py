"""Where a job runs: the resources that an arm asks for itself go before those of the profile.

A profile speaks of rules (`set-resources: {train_sft: {mem_mb: ...}}`). An arm of another size than the rest says so in
the config, `resources: {gpu: 4, mem_mb: "200000 * attempt"}`, for its fit, its generation, and where it teaches or
judges. Numbers are taken as they are; a text is an expression as in a profile, so that a retry can ask for more. None
of it enters an identity.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

AMOUNTS = ("gpu", "threads", "mem_mb", "runtime", "disk_mb")
KNOWN = (*AMOUNTS, "gpu_model", "slurm_partition", "slurm_account", "slurm_extra", "qos", "constraint")
"""What an arm may ask for: snakemake's names, and those that its Slurm executor reads."""

ArmOf = Callable[[str, Any], str]  # rule and wildcards -> the arm whose weights the job loads


def checked(resources: dict[str, int | str]) -> dict[str, int | str]:
    """Raises ValueError for an amount that is more than arithmetic with `attempt`: Snakemake would run it as Python."""
    allowed = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Load)
    for key, value in resources.items():
        if key not in AMOUNTS or isinstance(value, int):
            continue
        try:
            nodes = list(ast.walk(ast.parse(value, mode="eval")))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            nodes = [ast.Pass()]
        for node in nodes:
            number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
            attempt = isinstance(node, ast.Name) and node.id == "attempt"
            if not (number or attempt or isinstance(node, allowed)):
                raise ValueError(f"{key}: found {value!r:.80}; write a number, or arithmetic such as '32000 * attempt'")
    return resources


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
