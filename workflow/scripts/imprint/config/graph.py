"""What is made from what, by the names in a config: lineages, what each part reads, and the graph of all parts.

Every plug-in declares in `inputs(settings)` what it reads. `readers` lists the parts of a config that declare
something. Missing names and circles are found with this list; the inputs of the rules come from the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from imprint.config.references import Plugged
from imprint.config.schema import Config
from imprint.config.sources import SERVED
from imprint.runtime import plugins
from imprint.runtime.plugins import Inputs

Node = tuple[str, ...]
"""("dataset", NAME); ("arm", NAME), an arm's weights; ("run", ARM, EVAL), an arm's generations; ("analysis", NAME)."""


class Reader(NamedTuple):
    """A part of the config that reads other parts: its path in the YAML, what it reads, and the nodes that are made
    from that."""

    where: str
    inputs: Inputs
    nodes: tuple[Node, ...]


def evals_of(config: Config, arm: str) -> list[str]:
    """The evals that an arm takes, in config order: those that are asked, and those that score the responses of one of
    them."""
    chosen = chosen_by(config, arm)
    return [
        name
        for name, ev in config.evals.items()
        if (chosen is None or source(config, name) in chosen) and (ev.arms is None or arm in ev.arms)
    ]


def measured_on(config: Config, arm: str) -> list[str]:
    """The evals that an arm takes and that have a score, in config order."""
    return [ev for ev in evals_of(config, arm) if config.evals[ev].score]


def chosen_by(config: Config, arm: str) -> list[str] | None:
    """The evals that an arm names as those that it takes; None where it names none, and so takes all."""
    runs = config.arms[arm].runs
    return list(runs.evals) if runs else config.arms[arm].evals


def source(config: Config, ev: str) -> str:
    """The eval whose responses an eval scores: the one that it names in `responses`, or itself."""
    return config.evals[ev].responses or ev


def lineage(config: Config, arm: str) -> list[str]:
    """The arm and its ancestors, root first."""
    chain = [arm]
    while (parent := config.arms[chain[0]].parent) is not None:
        chain.insert(0, parent)
    return chain


def root_model(config: Config, arm: str) -> str:
    """The model at the root of an arm's lineage."""
    model = config.arms[lineage(config, arm)[0]].model
    assert model is not None
    return model


def engine_of(config: Config, arm: str) -> str:
    """The engine that runs an arm, which belongs to the arm's root model."""
    model = config.models[root_model(config, arm)]
    return SERVED if model.openai else model.engine or config.engine.name


def runs_of(config: Config) -> list[tuple[str, str]]:
    """Every (arm, eval), in config order."""
    return [(arm, ev) for arm in config.arms for ev in evals_of(config, arm)]


def _declared(plugged: Plugged) -> Inputs:
    inputs: Inputs = plugins.load(plugged.kind, plugged.name).inputs(plugged.settings)
    return inputs


def draws(plugged: Plugged) -> bool:
    """Whether a context, decoder or environment draws at a temperature of its own."""
    return plugged.kind != "hooks" and bool(plugins.load(plugged.kind, plugged.name).draws(plugged.settings))


def artifact_of(config: Config, arm: str) -> str | None:
    """The kind of artifact that an arm's fit makes; None without a fit."""
    fit = config.arms[arm].fit
    return None if fit is None else str(plugins.load("methods", fit.method).makes(fit.settings))


def makes_weights(config: Config, arm: str) -> bool:
    """Whether an arm's fit makes an artifact that counts as weights."""
    kind = artifact_of(config, arm)
    return kind is not None and bool(plugins.load("artifacts", kind).WEIGHTS)


def weights_with(config: Config, arm: str) -> list[tuple[str, str]]:
    """(kind, name) of the plug-ins that load an arm's weights."""
    kinds = {str(artifact_of(config, name)) for name in lineage(config, arm) if makes_weights(config, name)}
    return [("artifacts", kind) for kind in sorted(kinds)]


def artifact_with(config: Config, arm: str) -> list[tuple[str, str]]:
    """`weights_with`, and the plug-in of the arm's own artifact where that artifact does not count as weights."""
    own = artifact_of(config, arm)
    return list(dict.fromkeys([*weights_with(config, arm), *([("artifacts", own)] if own else [])]))


