"""How the Snakefile gets its config, and how the config files of a command line are checked before snakemake reads
them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from imprint.config import loading, strict_yaml
from imprint.config.schema import Config
from imprint.dag import code, leakage, plan, run_lock, scored_rows
from imprint.dag.experiment import Experiment
from imprint.models import model_files
from imprint.runtime import provenance
from imprint.runtime.errors import ImprintError


def check_files(argv: list[str]) -> None:
    """Exit with one message if a `--configfile` in snakemake's arguments is not a mapping in strict YAML. The default
    profile calls this, because snakemake loads these files before the Snakefile: it would report a broken file without
    its name, and it would never finish with a file whose aliases multiply."""
    names: list[str] = []
    for index, word in enumerate(argv):
        if word in ("--configfile", "--configfiles"):
            for name in argv[index + 1 :]:
                if name.startswith("-"):
                    break
                names.append(name)
        elif word.startswith(("--configfile=", "--configfiles=")):
            names.append(word.split("=", 1)[1])
    # In `--configfile FILE TARGET` only snakemake's parser can tell the two apart, so a name that does not look like a
    # config is skipped.
    for name in names:
        if name.endswith((".yaml", ".yml", ".json")) or Path(name).is_file():
            try:
                strict_yaml.load(Path(name))
            except ImprintError as error:
                sys.exit(f"imprint: {error}")


def typed(value: Any) -> Any:
    """A value of `--config` with its texts read as YAML. Snakemake leaves the parts of lists and mappings as text; here
    `seeds=[0, 1]` gets numbers."""
    if isinstance(value, dict):
        return {key: typed(part) for key, part in value.items()}
    if isinstance(value, list):
        return [typed(part) for part in value]
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except (yaml.YAMLError, ValueError):  # ValueError: thousands of digits, or a day that no calendar has
        return value


def overrides(parsed: dict[str, Any]) -> dict[str, Any]:
    """The mapping that snakemake parses from `--config`, with the types that the config needs. A text at the top level
    stays a text, since snakemake has read it as YAML already."""
    return {key: value if isinstance(value, str) else typed(value) for key, value in parsed.items()}


def load_config(workflow: Any) -> Config:
    """The config of this run: the `--configfile`s, else config/config.yaml, overridden by `--config`. A problem ends
    the process with one message. The main process of a run also records the code of the plan, reads rows to look for
    leaks and for what scores cannot judge, and holds the results folder. The processes of jobs do none of this."""
    settings = workflow.config_settings
    files = [Path(path) for path in settings.configfiles] or [loading.DEFAULT]
    written = overrides(settings.config)
    provenance.keep_config(files, written)
    try:
        config = loading.load(files, written)
        if workflow.is_main_process:
            code.plan()
            rows = leakage.check(config)
            scored_rows.check(config, rows)
            if run_lock.dry(sys.argv[1:]):
                plan.announce(Experiment(config), rows)
            if run_lock.changes(sys.argv[1:]) and not workflow.output_settings.dryrun:
                run_lock.hold(Experiment(config).results)
                shutil.rmtree(model_files.VERIFIED, ignore_errors=True)  # the marks of earlier runs
    except ImprintError as error:
        # Not a WorkflowError, since snakemake would print the frames of the Snakefile with it.
        sys.exit(f"imprint: {error}")
    return config
