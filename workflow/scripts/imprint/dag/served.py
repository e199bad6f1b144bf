"""Models on servers, as a run sees them: how they are asked, and whether their keys are there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from imprint.config import graph
from imprint.dag.experiment import Experiment
from imprint.runtime import servers
from imprint.runtime.errors import ImprintError
from imprint.runtime.servers import Access


def tell(experiment: Experiment) -> None:
    """Tell the jobs of this process and of those that it starts how each model on a server is asked."""
    models = {experiment.model_key(name): model for name, model in experiment.config.models.items() if model.openai}
    servers.tell({key: Access(key_env=each.key_env, limits=each.limits) for key, each in models.items()})


def device(experiment: Experiment, arm: str) -> str:
    """Where an arm runs, as a rule's resource `device` says it: on a server, or what the config says."""
    on_server = experiment.config.models[graph.root_model(experiment.config, arm)].openai
    return servers.DEVICE if on_server else experiment.config.engine.device


def check_keys(workflow: Any, experiment: Experiment, stage: Mapping[str, Any]) -> None:
    """End the process with one message where a run is going to ask a server whose key is not set. It is called when
    Snakemake has planned the run, before the first job. A run that asks nobody needs no key."""
    planned = {str(file) for job in workflow.dag.needrun_jobs() for file in job.output}
    models = []
    for jobs in stage.values():
        for job in jobs.jobs():
            if jobs.on_server(job) and planned & set(jobs.files_of(job)):
                models.append(graph.root_model(experiment.config, jobs.arm(job)))
            elif jobs.name == "reach_model" and planned & set(jobs.files_of(job)):
                models.append(experiment.models[job.model])
    try:
        for model in dict.fromkeys(models):
            servers.key(servers.access(experiment.model_key(model)), model)
    except ImprintError as error:
        sys.exit(f"imprint: {error}")