def asked_with(config: Config, arm: str) -> list[tuple[str, str]]:
    """(kind, name) of the plug-ins that take part when an arm is asked, without those of its `apply`: its engine, and
    those that load its weights."""
    return [("engines", engine_of(config, arm)), *weights_with(config, arm)]


def read_with(config: Config, inputs: Inputs) -> list[tuple[str, str]]:
    """(kind, name) of the plug-ins that are needed to read declared inputs: those that the inputs name, and those that
    load the artifacts of their arms."""
    return [*inputs.plugins, *(pair for arm in inputs.arms for pair in artifact_with(config, arm))]


def of_dataset(config: Config, name: str) -> Inputs:
    """What the plug-in of a dataset reads: for a synthesised one, the parts that it is made from."""
    spec = config.datasets[name]
    inputs: Inputs = plugins.load(spec.kind, spec.plugin).inputs(spec.settings)
    return inputs


def left_out(config: Config, name: str) -> tuple[str, ...]:
    """The datasets that a synthesised dataset reads to leave their rows out."""
    spec = config.datasets[name]
    names: tuple[str, ...] = (
        plugins.load("synthesis", spec.plugin).left_out(spec.settings) if spec.source == "synth" else ()
    )
    return names


def comes_from(config: Config, name: str) -> list[str]:
    """The datasets that the rows of a synthesised dataset come from."""
    reads, omitted = rows_of(config, of_dataset(config, name)), left_out(config, name)
    return [other for other in reads if other not in omitted]


def of_method(config: Config, arm: str) -> Inputs:
    """What the method of an arm's fit reads."""
    fit = config.arms[arm].fit
    inputs: Inputs = plugins.load("methods", fit.method).inputs(fit.settings) if fit else Inputs()
    return inputs


def of_fit(config: Config, arm: str) -> Inputs:
    """What an arm's fit reads beside the weights of its parent: the inputs of its method and of its contexts."""
    fit = config.arms[arm].fit
    return sum(map(_declared, fit.context if fit else []), of_method(config, arm))


def of_apply(config: Config, arm: str) -> Inputs:
    """What is read when an arm is asked, beside its weights: the inputs of the plug-ins of its `apply`."""
    return sum(map(_declared, config.arms[arm].apply.plugged()), Inputs())


def of_run(config: Config, arm: str, ev: str) -> Inputs:
    """What the generations of an arm on an eval are made from, beside the arm's weights and the eval's dataset."""
    environment = config.evals[ev].environment
    return of_apply(config, arm) + (_declared(environment) if environment else Inputs())


def of_scores(config: Config, ev: str) -> Inputs:
    """What a judge is shown beside the responses to an eval: the inputs of the eval's scores."""
    return sum(map(_declared, config.evals[ev].scores), Inputs())


def asked_by(config: Config, analysis: str) -> str | None:
    """The arm that an analysis asks; None for one that runs no model."""
    ref = config.analyses[analysis]
    arm: str | None = plugins.load("analyses", ref.name).asks(ref.settings)
    return arm


def of_analysis(config: Config, name: str) -> Inputs:
    """What an analysis reads: its own inputs, the arm that it asks, and what this arm reads when it is asked."""
    declared, arm = _declared(config.analyses[name]), asked_by(config, name)
    if arm is None:
        return declared
    return declared + Inputs(arms=(arm,)) + (of_apply(config, arm) if arm in config.arms else Inputs())


def readers(config: Config) -> Iterator[Reader]:
    """Every part of the config that reads other parts. A dataset that is synthesised with a teacher reads the teacher
    too."""
    for name, dataset in config.datasets.items():
        teacher = dataset.teacher()
        of_teacher = Inputs(arms=(teacher,) if teacher else ())
        yield Reader(f"datasets.{name}", of_dataset(config, name) + of_teacher, (("dataset", name),))
    for name in config.arms:
        yield Reader(f"arms.{name}.fit", of_fit(config, name), (("arm", name),))
        runs = tuple(("run", name, ev) for ev in evals_of(config, name))
        yield Reader(f"arms.{name}.apply", of_apply(config, name), runs)
    for name, ev in config.evals.items():
        yield Reader(f"evals.{name}.score", of_scores(config, name), ())  # judgements are no nodes: nothing reads them
        if ev.environment is not None:
            runs = tuple(("run", arm, name) for arm in config.arms if name in evals_of(config, arm))
            yield Reader(f"evals.{name}.environment", _declared(ev.environment), runs)
    for name in config.analyses:
        yield Reader(f"analyses.{name}", of_analysis(config, name), (("analysis", name),))


