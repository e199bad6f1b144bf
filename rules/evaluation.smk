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


rule score:
    input:
        generations=f"{RESULTS}/generations/{{arm}}/seed{{seed}}/{{eval}}.parquet",
        dataset=lambda w: experiment.dataset(experiment.config.evals[w.eval].dataset),
    output:
        f"{RESULTS}/scores/{{arm}}/seed{{seed}}/{{eval}}.parquet",
    params:
        code=lambda w: experiment.score_code(run_of(w)),
        spec=lambda w: experiment.score_params(run_of(w)),
    script:
        "../workflow/scripts/score.py"
