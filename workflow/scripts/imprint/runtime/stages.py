"""The table of stages: each kind of job, what it makes, and whether it runs a model.

Rules, logs, `make prune`, costs, profiles, the layout of a results folder and its documentation are read
from this table. A stage has a rule of its name in rules/ and a script of its name in workflow/scripts/. The script
calls `run` of the stage's module with the job's `Spec`. The stage's class in imprint/dag/jobs says which jobs a config
needs."""

from __future__ import annotations

import re
from typing import NamedTuple

NAME = r"[a-z][a-z0-9_]*[a-z0-9]"
"""Regular expression of a name in a config."""
SHAPES = {"seed": r"\d+", "model": rf"{NAME}-[0-9a-f]{{8}}", "file": ".+", "split": r"[\w.-]+-[0-9a-f]{8}"}
"""Regular expressions of the wildcards whose values are not names of a config."""


class Stage(NamedTuple):
    """One kind of job.

    `job` is the pattern of a job's name, empty for a stage with a single job: the log is logs/STAGE/JOB.log. `outputs`
    is name -> pattern of a path, below the results folder unless it begins with resources/; an output that is a table
    has the table's name. `module` is below the package. `beside` names tables that a job writes beside its outputs
    without declaring them to Snakemake."""

    name: str
    job: str
    outputs: dict[str, str]
    module: str
    runs_model: bool = False
    beside: tuple[str, ...] = ()


STAGES = {
    stage.name: stage
    for stage in (
        Stage("fetch_model", "{model}", {"manifest": "resources/models/{model}/manifest.json"}, "models.sources"),
        Stage("reach_model", "{model}", {"manifest": "resources/models/{model}/manifest.json"}, "engines._job"),
        Stage("fetch_data", "{entry}/{file}", {"file": "resources/data/{entry}/{file}"}, "config.catalog"),
        Stage("fetch_hub", "{split}", {"manifest": "resources/hub/{split}/manifest.json"}, "config.hub"),
        Stage("prepare", "{dataset}", {"datasets": "datasets/{dataset}.parquet"}, "datasets._job"),
        Stage(
            "synthesize",
            "{dataset}",
            {"datasets": "datasets/{dataset}.parquet", "synthesis": "datasets/{dataset}.attempts.parquet"},
            "synthesis._job",
            runs_model=True,
        ),
        Stage(
            "rearrange",
            "{dataset}",
            {"datasets": "datasets/{dataset}.parquet", "synthesis": "datasets/{dataset}.attempts.parquet"},
            "synthesis._rearrange",
        ),
        Stage(
            "train",
            "{arm}.seed{seed}",
            {"manifest": "arms/{arm}/seed{seed}/manifest.json"},
            "training.launch",
            runs_model=True,
            beside=("curves", "coefficients", "rollouts"),
        ),
        Stage(
            "generate",
            "{arm}.seed{seed}.{eval}",
            {
                "generations": "generations/{arm}/seed{seed}/{eval}.parquet",
                "prompts": "prompts/{arm}/seed{seed}/{eval}.parquet",
            },
            "policies.generation",
            runs_model=True,
        ),
        Stage(
            "import_run",
            "{arm}.seed{seed}.{eval}",
            {
                "generations": "generations/{arm}/seed{seed}/{eval}.parquet",
                "prompts": "prompts/{arm}/seed{seed}/{eval}.parquet",
            },
            "imports._job",
        ),
        Stage(
            "import_values",
            "{arm}.seed{seed}.{eval}",
            {"scores": "scores/{arm}/seed{seed}/{eval}.parquet"},
            "imports._values",
        ),
        Stage(
            "judge",
            "{arm}.seed{seed}.{eval}",
            {"judgements": "judgements/{arm}/seed{seed}/{eval}.parquet"},
            "policies.judging",
            runs_model=True,
        ),
        Stage(
            "score",
            "{arm}.seed{seed}.{eval}",
            {
                "scores": "scores/{arm}/seed{seed}/{eval}.parquet",
                "scored_texts": "scored_texts/{arm}/seed{seed}/{eval}.parquet",
            },
            "scoring.score_run",
        ),
        Stage(
            "check_leakage",
            "",
            {name: f"tables/{name}.parquet" for name in ("contamination", "contamination_rows")},
            "tables.contamination",
        ),
        Stage(
            "summarize",
            "",
            {name: f"tables/{name}.parquet" for name in ("answers", "comparisons", "pairs", "summary")},
            "statistics.summarize",
        ),
        Stage(
            "collect",
            "",
            {name: f"tables/{name}.parquet" for name in ("costs", "curves", "coefficients", "synthesis")},
            "report.costs",
        ),
        Stage("analyze", "{analysis}", {"analyses": "analyses/{analysis}.parquet"}, "analyses._job"),
        Stage("probe", "{analysis}", {"analyses": "analyses/{analysis}.parquet"}, "analyses._probe", runs_model=True),
        Stage("database", "", {"database": "imprint.duckdb"}, "tables.database"),
        Stage("plot", "{chart}", {"svg": "charts/{chart}.svg", "caption": "charts/{chart}.md"}, "charts._job"),
        Stage("report", "", {"report": "report.html"}, "report.write"),
    )
}
PARTIAL = "partial.html"
"""The report that `make report` writes on what is finished so far."""
PARTS = frozenset(
    {"logs", "looks.json", PARTIAL}
    | {path.split("/")[0] for stage in STAGES.values() for path in stage.outputs.values() if "resources/" not in path}
)
"""Names of the files and folders that a run writes directly into its results folder."""


def rules_with_a_model(methods: tuple[str, ...]) -> list[str]:
    """The rules whose jobs may hold a GPU. Training has one rule for each method, so that a profile can address it."""
    names = [stage.name for stage in STAGES.values() if stage.runs_model and stage.name != "train"]
    return [*(f"train_{method}" for method in methods), *names]


def of_all_runs() -> list[str]:
    """The rules with a single job, which reads all runs."""
    return [stage.name for stage in STAGES.values() if not stage.job]


def log(stage: Stage) -> str:
    """The pattern of a job's log, below the results folder."""
    return f"logs/{stage.name}/{stage.job}.log" if stage.job else f"logs/{stage.name}.log"


def shape(pattern: str) -> str:
    """A regular expression that fits the paths of a pattern with wildcards."""
    parts = re.split(r"\{(\w+)\}", pattern)
    return "".join(SHAPES.get(part, NAME) if i % 2 else re.escape(part) for i, part in enumerate(parts))
