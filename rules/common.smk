from imprint.identity import canonical


def one_of(names):
    """A wildcard constraint: just the configured names (and nothing, when there are none)."""
    return "|".join(sorted(names)) or "(?!)"


def run_of(wildcards):
    return Run(wildcards.arm, int(wildcards.seed), wildcards.eval)


wildcard_constraints:
    arm=one_of(experiment.config.arms),
    seed=r"\d+",
    eval=one_of(experiment.config.evals),
    dataset=one_of(experiment.config.datasets),
    model=one_of(experiment.models),
    analysis=one_of(experiment.config.analyses),
    chart=one_of(experiment.config.charts),


onsuccess:
    from imprint import verdicts

    print(verdicts.text(RESULTS))
