"""The experiment that a command is told of by snakemake's own options, `--configfile` and `--config`."""

from __future__ import annotations

import argparse
from pathlib import Path

from imprint.config import loading
from imprint.dag.experiment import Experiment
from imprint.dag.start import overrides


def add_fields(parser: argparse.ArgumentParser) -> None:
    """Let a command take both options."""
    parser.add_argument(
        "--configfile", nargs="+", type=Path, default=[loading.DEFAULT], help="the config of the experiment"
    )
    parser.add_argument("--config", nargs="*", default=[], help="KEY=VALUE in place of the config's value")


def experiment(options: argparse.Namespace) -> Experiment:
    """The experiment that the options name. Raises ImprintError for a config that is not sound, and ValueError for a
    `--config` that is no KEY=VALUE."""
    from snakemake.cli import parse_config

    return Experiment(loading.load(options.configfile, overrides(parse_config(options.config))))


def arguments(options: argparse.Namespace) -> list[str]:
    """The same options for a snakemake of ours."""
    return ["--configfile", *map(str, options.configfile), *(["--config", *options.config] if options.config else [])]
