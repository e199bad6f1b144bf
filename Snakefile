# Imprint. One YAML file names models, datasets, arms and evals; this workflow makes the tables and the report.
#
# The table in workflow/scripts/imprint/runtime/stages.py has what each rule makes, and where. The classes in
# workflow/scripts/imprint/dag/jobs say which jobs there are, what each job reads, its spec and its code.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir, "workflow/scripts")))

from imprint.dag import adoption, failures, placement, room, served
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.dag.start import load_config
from imprint.runtime import frame

experiment = Experiment(load_config(workflow))
stage = all_jobs(experiment)
served.tell(experiment)


rule all:
    default_target: True
    input:
        # The tables are named too, since an existing report would hide that one of them is missing.
        [file for name in ("report", "database") for file in stage[name].files()],
        [file for files in stage["database"].inputs(()).values() for file in files],


include: "rules/common.smk"
include: "rules/resources.smk"
include: "rules/synthesis.smk"
include: "rules/training.smk"
include: "rules/evaluation.smk"
include: "rules/servers.smk"
include: "rules/analysis.smk"
include: "rules/report.smk"


placement.place(workflow, experiment.config, stage)

if workflow.is_main_process:
    room.guard(workflow, stage["train"])
    failures.tell_at_end(workflow)
    adoption.adopt(workflow, [file for jobs in stage.values() for file in jobs.files()], experiment.results)
