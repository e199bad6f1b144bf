def one_of(names):
    """A wildcard constraint that fits the given names only; without names it fits nothing."""
    return "|".join(sorted(names)) or "(?!)"


def of(name, wildcard, on_server=False):
    """A wildcard constraint that fits the values of a wildcard in a stage's jobs, without those whose model runs on a
    server, or for those alone."""
    jobs = [job for job in stage[name].jobs() if stage[name].on_server(job) == on_server]
    return one_of({str(getattr(job, wildcard)) for job in jobs})


wildcard_constraints:
    arm=one_of(experiment.config.arms),
    seed=r"\d+",
    eval=one_of(experiment.config.evals),
    dataset=one_of(experiment.config.datasets),
    model=one_of(experiment.models),
    split=of("fetch_hub", "split"),
    analysis=one_of(experiment.config.analyses),
    chart=one_of(experiment.config.charts),


onstart:
    served.check_keys(workflow, experiment, stage)
    if workflow.local_exec:
        frame.serve_forks()


onsuccess:
    from imprint.report import verdicts

    print(verdicts.text(experiment.results))
