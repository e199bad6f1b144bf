def one_of(names):
    """A wildcard constraint that fits the given names only; without names it fits nothing."""
    return "|".join(sorted(names)) or "(?!)"


def of(name, wildcard):
    """A wildcard constraint that fits the values of a wildcard in a stage's jobs."""
    return one_of({str(getattr(job, wildcard)) for job in stage[name].jobs()})


wildcard_constraints:
    arm=one_of(experiment.config.arms),
    seed=r"\d+",
    eval=one_of(experiment.config.evals),
    dataset=one_of(experiment.config.datasets),
    model=one_of(experiment.models),
    split=of("fetch_hub", "split"),
    analysis=one_of(experiment.config.analyses),
    chart=one_of(experiment.config.charts),


onsuccess:
    from imprint.report import verdicts

    print(verdicts.text(experiment.results))
