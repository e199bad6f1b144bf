# Imprint. One YAML file says which models, datasets, arms and evals; this makes the tables and the report.
#
# resources/models/{model}/manifest.json                   fetched, pinned      ({model} = name-fingerprint)
# resources/data/{entry}/{file}                            fetched, pinned
# results/datasets/{dataset}.parquet                       read, generated or synthesised
# results/arms/{arm}/seed{seed}/manifest.json              weights and curves beside it
# results/generations/{arm}/seed{seed}/{eval}.parquet      prompts/... has the rendered prompts
# results/judgements/{arm}/seed{seed}/{eval}.parquet       a judge arm's answers, of evals that name one
# results/scores/{arm}/seed{seed}/{eval}.parquet
# results/tables/{summary,comparisons,costs,curves,coefficients,contamination,synthesis}.parquet     results/imprint.duckdb
# results/analyses/{analysis}.parquet                     of arms' weights
# results/charts/{chart}.svg                               results/report.html
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir, "workflow/scripts")))

from imprint import adoption, placement, report_facts
from imprint.experiment import Experiment, Run
from imprint.start import load_config

experiment = Experiment(load_config(workflow))
RESULTS = experiment.results


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        f"{RESULTS}/imprint.duckdb",
        # A report that is there would hide that one of them is not.
        **experiment.tables(),


include: "rules/common.smk"
include: "rules/resources.smk"
include: "rules/synthesis.smk"
include: "rules/training.smk"
include: "rules/evaluation.smk"
include: "rules/analysis.smk"
include: "rules/report.smk"


placement.place(workflow, {name: arm.resources for name, arm in experiment.config.arms.items()}, experiment.arm_of)

if workflow.is_main_process:
    adoption.adopt(workflow, experiment.outputs(), RESULTS)
