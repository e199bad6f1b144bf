"""What charts and the report say about an experiment in addition to its tables: the sources of models and data, arms in
words, and which evals have kinds of rows that no arm was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap
from pathlib import Path

from imprint.charts import Eval
from imprint.config import catalog, graph
from imprint.config.arms import Arm
from imprint.config.references import ContextRef
from imprint.config.schema import Config
from imprint.dag.experiment import Experiment, Run, plug
from imprint.report import facts
from imprint.runtime import plugins, stages
from imprint.runtime.identity import canonical
from imprint.runtime.plugins import Strict


def facts_of(experiment: Experiment) -> facts.Spec:
    """The report's spec."""
    config = experiment.config
    transductive = graph.transductive(config)
    return facts.Spec(
        title=config.title,
        about=config.about,
        folder=experiment.results,
        seeds=config.seeds,
        limit=config.limit,
        models=[
            facts.Source(
                name=name,
                source=", ".join(f"{key} {value}" for key, value in experiment.model_spec(name).items()),
                licence=model.licence,
            )
            for name, model in sorted(config.models.items())
        ],
        datasets=[
            facts.Source(
                name=name,
                source=" ".join([dataset.source, dataset.name, *(dataset.split.words() if dataset.split else ())]),
                licence=catalog.load()[source].licence if (source := entry(config, name)) else None,
            )
            for name, dataset in sorted(config.datasets.items())
        ],
        evals=[
            facts.Eval(
                name=name,
                dataset=ev.dataset,
                score=ev.score.name if ev.score else None,
                scorer=plug(ev.score) if ev.score else None,
                asks=ev.asks,
                responses=ev.responses,
                retention=ev.retention,
                distribution=of_eval(experiment, name).description,
                private=bool((source := entry(config, ev.dataset)) and catalog.load()[source].gated),
            )
            for name, ev in config.evals.items()
        ],
        arms=[
            facts.Arm(
                name=name,
                what=words(config, name),
                settings=settings(config, name),
                fits=[
                    facts.Fit(seed=seed, manifest=experiment.fitted(name, seed)) for seed in experiment.fit_seeds(name)
                ],
                jobs=jobs(experiment, name),
                control=arm.control,
                transductive=transductive[name],
                contexts=[plug(ref) for ref in arm.apply.context],
            )
            for name, arm in config.arms.items()
        ],
    )


def kinds(config: Config, dataset: str) -> tuple[str, frozenset[str]]:
    """What a dataset's plug-in calls its kinds of rows ("instruction types"), and these kinds. Empty where the plug-in
    knows none, and for a synthesised dataset."""
    spec = config.datasets[dataset]
    if spec.source == "synth":
        return "", frozenset()
    called_and_kinds: tuple[str, frozenset[str]] = plugins.load("datasets", spec.plugin).kinds(spec.settings)
    return called_and_kinds


def of_eval(experiment: Experiment, ev: str) -> Eval:
    """What a chart is told of an eval. The kinds on which no arm is trained are empty where the eval's rows have no
    kinds, and where no arm is trained on rows with kinds of the same sort."""
    config = experiment.config
    retention = config.evals[ev].retention
    called, its_kinds = kinds(config, config.evals[ev].dataset)
    fits = [graph.of_fit(config, arm) for arm in config.arms]
    sets = [kinds(config, dataset) for inputs in fits for dataset in graph.rows_of(config, inputs)]
    trained = frozenset().union(*(names for name, names in sets if name == called))
    if not its_kinds or not trained:
        return Eval(retention=retention)
    held_out = tuple(sorted(its_kinds - trained))
    if not held_out:
        return Eval(f"{called} trained on", retention=retention)
    if len(held_out) < len(its_kinds):
        return Eval(f"{len(held_out)} of {len(its_kinds)} {called} held out", held_out, retention)
    return Eval(f"held-out {called}", held_out, retention)


def entry(config: Config, dataset: str) -> str | None:
    """The catalog entry that a dataset is read or synthesised from; None where there is none."""
    spec = config.datasets[dataset]
    if spec.source != "synth":
        return spec.entry()
    entries = (entry(config, source) for source in graph.of_dataset(config, dataset).datasets)
    return next(filter(None, entries), None)


