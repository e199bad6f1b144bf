"""What the experiment adds to a dry run of 14,725 jobs stays small; `benchmarks/scale.py` measures all of it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from imprint.config import loading
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import scale


def test_inputs_and_params_of_all_jobs_take_a_few_seconds() -> None:
    experiment = Experiment(loading.parse(scale.config(200, 12, 3)))
    assert len(experiment.runs) == 7200
    stage = all_jobs(experiment)
    start = time.process_time()
    for name in ("generate", "score"):
        for job in stage[name].jobs():
            stage[name].params(job)
            stage[name].code(job)
            stage[name].inputs(job)
    spent = time.process_time() - start
    assert spent < 6, f"{spent:.1f} s of CPU for 14,400 jobs; a bare dry run of them takes about 50"
