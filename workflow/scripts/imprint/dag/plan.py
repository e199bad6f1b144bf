"""What the questions of an experiment can find out with the examples and seeds that its config has, before it runs.

The variances of a question's difference come from a pilot: the answers of a finished experiment that has the same eval
and metric. Without a pilot, they are stated by the user, or assumed (`Stated`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from imprint.config import graph
from imprint.dag import asked, leakage
from imprint.dag.experiment import Experiment
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError, shown
from imprint.statistics.summarize import AskedQuestion
from imprint.tables import dataset_rows

if TYPE_CHECKING:
    from imprint.statistics.planning import Variances

DISCORDANT = 0.2
"""The variance of the difference of two 0/1 scores that differ on a fifth of the examples."""


class Stated(NamedTuple):
    """Variances that no pilot shows. `sd`: the standard deviation of an example's difference; None is that of a 0/1
    score which differs on a fifth of the examples. `seed_sd`: of an arm's mean between training runs."""

    sd: float | None = None
    seed_sd: float = 0.03


class Planned(NamedTuple):
    """A question as it is planned.

    `clusters`: its clusters of examples; None where the rows are not there yet. `seeds`: 0 where neither side is
    fitted. `pilot`: a row of a pilot's table `answers`; None where no row is about the same eval and metric.
    `fitted_sides`: how many of its two arms are fitted. `fitted_arms`: how many fitted arms take its eval. `single`:
    whether a side has a single training run at any number of seeds.
    """

    question: AskedQuestion
    clusters: int | None
    seeds: int
    pilot: dict[str, Any] | None
    fitted_sides: int
    fitted_arms: int
    single: bool


def planned(experiment: Experiment, pilot: Path | None, rows: leakage.Cache) -> list[Planned]:
    """The questions of an experiment as they are planned. `pilot`: a file of the table `answers`. `rows`: the rows of
    datasets that were read."""
    config = experiment.config
    answers = parquet.read(pilot, "answers").to_pylist() if pilot else []
    plans = []
    for question in asked.questions(config):
        sides = (question.arm, question.control)
        fitted = [side for side in sides if experiment.trained_by_seed(side)]
        takers = [arm for arm in config.arms if question.eval in graph.evals_of(config, arm)]
        plans.append(
            Planned(
                question=question,
                clusters=_clusters(experiment, question, rows),
                seeds=max(config.final_seeds or 0, len(config.seeds)) if fitted else 0,
                pilot=_alike(answers, question),
                fitted_sides=len(fitted),
                fitted_arms=sum(experiment.trained_by_seed(arm) for arm in takers),
                single=any(experiment.trained(side) and side not in fitted for side in sides),
            )
        )
    return plans


def _alike(answers: list[dict[str, Any]], question: AskedQuestion) -> dict[str, Any] | None:
    """The pilot's answer about the same arms, else one about other arms with the same metric of the same eval."""
    same = [row for row in answers if (row["eval"], row["metric"], row["over"]) == _measured(question)]
    known = [row for row in same if row["var_examples"] is not None]
    exact = [row for row in known if (row["arm"], row["control"]) == (question.arm, question.control)]
    return next(iter([*exact, *known]), None)


def _measured(question: AskedQuestion) -> tuple[str, str, str | None]:
    return question.eval, question.metric, question.over


def _clusters(experiment: Experiment, question: AskedQuestion, cache: leakage.Cache) -> int | None:
    """How many clusters of examples the question will have; None where its rows are not there yet."""
    config = experiment.config
    dataset = config.evals[question.eval].dataset
    path = Path(experiment.dataset(dataset))
    known = dataset_rows.read(path, config.limit) if path.is_file() else leakage.readable(config, dataset, cache) or []
    if question.over is not None:
        return len({str((row.get("strata") or {}).get(question.over)) for row in known}) or None
    return len({row.get("cluster") or dataset_rows.cluster(row["example_id"]) for row in known}) or None


def announce(experiment: Experiment, rows: leakage.Cache) -> None:
    """Say at a dry run what each question can find out, on stderr. `rows`: the rows of datasets that were read."""
    from imprint.statistics import planning  # imports scipy, without which a run can be planned

    answers = Path(experiment.results, "tables/answers.parquet")
    try:
        plans = planned(experiment, answers if answers.is_file() else None, rows)
    except ImprintError:  # an answers table of another version, which the run is about to make again
        plans = planned(experiment, None, rows)
    for plan in plans:
        reach = within_reach(plan, planning.critical(len(plans)), Stated())
        print(shown(f"{plan.question.name} on {plan.question.eval}: {reach}"), file=sys.stderr)


def within_reach(plan: Planned, z: float, stated: Stated) -> str:
    """What the planned examples and seeds can show, as a sentence."""
    from imprint.statistics import planning

    components, source = variances(plan, stated)
    if plan.clusters is None:
        return "Its examples are not there yet, so nothing can be said; run the experiment to its dataset first."
    what = "differences" if plan.question.kind == "gain" else "margins"
    smallest = planning.reach(components, z, plan.clusters, plan.seeds, plan.question.kind)
    amounts = f"{plan.clusters:,} examples" + (f" and {plan.seeds} seeds" if plan.seeds > 1 else "")
    one_run = ""
    if plan.single:
        one_run = " This is about weights of a single training run, which no seed repeats."
    elif plan.seeds == 1:
        one_run = " This is about one training run; three seeds or more ask about the method."
    return f"With {amounts}, {what} from {smallest:.2g} on will be seen with 80% power ({source}).{one_run}"


def variances(plan: Planned, stated: Stated) -> tuple[Variances, str]:
    """The variances of a question's difference, and where they come from. The variance between training runs, which a
    pilot with one seed does not show, is then the stated one."""
    from imprint.statistics.planning import Variances

    of_runs = plan.fitted_sides * stated.seed_sd**2 if plan.seeds > 1 else 0.0
    lending = plan.fitted_arms - 1 if plan.fitted_sides > 1 else plan.fitted_arms * bool(plan.fitted_sides)
    if (pilot := plan.pilot) is None:
        of_examples = DISCORDANT if stated.sd is None else stated.sd**2
        source = "assumed: a 0/1 score that differs on a fifth of the examples" if stated.sd is None else "stated"
        return Variances(of_examples, 0.0, of_runs, lending), source
    source = f"pilot: {pilot['arm']} against {pilot['control']}"
    if of_runs and pilot["var_runs"] is None:
        source += f", which had one seed; training runs spread by {stated.seed_sd:g}"
    elif of_runs:
        of_runs = pilot["var_runs"]
    return Variances(pilot["var_examples"], pilot["var_answers"], of_runs, lending), source
