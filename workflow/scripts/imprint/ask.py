"""`make ask ARM=self_prompt Q="..."`: put a question to an arm as it is applied, with its present weights."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

from imprint.config import checks, graph, loading
from imprint.dag import served
from imprint.dag.experiment import Experiment
from imprint.dag.policies import policy_of
from imprint.runtime import frame
from imprint.runtime.errors import ImprintError, shown
from imprint.tables.inputs import read


def main(arguments: list[str] | None = None) -> None:
    """Print every response that the arm's contexts and decoder ask for; the last is the answer."""
    parser = argparse.ArgumentParser(prog="python -m imprint.ask")
    parser.add_argument("--config", default=str(loading.DEFAULT))
    parser.add_argument("--seed", type=int, help="of the arm's weights; the config's first unless given")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("arm")
    parser.add_argument("question")
    options = parser.parse_args(arguments)
    try:
        experiment = Experiment(loading.load([Path(options.config)]))
        arms = experiment.config.arms
        if options.arm not in arms:
            raise ImprintError(checks.unknown("ARM", options.arm, arms, "arm"))
        if arms[options.arm].runs:
            raise ImprintError(f"ARM: '{options.arm}' has no weights, since its runs are imported; write another arm")
        if not options.question.strip():
            raise ImprintError('the question is empty; write make ask ARM=base Q="How do tides work?"')
        try:
            options.question.encode()
        except UnicodeEncodeError:
            raise ImprintError("the question is not UTF-8 text; write it in UTF-8") from None
        seed = experiment.config.seeds[0] if options.seed is None else options.seed
        if seed not in experiment.config.seeds:
            raise ImprintError(f"--seed: found {seed}; write one of {', '.join(map(str, experiment.config.seeds))}")
        if options.max_new_tokens < 1:
            raise ImprintError(f"--max-new-tokens: found {options.max_new_tokens}; write at least 1")
        chain = [Path(path) for path in experiment.chain(options.arm, seed)]
        reads = graph.of_apply(experiment.config, options.arm)
        files = experiment.files(reads, seed)
        for path in (*chain, *(Path(file) for kind in files.values() for file in kind)):
            if not path.is_file():
                command = f"snakemake --cores all {path} --configfile {options.config}"
                raise ImprintError(f"{path} is not there yet; run `{command}` first")
        frame.prepare(os.cpu_count() or 1)
        warnings.simplefilter("ignore", FutureWarning)  # the pinned libraries warn of each other's next releases
        served.tell(experiment)
        from imprint.policies import conversation

        datasets, runs = map(Path, files["datasets"]), map(Path, files["runs"])
        responses = conversation.ask(
            policy_of(experiment.config, options.arm),
            chain,
            read(experiment.named(reads, seed), datasets, runs, experiment.config.limit),
            [{"role": "user", "content": options.question}],
            options.max_new_tokens,
            frame.device(served.device(experiment, options.arm), 0),
        )
        for response in responses:
            if response.error is not None:
                raise ImprintError(response.error)
            print(shown(response.text))
        if responses[-1].finish_reason == "length":
            print(f"[cut at {options.max_new_tokens} tokens; --max-new-tokens takes more]", file=sys.stderr)
    except ImprintError as error:
        sys.exit(f"imprint.ask: {error}")


if __name__ == "__main__":
    main()
