"""The rearrange job: makes a dataset from what a synthesiser reads, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imprint.runtime import needs, parquet, plugins
from imprint.runtime.identity import file_sha256, fingerprint, read_manifest
from imprint.runtime.plugins import Strict
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named, read


class Spec(Strict):
    """What the job makes: the rows of one dataset, by a synthesiser."""

    dataset: str
    plugin: str
    settings: dict[str, Any]
    inputs: Named
    limit: int | None


def run(*, spec: Spec, datasets: list[Path], runs: list[Path], scores: list[str], out: Path, attempts: Path) -> None:
    """Make one dataset. `scores` are as in `needs.check`."""
    write(spec, datasets, runs, [], None, scores, out, attempts)


def write(
    spec: Spec,
    datasets: list[Path],
    runs: list[Path],
    manifests: list[Path],
    ask: Any,
    scores: list[str],
    out: Path,
    attempts: Path,
) -> None:
    """Let the synthesiser make the rows, and write them and its attempts. `ask` puts requests to a teacher, whose
    weights `manifests` name. Raises ImprintError for a row that one of `scores` cannot judge."""
    settings = plugins.settings("synthesis", spec.plugin, spec.settings)
    synthesiser = plugins.load("synthesis", spec.plugin)
    inputs = read(spec.inputs, datasets, runs, spec.limit, whole=synthesiser.left_out(settings))
    synthesis = synthesiser.rows(settings, inputs, ask)
    parquet.write(attempts, "synthesis", [{"dataset": spec.dataset, **attempt} for attempt in synthesis.attempts])
    needs.check(scores, spec.dataset, synthesis.rows)
    # The dataset's `source_sha256` identifies what the rows were made from, not the code that made them.
    source = {
        "spec": spec.model_dump(mode="json"),
        "data": [file_sha256(path) for path in (*datasets, *runs)],
        "weights": [read_manifest(path)["fingerprint"] for path in (*manifests, *spec.inputs.manifests())],
    }
    dataset_rows.write(out, spec.dataset, synthesis.rows, fingerprint(source))
