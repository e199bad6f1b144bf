"""Whether a model's activations put roles in the order of their levels (Granularity Axis, arXiv 2605.06196). A role's
vector is the mean of the activations of its prompts, without an answer. The published one is the mean over the tokens
of answers; it costs far more, and needs a judge.

The axis of a layer is the mean vector of the high levels minus that of the low ones. It is made of half of the roles of
each level, and the roles that it was not made of are projected on it, many times over.

analyses: {geometry: {role_geometry: {arm: base, roles: roles, layer: 18}}}

A single direction (the first principal component, PC1) may hold so much of the variance that any axis follows it. So
the null is an axis of *permuted* levels, put to the same test, and `spearman_without_pc1` tests what is left without
PC1. The same quantities of the words of the roles' descriptions (`kind` words) need no model: what the activations show
beyond them is the model's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from imprint.analyses import Analysis
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Whole = npt.NDArray[np.int64]


class Settings(Strict):
    arm: str = Field(description="the arm whose activations are recorded, with its `apply`")
    roles: str = Field(description="dataset of roles with levels, such as that of the catalog entry `granularity_axis`")
    layer: int = Field(ge=0, description="the layer, counted from 0, of which the roles' projections are kept")
    positions: Literal["last_prompt", "prompt"] = Field(
        "last_prompt", description="whose activations are taken: the prompt's last token's, or the mean over its tokens"
    )
    high: list[int] = Field([4, 5], min_length=1, description="levels to which the axis leads (published: 4 and 5)")
    low: list[int] = Field([1, 2], min_length=1, description="levels from which it leads away (published: 1 and 2)")
    splits: int = Field(300, ge=1, description="times that the roles are halved; each gives an axis, and one permuted")

    @model_validator(mode="after")
    def _apart(self) -> Settings:
        if both := sorted(set(self.high) & set(self.low)):
            raise ValueError(f"high and low both have the level {both[0]}; write different levels")
        return self


def inputs(settings: Settings) -> Inputs:
    """The dataset of roles."""
    return Inputs(datasets=(settings.roles,))


def asks(settings: Settings) -> str:
    return settings.arm


def rows(job: Analysis) -> Iterator[dict[str, Any]]:
    """Rows of table `analyses`, by layer: `spearman` of projection and level of held-out roles, mean over the splits
    (null: its mean size with permuted levels), `spearman_permuted_95`, the 95% point of that size,
    `spearman_without_pc1`, `cosine_pc1` of axis and PC1 of all roles (null: the mean size with permuted levels), and
    `pc1_share` of the variance. At the settings' layer also `projection` of each role (`other`) where it is held out,
    with its level as `kind`: 0 is the mean of the low levels, 1 that of the high ones."""
    import numpy as np

    from imprint.policies.recording import of_policy

    s, data = job.settings, job.inputs.datasets[job.settings.roles]
    names, levels = _roles(s, data)
    assert job.policy is not None
    recorded = of_policy(job.policy, data, s.positions).double().numpy()
    if s.layer >= recorded.shape[1]:
        raise ImprintError(
            f"role_geometry: found layer {s.layer}, but the model has {recorded.shape[1]}; write one of 0 to "
            f"{recorded.shape[1] - 1}"
        )
    of_role = [[place for place, row in enumerate(data) if row["fields"]["role"] == name] for name in names]
    vectors = np.stack([recorded[places].mean(0) for places in of_role], 1)  # layers x roles x width
    words = _words([str(data[places[0]]["fields"].get("description", "")) for places in of_role])
    for kind, space in (("activations", vectors), ("words", words[None])):
        found = _measured(space, levels, s, job.seed)
        for quantity, (values, nulls) in found.quantities.items():
            for layer, value in enumerate(values):
                yield {
                    **{"arm": s.arm, "other": s.roles, "layer": layer if kind == "activations" else None},
                    **{"kind": kind, "quantity": quantity, "value": float(value)},
                    "null": None if nulls is None else float(nulls[layer]),
                }
        if kind == "activations":
            for name, level, value in zip(names, levels, found.projections[s.layer], strict=True):
                yield {
                    **{"arm": s.arm, "other": name, "layer": s.layer, "kind": str(level)},
                    **{"quantity": "projection", "value": float(value)},
                }


def _roles(settings: Settings, data: list[dict[str, Any]]) -> tuple[list[str], Whole]:
    """The roles in the order of the dataset, and the level of each. Raises ImprintError for a row without a role or a
    level, for a role of two levels, and for a level that has too few roles to be halved."""
    import numpy as np

    level_of: dict[str, int] = {}
    for row in data:
        fields = row.get("fields") or {}
        if not isinstance(fields.get("role"), str) or type(fields.get("level")) is not int:
            raise ImprintError(
                f"role_geometry: example {row['example_id']} of '{settings.roles}' has no role with a level; write a "
                "dataset whose rows have the fields `role` (text) and `level` (whole number)"
            )
        if level_of.setdefault(fields["role"], fields["level"]) != fields["level"]:
            raise ImprintError(
                f"role_geometry: the role {fields['role']!r:.80} of '{settings.roles}' has the levels "
                f"{level_of[fields['role']]} and {fields['level']}; give every role one level"
            )
    counts = Counter(level_of.values())
    for level in (*settings.high, *settings.low):
        if counts[level] < 2:
            raise ImprintError(
                f"role_geometry: '{settings.roles}' has {counts[level]} roles of level {level}, and an axis and a test "
                "of it need two; write a level that has more, or a larger limit"
            )
    return list(level_of), np.array(list(level_of.values()))


def _words(texts: Sequence[str]) -> Floats:
    """Which words are in each text: texts x words, 1 or 0."""
    import re

    import numpy as np

    used = [set(re.findall(r"\w+", text.casefold())) for text in texts]
    vocabulary = sorted(set().union(*used)) or [""]
    return np.array([[float(word in words) for word in vocabulary] for words in used])


class _Measured(NamedTuple):
    """Quantity -> its values and, if there is one, its null, by layer; and the projections, layers x roles."""

    quantities: dict[str, tuple[Floats, Floats | None]]
    projections: Floats


def _measured(vectors: Floats, levels: Whole, settings: Settings, seed: int) -> _Measured:
    """The quantities of role vectors [layers, roles, width]."""
    import numpy as np

    draw = np.random.default_rng(seed)
    correlations: dict[str, list[Floats]] = {"true": [], "permuted": [], "true without": [], "permuted without": []}
    cosines, projections = [], np.zeros((2, *vectors.shape[:2]))
    component, share = _pc1(vectors)
    for _ in range(settings.splits):
        fit, test = _halves(levels, draw)
        first, _ = _pc1(vectors[:, fit])
        for labels, order in (("true", levels[fit]), ("permuted", draw.permutation(levels[fit]))):
            axis, middle = _axis(vectors[:, fit], order, settings)
            projected = _projected(vectors[:, test] - middle[:, None], axis)
            correlations[labels].append(_spearman(projected, levels[test]))
            if labels == "true":
                length = np.linalg.norm(axis, axis=-1)[:, None] ** 2
                projections[:, :, test] += np.stack([projected / np.maximum(length, 1e-30), np.ones_like(projected)])
            without = axis - (axis * first).sum(-1, keepdims=True) * first
            correlations[f"{labels} without"].append(_spearman(_projected(vectors[:, test], without), levels[test]))
        cosines.append(abs(_cosine(_axis(vectors, draw.permutation(levels), settings)[0], component)))
    rho = {name: np.stack(values) for name, values in correlations.items()}
    sizes = abs(rho["permuted"])
    quantities: dict[str, tuple[Floats, Floats | None]] = {
        "spearman": (rho["true"].mean(0), sizes.mean(0)),
        "spearman_permuted_95": (np.quantile(sizes, 0.95, axis=0), None),
        "spearman_without_pc1": (rho["true without"].mean(0), abs(rho["permuted without"]).mean(0)),
        "cosine_pc1": (abs(_cosine(_axis(vectors, levels, settings)[0], component)), np.mean(cosines, 0)),
        "pc1_share": (share, None),
    }
    return _Measured(quantities, projections[0] / np.maximum(projections[1], 1))


def _halves(levels: Whole, draw: np.random.Generator) -> tuple[Whole, Whole]:
    """The roles that an axis is made of, and those that it is tested on: of each level half, at random. Of an odd
    number, the one in the middle goes to either."""
    import numpy as np

    parts: tuple[list[int], list[int]] = ([], [])
    for level in np.unique(levels):
        drawn = draw.permutation(np.flatnonzero(levels == level))
        cut = (len(drawn) + int(draw.integers(2))) // 2
        parts[0].extend(drawn[:cut])
        parts[1].extend(drawn[cut:])
    return np.array(parts[0], dtype=np.int64), np.array(parts[1], dtype=np.int64)


def _axis(vectors: Floats, levels: Whole, settings: Settings) -> tuple[Floats, Floats]:
    """The axis of each layer [layers, width], and the mean of the low levels."""
    import numpy as np

    low: Floats = vectors[:, np.isin(levels, settings.low)].mean(1)
    return vectors[:, np.isin(levels, settings.high)].mean(1) - low, low


def _pc1(vectors: Floats) -> tuple[Floats, Floats]:
    """The first principal component of each layer [layers, width], as a unit vector, and its share of the variance
    [layers]."""
    import numpy as np

    centred = vectors - vectors.mean(1, keepdims=True)
    values, weights = np.linalg.eigh(centred @ centred.transpose(0, 2, 1))
    component = (weights[:, None, :, -1] @ centred)[:, 0]
    length = np.linalg.norm(component, axis=-1, keepdims=True)
    share: Floats = values[:, -1] / np.maximum(values.sum(-1), 1e-30)
    return component / np.maximum(length, 1e-30), share


def _projected(vectors: Floats, axis: Floats) -> Floats:
    """The inner products of vectors [layers, roles, width] with their layer's axis, [layers, roles]."""
    product: Floats = (vectors @ axis[:, :, None])[:, :, 0]
    return product


def _cosine(one: Floats, other: Floats) -> Floats:
    """By layer; 0 for a vector without length."""
    import numpy as np

    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    cosine: Floats = (one * other).sum(-1) / np.maximum(lengths, 1e-30)
    return cosine


def _spearman(values: Floats, levels: Whole) -> Floats:
    """Spearman's correlation of values [layers, roles] with levels; equal ones share a mean rank, and 0 is that of
    values that are all equal."""
    from scipy.stats import rankdata

    ranks, order = rankdata(values, axis=-1), rankdata(levels)
    centred = ranks - ranks.mean(-1, keepdims=True)
    return _cosine(centred, (order - order.mean())[None])
