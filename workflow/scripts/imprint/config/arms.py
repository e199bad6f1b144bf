"""What is compared: the part `arms` of a config."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializeAsAny, model_validator

from imprint.config import amounts, references
from imprint.config.paths import Log
from imprint.config.references import Contexts, DecoderRef, Hooks, Name, Plugged
from imprint.runtime.plugins import Strict


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
    another harness. `slow: {like: ARM, fit: {learning_rate: 1e-5}}` has the keys of ARM and those that it writes
    itself: mappings are merged key by key, and null takes a key out. `slow: {like: ARM, for: {fit.learning_rate: {low:
    1e-5, high: 3e-5}}}` stands for two arms, slow_low and slow_high; texts and whole numbers name themselves
    (`for: {fit.epochs: [1, 2]}`), and several keys make every combination. `control: [slow]`, and `arms: [slow]` of an
    eval, mean all of them."""

    like: str | None = Field(
        None, description="the arm whose keys this one has where it writes none; the report shows what differs"
    )
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
        f'{", ".join(amounts.RESOURCES)}; an amount may be an expression ("32000 * attempt"); with nodes, '
        "which fits by profiles/slurm may have, each amount is that of one node; never enters the arm's identity",
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
        if self.runs and (others := sorted(self.model_fields_set - {"runs", "control", "like"})):
            raise ValueError(f"{others[0]}: logs of another harness have only `runs` and `control`; leave it out")
        return self
