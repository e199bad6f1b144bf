"""The jobs that a run would do: which, why, and what they will cost by earlier runs.

Snakemake decides which jobs run, and is asked through its own interface; here its reasons are put into words.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from imprint.dag import adoption, spending
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.dag.spending import NOTHING, Spending
from imprint.report.numbers import duration
from imprint.runtime import origin
from imprint.runtime.errors import ImprintError

LINES = 40
"""The most lines of a list. Where jobs are more, those of an arm share a line, then those of a stage."""
REASONS = 2  # the most differences that a line names
WHAT = {
    "fetch_model": "model files",
    "reach_model": "server settings",
    "fetch_data": "files",
    "fetch_hub": "files",
    "prepare": "data",
    "synthesize": "data",
    "rearrange": "data",
    "train": "weights",
    "generate": "responses",
    "import_run": "responses",
    "import_values": "scores",
    "judge": "judgements",
    "score": "scores",
    "check_leakage": "tables",
    "summarize": "tables",
    "collect": "tables",
    "analyze": "tables",
    "probe": "tables",
    "plot": "charts",
}
"""Stage that other jobs read -> what it makes, in a word."""


class ToRun(NamedTuple):
    """A job that a run would do. `arm` is empty for a job of no arm. `cost` is None where no earlier run tells it."""

    stage: str
    name: str
    arm: str
    why: str
    cost: Spending | None


def jobs(experiment: Experiment, arguments: list[str], costs: list[dict[str, Any]]) -> list[ToRun]:
    """The jobs of a run of the experiment, in the order of the stages. `arguments` are those of snakemake that name the
    config; `costs` are rows of a table `costs`. Raises ImprintError where snakemake cannot plan the run."""
    dag = _dag(arguments)
    would_run = _makers(dag)
    stages = all_jobs(experiment)
    makers = {file: stage for stage, stage_jobs in stages.items() for file in stage_jobs.files()}
    to_run = []
    for stage, stage_jobs in stages.items():
        for wildcards in stage_jobs.jobs():
            values = wildcards._asdict() if wildcards else {}
            job = would_run.get(next(iter(stage_jobs.outputs.values())).format(**values))
            if job is None:
                continue
            runs_model = stage_jobs.stage.runs_model
            arm = stage_jobs.arm(wildcards) if runs_model else values.get("arm", "")
            to_run.append(
                ToRun(
                    stage=stage,
                    name=f"{stage} {stage_jobs.stage.job.format(**values)}".rstrip(),
                    arm=arm,
                    why=_why(job, dag.reason(job), makers, experiment.results),
                    cost=spending.of_job(experiment.config, costs, stage, arm, values.get("eval")),
                )
            )
    return to_run


def planned(arguments: list[str]) -> list[str]:
    """The files that a run would make. `arguments` are those of snakemake that name the config. Raises ImprintError
    where snakemake cannot plan the run."""
    return list(_makers(_dag(arguments)))


def _makers(dag: Any) -> dict[str, Any]:
    """File that a run would make -> snakemake's job that makes it."""
    return {str(file): job for job in dag.needrun_jobs(exclude_finished=False) for file in job.output}


def _dag(arguments: list[str]) -> Any:
    """Snakemake's graph of jobs, from a dry run that prints only errors. Raises ImprintError where there is no such
    graph."""
    from snakemake.api import SnakemakeApi
    from snakemake.cli import parse_args, parse_config
    from snakemake.exceptions import WorkflowError
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

    _, options = parse_args(["--dry-run", *arguments])  # with the keys of the default profile
    output = OutputSettings(dryrun=True, log_level_override=logging.ERROR, enable_file_logging=False)
    with SnakemakeApi(output) as api:
        workflow = api.workflow(
            ResourceSettings(cores=1), ConfigSettings(parse_config(options.config), options.configfile)
        )
        settings = DAGSettings(
            rerun_triggers=options.rerun_triggers,
            max_checksum_file_size=options.max_checksum_file_size,
            force_incomplete=True,
        )
        try:
            workflow.dag(settings).execute_workflow("dryrun")
        except WorkflowError as error:
            api.print_exception(error)
            raise ImprintError("snakemake cannot plan this run, for the reason above") from None
        return workflow._workflow.dag


