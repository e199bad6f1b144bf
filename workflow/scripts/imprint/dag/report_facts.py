"""What charts and the report say about an experiment in addition to its tables: the sources of models and data, arms in
words, and which evals have kinds of rows that no arm was trained on."""

from __future__ import annotations

from imprint.charts import Distribution
from imprint.config import catalog, graph
from imprint.config.references import ContextRef
from imprint.config.schema import Arm, Config
from imprint.dag.experiment import Experiment
from imprint.report import facts
from imprint.runtime import plugins
from imprint.runtime.identity import canonical


def facts_of(experiment: Experiment) -> facts.Spec:
    """The report's spec."""
    config = experiment.config
    transductive = graph.transductive(config)
    return facts.Spec(
        title="What moved, and what it gained",
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
                source=f"{dataset.source} {dataset.name}",
                licence=catalog.load()[source].licence if (source := entry(config, name)) else None,
            )
            for name, dataset in sorted(config.datasets.items())
        ],
        evals=[
            facts.Eval(
                name=name,
                dataset=ev.dataset,
                score=ev.score.name,
                asks=plugins.load("scores", ev.score.name).ASKS,
                retention=ev.retention,
                distribution=distribution(experiment, name).description,
                private=bool((source := entry(config, ev.dataset)) and catalog.load()[source].gated),
            )
            for name, ev in config.evals.items()
        ],
        arms=[
            facts.Arm(name=name, what=words(arm), control=arm.control, transductive=name in transductive)
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


def distribution(experiment: Experiment, ev: str) -> Distribution:
    """The kinds of an eval's rows on which no arm is trained. Empty where the eval's rows have no kinds, and where no
    arm is trained on rows with kinds of the same sort."""
    config = experiment.config
    called, its_kinds = kinds(config, config.evals[ev].dataset)
    fits = [graph.of_fit(config, arm) for arm in config.arms]
    sets = [kinds(config, dataset) for inputs in fits for dataset in graph.rows_of(config, inputs)]
    trained = frozenset().union(*(names for name, names in sets if name == called))
    if not its_kinds or not trained:
        return Distribution()
    held_out = tuple(sorted(its_kinds - trained))
    if not held_out:
        return Distribution(f"{called} trained on")
    if len(held_out) < len(its_kinds):
        return Distribution(f"{len(held_out)} of {len(its_kinds)} {called} held out", held_out)
    return Distribution(f"held-out {called}", held_out)


def entry(config: Config, dataset: str) -> str | None:
    """The catalog entry that a dataset is read or synthesised from; None where there is none."""
    spec = config.datasets[dataset]
    if spec.source != "synth":
        return spec.entry()
    entries = (entry(config, source) for source in graph.of_dataset(config, dataset).datasets)
    return next(filter(None, entries), None)


def words(arm: Arm) -> str:
    """An arm in a few words, from its config."""
    if arm.runs:
        taken = "responses" if arm.runs.metrics is None else "responses and values"
        return f"{taken} from logs, read by {arm.runs.reader}"
    parts = [f"model {arm.model}" if arm.model else f"from {arm.parent}"]
    if arm.fit:
        changed = arm.fit.settings.model_dump(mode="json", exclude_unset=True, by_alias=True)
        keys = ", ".join(f"{key} {canonical(value)}" for key, value in changed.items())
        under = f" under the context {names}" if (names := _contexts(arm.fit.context)) else ""
        parts.append(f"trained by {arm.fit.method}{under} ({keys})")
    if names := _contexts(arm.apply.context):
        parts.append(f"asked in the context {names}")
    if arm.apply.hooks:
        parts.append(f"with the hooks {', '.join(ref.name for ref in arm.apply.hooks)}")
    if arm.apply.decode:
        parts.append(f"answers drawn by {arm.apply.decode.name}")
    return "; ".join(parts)


def _contexts(contexts: list[ContextRef]) -> str:
    """The names of contexts, without `plain`, which changes nothing."""
    return ", ".join(ref.name for ref in contexts if ref.name != "plain")