def nodes(inputs: Inputs) -> set[Node]:
    """The nodes that inputs name."""
    return {
        *(("dataset", name) for name in inputs.datasets),
        *(("arm", name) for name in inputs.arms),
        *(("run", arm, ev) for arm, ev in inputs.runs),
    }


def edges(config: Config) -> dict[Node, set[Node]]:
    """Node -> the nodes that it is made from. A name that the config does not define is a node without an entry."""
    graph: dict[Node, set[Node]] = {}
    for name, arm in config.arms.items():
        graph["arm", name] = {("arm", arm.parent)} if arm.parent else set()
    for arm_name, ev in runs_of(config):
        asked = [("run", arm_name, other)] if (other := config.evals[ev].responses) else []
        graph["run", arm_name, ev] = {("arm", arm_name), ("dataset", config.evals[ev].dataset), *asked}
    for reader in readers(config):
        for node in reader.nodes:
            graph[node] = graph.get(node, set()) | nodes(reader.inputs)
    return graph


def cycle(config: Config) -> list[Node]:
    """The first circle of nodes that are made from each other, as a path that ends with its first node; empty where
    there is no circle."""
    graph, done = edges(config), set[Node]()

    def below(node: Node, trail: list[Node]) -> list[Node]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done or node not in graph:
            return []
        for other in sorted(graph[node]):
            if path := below(other, [*trail, node]):
                return path
        done.add(node)
        return []

    return next((path for node in graph if (path := below(node, []))), [])


def behind(graph: dict[Node, set[Node]], start: set[Node]) -> set[Node]:
    """The nodes of `start`, and all nodes that these are made from, directly or not."""
    seen, todo = set[Node](), list(start)
    while todo:
        if (node := todo.pop()) not in seen:
            seen.add(node)
            todo += graph.get(node, set())
    return seen


def transductive(config: Config) -> dict[str, list[str]]:
    """Arm -> the arms that say `transductive: true` among itself and those that its weights or its `apply` are made
    from."""
    graph, adapted = edges(config), [name for name, arm in config.arms.items() if arm.transductive]
    before = {name: behind(graph, {("arm", name)} | nodes(of_apply(config, name))) for name in config.arms}
    return {name: [other for other in adapted if ("arm", other) in before[name]] for name in config.arms}


def sees(config: Config, arm: str) -> list[str]:
    """The datasets whose rows an arm is made with: those that its `fit` or `apply` reads, and those of the evals whose
    runs are read."""
    return rows_of(config, of_fit(config, arm) + of_apply(config, arm))


def held_out(config: Config) -> dict[str, list[str]]:
    """Arm -> the evals whose rows it must not have seen, in config order: those with a score that it takes itself, and
    those of arms that are made from it."""
    graph, seen = edges(config), {name: set[str]() for name in config.arms}
    for arm, ev in runs_of(config):
        for node in behind(graph, {("run", arm, ev)}) if config.evals[ev].score else ():
            if node[0] == "arm":
                seen[node[1]].add(ev)
    return {name: [ev for ev in config.evals if ev in evals] for name, evals in seen.items()}


def origins(config: Config, dataset: str) -> set[str]:
    """The dataset itself, or the datasets from whose rows it is synthesised, back to those that are not synthesised."""
    if config.datasets[dataset].source != "synth":
        return {dataset}
    return {name for other in comes_from(config, dataset) for name in origins(config, other)}


def generators(config: Config, dataset: str) -> set[str]:
    """The generators that have made the rows of a dataset, or those that the dataset is synthesised from."""
    specs = [config.datasets[name] for name in origins(config, dataset)]
    return {spec.plugin for spec in specs if spec.source == "generated"}


def near_copies_count(config: Config, dataset: str, held_out: str) -> bool:
    """Whether near copies of an eval's rows count as leaks. They do not where both datasets come from one generator: it
    puts every row together from the same sentences, so that rows that ask for different things are alike."""
    return not generators(config, dataset) & generators(config, held_out)


def rows_of(config: Config, inputs: Inputs) -> list[str]:
    """The datasets that are read, and those of the runs."""
    return list(dict.fromkeys([*inputs.datasets, *(config.evals[ev].dataset for _, ev in inputs.runs)]))
