"""`make ask ARM=self_prompt Q="..."`: put a question to an arm, under its own context, with the weights it has now."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from imprint import checks, runtime
from imprint import config as configs
from imprint.errors import ImprintError, shown
from imprint.experiment import Experiment


def main(arguments: list[str] | None = None) -> None:
    """Print the response of every turn of the arm's context; the last is the answer."""
    parser = argparse.ArgumentParser(prog="python -m imprint.ask")
    parser.add_argument("--config", default=str(configs.DEFAULT))
    parser.add_argument("--seed", type=int, help="of the arm's weights; the config's first unless given")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("arm")
    parser.add_argument("question")
    options = parser.parse_args(arguments)
    try:
        experiment = Experiment(configs.load([Path(options.config)]))
        arms = experiment.config.arms
        if options.arm not in arms:
            raise ImprintError(checks.unknown("ARM", options.arm, arms, "arm"))
        if not options.question.strip():
            raise ImprintError('the question is empty; write make ask ARM=base Q="How do tides work?"')
        try:
            options.question.encode()
        except UnicodeEncodeError:
            raise ImprintError("the question is not UTF-8 text; write it in UTF-8") from None
        seed = experiment.config.seeds[0] if options.seed is None else options.seed
        if seed not in experiment.config.seeds:
            raise ImprintError(f"--seed: found {seed}; write one of {', '.join(map(str, experiment.config.seeds))}")
        chain = [Path(path) for path in experiment.chain(options.arm, seed)]
        for path in chain:
            if not path.is_file():
                command = f"snakemake --cores all {path} --configfile {options.config}"
                raise ImprintError(f"{path} is not there yet; run `{command}` first")
        runtime.prepare(os.cpu_count() or 1)
        from imprint import generation

        responses = generation.converse(
            chain,
            experiment.config.engine.model_dump(mode="json", exclude={"device"}),
            arms[options.arm].apply.context,
            [{"role": "user", "content": options.question}],
            options.max_new_tokens,
            runtime.device(experiment.config.engine.device, 0),
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
