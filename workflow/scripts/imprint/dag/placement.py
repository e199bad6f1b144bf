"""Where a job runs: the resources that an arm asks for replace those of the profile.

A profile sets the resources of rules (`set-resources: {train_sft: {mem_mb: ...}}`). An arm of another size says so in
the config, `resources: {gpu: 4, mem_mb: "200000 * attempt"}`. These resources are used for the arm's fits, for its
generation, and for the jobs in which it teaches or judges. An amount that is a text is an expression, as in a profile,
so that a retry can ask for more. Resources enter no identity.

With `nodes: 2`, an arm's fits run on two nodes of Slurm, each with the GPUs, the threads and the memory that the arm
asks for. Its other jobs run on one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imprint.config.amounts import AMOUNTS, NODES
from imprint.config.schema import Config
from imprint.dag.jobs import Jobs


def place(workflow: Any, config: Config, stage: Mapping[str, Jobs]) -> None:
    """Let arms override the resources of the rules that run a model. Snakemake sets resources by rule at the finest, so
    each resource that an arm names becomes a function of the job. Call this after the rules are defined. Raises
    snakemake's WorkflowError where an arm asks for more GPUs than the profile has."""
    from snakemake.resources import Resource

    of_arms = {name: arm.resources for name, arm in config.arms.items() if arm.resources}
    _refuse_above_cap(of_arms, workflow.resource_settings.resources)
    for rule in workflow.rules if of_arms else ():
        jobs = stage.get("train" if rule.name.startswith("train_") else rule.name)
        if jobs is not None and jobs.stage.runs_model:
            asked = {arm: _on_nodes(resources, jobs.name == "train") for arm, resources in of_arms.items()}
            for key in sorted({key for resources in asked.values() for key in resources}):
                name = "_cores" if key == "threads" else key
                by_arm = {arm: _resource(name, resources[key]) for arm, resources in asked.items() if key in resources}
                rule.resources[name] = Resource(name, _by_job(by_arm, rule.resources.get(name), jobs))
            several = {arm: int(resources[NODES]) for arm, resources in asked.items() if NODES in resources}
            _deal_out_gpus(rule, jobs, several)


def _refuse_above_cap(of_arms: Mapping[str, Mapping[str, int | str]], caps: Mapping[str, Any]) -> None:
    """Raise where an arm asks for more GPUs than the cap, on all its nodes together. Snakemake would cut the request in
    silence, and the job would run on fewer GPUs than the arm asks for."""
    from snakemake.exceptions import WorkflowError
    from snakemake.resources import Resource

    cap = caps.get("gpu")
    cap = cap.value if isinstance(cap, Resource) else cap
    for arm, resources in of_arms.items():
        wanted, nodes = resources.get("gpu"), int(resources.get(NODES, 1))
        if isinstance(wanted, int) and isinstance(cap, int) and wanted * nodes > cap:
            together = f" for {nodes} nodes together" if nodes > 1 else ""
            raise WorkflowError(
                f"arms.{arm}.resources.gpu: found {wanted}, but this profile has {cap} (`resources: gpu`){together}; "
                "ask for fewer, or raise the profile's where there are more"
            )


def _on_nodes(resources: Mapping[str, int | str], fit: bool) -> dict[str, int | str]:
    """What a job of an arm asks for. A fit on several nodes asks for more, of Slurm's executor. With `mpi`, that starts
    the job's process without `srun`, so that the process can call `srun` itself. It wants `tasks` for this, here one a
    node, and would take them for tasks of each GPU where `tasks_per_gpu` is missing."""
    count = resources.get(NODES, 1)
    others = {key: value for key, value in resources.items() if key != NODES}
    if not fit or count == 1:
        return others
    return {**others, NODES: count, "mpi": "srun", "tasks": count, "tasks_per_gpu": 0}


def _deal_out_gpus(rule: Any, jobs: Jobs, nodes: Mapping[str, int]) -> None:
    """Let a fit on several nodes have its GPUs on each of them. Slurm's executor reads `gpu` as those of all nodes, and
    Slurm may deal these out unequally; `gres` says how many each has. `nodes` are those of each arm with several."""
    from snakemake.resources import Resource

    if not nodes:
        return
    gpu, kind, gres = (rule.resources.get(name) for name in ("gpu", "gpu_model", "gres"))

    def of_all(
        wildcards: Any, input: Any, attempt: int, rulename: str, async_run: Any, threads: int | None = None
    ) -> int | None:
        on_each: int | None = _evaluated(gpu, wildcards, input, attempt, rulename, async_run, threads)
        return on_each and on_each * nodes.get(jobs.arm(wildcards), 1)

    def of_each(
        wildcards: Any, input: Any, attempt: int, rulename: str, async_run: Any, threads: int | None = None
    ) -> str | None:
        own, on_each, of_kind = (
            _evaluated(resource, wildcards, input, attempt, rulename, async_run, threads)
            for resource in (gres, gpu, kind)
        )
        words = ["gpu", of_kind, str(on_each)] if of_kind else ["gpu", str(on_each)]
        return ":".join(words) if on_each and jobs.arm(wildcards) in nodes else own

    rule.resources["gpu"], rule.resources["gres"] = Resource("gpu", of_all), Resource("gres", of_each)


def _resource(name: str, value: int | str) -> Any:
    from snakemake.resources import Resource

    amount = isinstance(value, str) and (name == "_cores" or name in AMOUNTS)
    if not amount:
        return Resource(name, value)
    # Threads come first: an expression for them cannot name them.
    return Resource.from_cli_expression(name, str(value), with_threads_arg=name != "_cores")


def _by_job(by_arm: Mapping[str, Any], fallback: Any, jobs: Jobs) -> Callable[..., Any]:
    """A resource function with snakemake's signature: the resource of the job's arm, else the rule's own."""

    def value(
        wildcards: Any, input: Any, attempt: int, rulename: str, async_run: Any, threads: int | None = None
    ) -> int | str | None:
        resource = by_arm.get(jobs.arm(wildcards), fallback)
        amount: int | str | None = _evaluated(resource, wildcards, input, attempt, rulename, async_run, threads)
        return amount

    return value


def _evaluated(
    resource: Any, wildcards: Any, input: Any, attempt: int, rulename: str, async_run: Any, threads: int | None
) -> Any:
    """The value of a resource for a job."""
    # Snakemake passes no threads while it computes the threads themselves.
    if_known = {} if threads is None else {"threads": threads}
    return resource.evaluate(
        wildcards, input=input, attempt=attempt, rulename=rulename, async_run=async_run, **if_known
    ).value
