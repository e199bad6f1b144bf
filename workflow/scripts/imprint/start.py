"""How the Snakefile gets its config, and how a command line is checked before snakemake reads any file of it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from imprint import config as configs
from imprint import leakage, model_files, plugins, run_lock, strict_yaml
from imprint.config import Config
from imprint.errors import ImprintError
from imprint.experiment import Experiment


def check_files(argv: list[str]) -> None:
    """Exit with one message if a `--configfile` is no YAML mapping. The default profile calls this, because snakemake
    itself loads those files before the Snakefile: it would answer a broken one without its name, and an alias bomb
    never."""
    names: list[str] = []
    for index, word in enumerate(argv):
        if word in ("--configfile", "--configfiles"):
            for name in argv[index + 1 :]:
                if name.startswith("-"):
                    break
                names.append(name)
        elif word.startswith(("--configfile=", "--configfiles=")):
            names.append(word.split("=", 1)[1])
    # `--configfile FILE TARGET` is ambiguous to everyone but the parser: only look at what looks like a config.
    for name in names:
        if name.endswith((".yaml", ".yml", ".json")) or Path(name).is_file():
            try:
                strict_yaml.load(Path(name))
            except ImprintError as error:
                sys.exit(f"imprint: {error}")


def typed(value: Any) -> Any:
    """A list or mapping of `--config`, whose parts snakemake leaves as text: `seeds=[0, 1]` gives numbers."""
    if isinstance(value, dict):
        return {key: typed(part) for key, part in value.items()}
    if isinstance(value, list):
        return [typed(part) for part in value]
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except (yaml.YAMLError, ValueError):  # ValueError: thousands of digits, or a day that no calendar has
        return value


def overrides(given: dict[str, Any]) -> dict[str, Any]:
    """What snakemake reads from `--config`, as the config takes it."""
    return {key: value if isinstance(value, str) else typed(value) for key, value in given.items()}


def load_config(workflow: Any) -> Config:
    """The config of this run: the `--configfile`s, else config/config.yaml, with `--config` laid on it. A problem ends
    the run at once with one message. Only the first process of a run looks for leaks, which needs the rows, and takes
    the results folder for itself."""
    settings = workflow.config_settings
    files = [Path(path) for path in settings.configfiles] or [configs.DEFAULT]
    try:
        config = configs.load(files, overrides(settings.config))
        if workflow.is_main_process:
            plugins.plan()
            leakage.check(config)
            if run_lock.changes(sys.argv[1:]):
                run_lock.hold(Experiment(config).results)
                shutil.rmtree(model_files.VERIFIED, ignore_errors=True)  # of earlier runs
    except ImprintError as error:
        # Not a WorkflowError: snakemake would add the frames of the Snakefile to it.
        sys.exit(f"imprint: {error}")
    return config