def _why(job: Any, reason: Any, makers: dict[str, str], results: str) -> str:
    """Snakemake's reason to run a job, in words. `makers`: file -> the stage that makes it."""
    output = Path(job.output[0])
    if reason.missing_output:
        return "its output is not there" if origin.path_for(output).is_file() else "new"
    reasons = ["its last run was cut off"] if reason.incomplete_output else []
    reasons += list(_changed_params(job, reason, results)) if reason.params_changed else []
    reasons += ["it reads other files than before"] if reason.input_changed else []
    reasons += [f"{Path(path).name} has changed" for path in sorted(map(str, reason.updated_input))]
    made_anew = {makers[str(path)] for path in reason.updated_input_run}
    reasons += dict.fromkeys(f"its {what} change" for stage, what in WHAT.items() if stage in made_anew)
    more = f", and {len(reasons) - REASONS} more" if len(reasons) > REASONS else ""
    return "; ".join(reasons[:REASONS]) + more or str(reason)


def _changed_params(job: Any, reason: Any, results: str) -> Iterator[str]:
    """What has changed in the settings and the code of a job."""
    if adoption.OTHER_INPUTS in reason.params_changed.only_old:
        yield "it was made from other inputs"
    elif beside := origin.read(Path(job.output[0]), results):
        yield from adoption.differences(beside["params"], {name: str(value) for name, value in job.params.items()})
    else:
        yield "nothing says what it was made with"


def lines(to_run: list[ToRun], results: str) -> Iterator[str]:
    """A heading, then a line for each job, or for all jobs of an arm or a stage where that is shorter, and the costs of
    all."""
    if not to_run:
        yield f"No job has to run: {results} is up to date."
        return
    yield f"{len(to_run):,} job{'s' if len(to_run) > 1 else ''} would run in {results}:"
    groups = _grouped(to_run)
    width = max(map(len, groups))
    for label, group in groups.items():
        reasons = list(dict.fromkeys(job.why for job in group))
        more = f", and {len(reasons) - REASONS} other reasons" if len(reasons) > REASONS else ""
        time = f"  ({_cost(group)})" if any(job.cost != NOTHING for job in group) else ""
        yield f"  {label:<{width}}  {'; '.join(reasons[:REASONS])}{more}{time}"
    yield f"  In all: {_cost(to_run)}, by what an earlier run took. Jobs that run no model are not counted."


def _grouped(to_run: list[ToRun]) -> dict[str, list[ToRun]]:
    """Label of a line -> its jobs."""
    by: list[Callable[[ToRun], str]] = [
        lambda job: job.name,
        lambda job: f"{job.stage} {job.arm}" if job.arm else job.name,
        lambda job: job.stage,
    ]
    for label in by:
        groups: dict[str, list[ToRun]] = {}
        for job in to_run:
            groups.setdefault(label(job), []).append(job)
        if len(groups) <= LINES:
            break
    return {
        group[0].name if len(group) == 1 else f"{name}, {len(group):,} jobs": group for name, group in groups.items()
    }


def _cost(group: list[ToRun]) -> str:
    """The known costs of jobs in words, and how many jobs have unknown costs."""
    known = sum((job.cost for job in group if job.cost), NOTHING)
    unknown = sum(job.cost is None for job in group)
    parts = [duration(known.seconds)] if known.seconds else []
    parts += [f"{known.gpu_seconds / 3600:.2f} GPU hours"] if known.gpu_seconds else []
    parts += [("time unknown" if len(group) == 1 else f"{unknown} of unknown time")] if unknown else []
    return ", ".join(parts) or "no time"
