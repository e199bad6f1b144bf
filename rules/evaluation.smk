# Generate (the model) and score (no model) are two rules, so that a scorer's fix never generates again.
rule generate:
    input:
        manifests=lambda w: experiment.chain(w.arm, int(w.seed)),
        dataset=lambda w: experiment.dataset(experiment.config.evals[w.eval].dataset),
    output:
        generations=f"{RESULTS}/generations/{{arm}}/seed{{seed}}/{{eval}}.parquet",
        prompts=f"{RESULTS}/prompts/{{arm}}/seed{{seed}}/{{eval}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/generate/{{arm}}.seed{{seed}}.{{eval}}.tsv"
    resources:
        device=experiment.config.engine.device,
    params:
        code=lambda w: experiment.generate_code(run_of(w)),
        spec=lambda w: experiment.generate_params(run_of(w)),
    script:
        "../workflow/scripts/generate.py"


# The judge is an arm like any other; what it is asked is params, so that reading its answers anew asks it nothing.
rule judge:
    input:
        manifests=lambda w: experiment.judge_chain(w.eval),
        generations=f"{RESULTS}/generations/{{arm}}/seed{{seed}}/{{eval}}.parquet",
        dataset=lambda w: experiment.dataset(experiment.config.evals[w.eval].dataset),
    output:
        f"{RESULTS}/judgements/{{arm}}/seed{{seed}}/{{eval}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/judge/{{arm}}.seed{{seed}}.{{eval}}.tsv"
    wildcard_constraints:
        eval=one_of(name for name, ev in experiment.config.evals.items() if ev.judge),
    resources:
        device=experiment.config.engine.device,
    params:
        code=experiment.judge_code(),
        spec=lambda w: experiment.judge_params(run_of(w)),
    script:
        "../workflow/scripts/judge.py"


rule score:
    input:
        judgements=lambda w: [experiment.judgements(run_of(w))] if experiment.config.evals[w.eval].judge else [],
        generations=f"{RESULTS}/generations/{{arm}}/seed{{seed}}/{{eval}}.parquet",
        dataset=lambda w: experiment.dataset(experiment.config.evals[w.eval].dataset),
    output:
        f"{RESULTS}/scores/{{arm}}/seed{{seed}}/{{eval}}.parquet",
    params:
        code=lambda w: experiment.score_code(run_of(w)),
        spec=lambda w: experiment.score_params(run_of(w)),
    script:
        "../workflow/scripts/score.py"
