"""What charts and the report say of an experiment beside its tables: where everything comes from, arms in words, and
which evals are in the distribution that was trained on."""

from __future__ import annotations

from imprint import catalog, plugins
from imprint.checks import depends
from imprint.config import Arm, Config
from imprint.experiment import Experiment
from imprint.identity import canonical


def chart_params(experiment: Experiment, chart: str) -> str:
    """Which tables a chart reads, and the arms and evals in their order."""
    tables = experiment.tables()
    return canonical(
        {
            "chart": chart,
            "tables": {name: tables[name] for name in plugins.constant("charts", chart, "TABLES")},
            "arms": list(experiment.config.arms),
            "evals": [[name, *distribution(experiment, name)] for name in experiment.config.evals],
        }
    )


def report_params(experiment: Experiment) -> str:
    """The fields of `imprint.report.Settings` that the config decides, as the report job's params."""
    config = experiment.config
    return canonical(
        {
            "title": "What moved, and what it gained",
            "folder": experiment.results,
            "seeds": config.seeds,
            "limit": config.limit,
            "models": [
                {
                    "name": name,
                    "source": ", ".join(f"{key} {value}" for key, value in experiment.model_spec(name).items()),
                    "licence": model.licence,
                }
                for name, model in sorted(config.models.items())
            ],
            "datasets": [
                {
                    "name": name,
                    "source": f"{spec.source} {spec.name}",
                    "licence": catalog.load()[found].licence if (found := entry(config, name)) else None,
                }
                for name, spec in sorted(config.datasets.items())
            ],
            "evals": [
                {
                    "name": name,
                    "dataset": ev.dataset,
                    "score": ev.score.name,
                    "asks": plugins.load("scores", ev.score.name).ASKS,
                    "retention": ev.retention,
                    "distribution": distribution(experiment, name)[0],
                    "private": bool((found := entry(config, ev.dataset)) and catalog.load()[found].gated),
                }
                for name, ev in config.evals.items()
            ],
            "arms": [
                {
                    "name": name,
                    "what": words(arm),
                    "control": arm.control,
                    "transductive": transductive(config, name),
                }
                for name, arm in config.arms.items()
            ],
        }
    )


def transductive(config: Config, arm: str) -> bool:
    """Whether an arm, or one that its weights are made from, has adapted on an eval's prompts."""
    graph, seen, todo = depends(config), set(), [f"arm/{arm}"]
    while todo:
        if (node := todo.pop()) not in seen:
            seen.add(node)
            todo += graph[node]
    return any(spec.transductive for name, spec in config.arms.items() if f"arm/{name}" in seen)


def kinds(config: Config, dataset: str) -> tuple[str, frozenset[str]]:
    """The kinds of rows that a dataset has and what they are called, where its plug-in knows them."""
    spec = config.datasets[dataset]
    ask = None if spec.source == "synth" else getattr(plugins.load("datasets", spec.plugin), "kinds", None)
    return ask(spec.settings) if ask else ("", frozenset())


def distribution(experiment: Experiment, ev: str) -> tuple[str, list[str]]:
    """In words, whether some arm is trained on an eval's kinds of rows, and which of them are held out; nothing
    where no arm is trained on rows that have such kinds at all."""
    called, its_kinds = kinds(experiment.config, experiment.config.evals[ev].dataset)
    sets = [kinds(experiment.config, dataset) for _, dataset, _ in experiment.trainings()]
    trained = frozenset().union(*(some for name, some in sets if name == called))
    held_out = sorted(its_kinds - trained) if trained else []
    if not its_kinds or not trained:
        return "", held_out
    if held_out and len(held_out) < len(its_kinds):
        return f"{len(held_out)} of {len(its_kinds)} {called} held out", held_out
    return f"held-out {called}" if held_out else f"{called} trained on", held_out


def entry(config: Config, dataset: str) -> str | None:
    """The catalog entry behind a dataset, also when it was synthesised from it."""
    spec = config.datasets[dataset]
    if spec.source != "synth":
        return spec.entry()
    entries = (entry(config, other) for other in config.synth_needs(dataset).datasets)
    return next((found for found in entries if found), None)


def words(arm: Arm) -> str:
    """An arm in a few words, from its config."""
    said = [f"model {arm.model}" if arm.model else f"from {arm.parent}"]
    if arm.fit:
        trained = f" under the context {arm.fit.context.name}" if arm.fit.context.name != "plain" else ""
        changed = arm.fit.settings.model_dump(mode="json", exclude_unset=True, by_alias=True)
        keys = ", ".join(f"{key} {canonical(value)}" for key, value in changed.items())
        said.append(f"trained by {arm.fit.method}{trained} ({keys})")
    if arm.apply.context.name != "plain":
        said.append(f"asked in the context {arm.apply.context.name}")
    return "; ".join(said)