def jobs(experiment: Experiment, name: str) -> list[facts.Job]:
    """The jobs that train an arm, that ask it, and that judge and score its responses, with their logs."""
    config = experiment.config
    asked = [(ev, seed) for ev in graph.evals_of(config, name) for seed in experiment.seeds(name, ev)]
    runs = [Run(name, seed, ev) for ev, seed in asked]
    made = [
        *(("train", None, seed) for seed in experiment.fit_seeds(name)),
        *(("import_run", run.eval, run.seed) for run in runs if run in experiment.imported),
        *(("generate", run.eval, run.seed) for run in runs if run in experiment.asked),
        *(("judge", run.eval, run.seed) for run in runs if run in experiment.judged),
        *(("import_values", run.eval, run.seed) for run in runs if run in experiment.valued),
        *(("score", run.eval, run.seed) for run in runs if run in experiment.scored),
    ]
    return [
        facts.Job(
            stage=stage,
            seed=seed,
            eval=ev,
            name=f"{stage} {stages.STAGES[stage].job.format(arm=name, seed=seed, eval=ev)}",
            log=stages.log(stages.STAGES[stage]).format(arm=name, seed=seed, eval=ev),
        )
        for stage, ev, seed in made
    ]


def words(config: Config, name: str) -> str:
    """An arm in one line: its parent, how it was trained, and how it is asked."""
    arm = config.arms[name]
    if arm.runs:
        taken = "responses" if arm.runs.metrics is None else "responses and values"
        return f"{taken} from logs, read by {arm.runs.reader}"
    line = f"the model {arm.model}" if arm.model else str(arm.parent)
    if arm.fit:
        reads = graph.of_fit(config, name)
        data = f" on {_listed(reads.datasets)}" if reads.datasets else ""
        sources = [*reads.arms, *(Path(folder).name for folder in reads.folders)]
        others = f" from {_listed(sources)}" if sources else ""
        under = f" under {_listed(names)}" if (names := _contexts(arm.fit.context)) else ""
        line += f", made by {arm.fit.method}{others}{data}{under}"
    asked = [f"asked under {_listed(names)}"] if (names := _contexts(arm.apply.context)) else []
    if arm.apply.hooks:
        asked.append(f"with the hooks {_listed([ref.name for ref in arm.apply.hooks])}")
    if arm.apply.decode:
        asked.append(f"answers drawn by {arm.apply.decode.name}")
    return "; ".join([line, *asked])


def settings(config: Config, name: str) -> str:
    """All keys of an arm's fit, apply or runs that the config sets: "fit: method sft, data dialogues, epochs 2.0". Of
    an arm that is like another one, just the keys that differ; controls are shown for every arm."""
    arm = config.arms[name]
    slots = _slots(arm)
    if arm.like is None:
        return _worded({slot: slots[slot] for slot in ("fit", "apply", "runs")})
    other = _slots(config.arms[arm.like])
    differing = {
        slot: {key: value for key, value in keys.items() if key not in other[slot] or other[slot][key] != value}
        for slot, keys in slots.items()
    }
    gone = [f"{slot}.{key}" for slot, keys in other.items() for key in keys if key not in slots[slot]]
    differences = "; ".join(filter(None, [_worded(differing), f"without {', '.join(gone)}" if gone else ""]))
    return f"like {arm.like}, but {differences}" if differences else f"like {arm.like}"


def _slots(arm: Arm) -> dict[str, dict[str, object]]:
    """The keys of an arm that the config sets, by slot. The keys of a method or reader stand beside those of its fit
    or runs."""
    keys = arm.model_dump(mode="json", exclude={"like", "control", "resources"}, exclude_unset=True, by_alias=True)
    fit = keys.pop("fit", None) or {}
    of_method = fit.pop("settings", {})
    if arm.fit:
        named = [field.alias or name for name, field in plugins.fields(type(arm.fit.settings)).items()]
        of_method = {key: of_method[key] for key in named if key in of_method}
    runs = keys.pop("runs", None) or {}
    of_reader = runs.pop("settings", {})
    apply = keys.pop("apply", {})
    return {"arm": keys, "fit": {**fit, **of_method}, "apply": apply, "runs": {**runs, **of_reader}}


def _worded(slots: dict[str, dict[str, object]]) -> str:
    return "; ".join(f"{slot}: {', '.join(starmap(_setting, of.items()))}" for slot, of in slots.items() if of)


def _setting(key: str, value: object) -> str:
    return f"{key} {value if isinstance(value, str) else canonical(value)}"


def _contexts(contexts: list[ContextRef]) -> list[str]:
    """The contexts by name, with the texts that each must be given ("prior_prompt plan"). `plain` is left out, since it
    changes nothing."""
    return [" ".join([ref.name, *_required_texts(ref.settings)]) for ref in contexts if ref.name != "plain"]


def _required_texts(settings: Strict) -> list[str]:
    values = settings.model_dump()
    return [
        values[name]
        for name, field in type(settings).model_fields.items()
        if field.is_required() and isinstance(values[name], str)
    ]


def _listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
