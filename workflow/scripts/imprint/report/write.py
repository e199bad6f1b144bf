"""The report job: gathers tables, charts and facts, and writes the report and, if needed, the page of responses."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import polars as pl

from imprint.report import RESPONSES, browser, page
from imprint.report.facts import Fit, Provenance, Spec
from imprint.runtime import parquet
from imprint.runtime.identity import atomic, read_object

PACKAGES = ("snakemake", "torch", "transformers", "trl", "peft", "polars", "duckdb")


def run(
    spec: Spec, template: Path, tables: Mapping[str, Sequence[Path]], charts: Mapping[Path, Path], out: Path
) -> None:
    """Write the page, and beside it NAME.responses.html if the page has no room for every response that an arm won or
    lost. `tables`: table -> its files; `charts`: SVG file -> caption file. Raises like `page.render`."""
    frames = {name: pl.DataFrame(pl.from_arrow(parquet.concat(paths, name))) for name, paths in tables.items()}
    drawn = {
        svg.stem.replace("_", " "): (svg.read_text(encoding="utf-8") or None, caption.read_text(encoding="utf-8"))
        for svg, caption in charts.items()
    }
    provenance = Provenance(versions={name: version(name) for name in PACKAGES}, commit=_commit())
    facts = with_manifests(_with_rows(spec, frames))
    data, beside = browser.collect(frames, facts, browser.BUDGET), out.with_suffix(".responses.html")
    if browser.holds_differences(data):
        beside.unlink(missing_ok=True)
        _write(out, page.render(template, frames, drawn, facts, provenance, data))
        return
    _write(out, page.render(template, frames, drawn, facts, provenance, data, beside.name))
    pair = page.first_pair(frames["answers"].to_dicts(), facts)
    more = browser.collect(frames, facts, browser.SIDE_BUDGET)
    _write(beside, page.responses(template.with_name(RESPONSES), more, facts, pair, out.name))


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _with_rows(spec: Spec, frames: Mapping[str, pl.DataFrame]) -> Spec:
    """The facts, with the number of rows and the sha256 of each prepared dataset."""
    prepared = {
        name: {"rows": rows.height, "sha256": rows["source_sha256"][0]}
        for (name,), rows in frames["datasets"].partition_by("dataset", as_dict=True).items()
    }
    datasets = [dataset.model_copy(update=prepared.get(dataset.name, {})) for dataset in spec.datasets]
    return spec.model_copy(update={"datasets": datasets})


def with_manifests(spec: Spec) -> Spec:
    """The facts, with what the manifests say of each fit: hashes of the weights and of the training rows."""

    def read(fit: Fit) -> Fit:
        manifest = read_object(Path(fit.manifest), "fingerprint")
        return fit.model_copy(update={key: manifest[key] for key in ("fingerprint", "weights", "data")})

    arms = [arm.model_copy(update={"fits": list(map(read, arm.fits))}) for arm in spec.arms]
    return spec.model_copy(update={"arms": arms})


def _commit() -> str | None:
    """The commit of the project; None without git or outside a repository."""
    with suppress(OSError):
        process = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, encoding="utf-8", check=False)
        return process.stdout.strip() or None
    return None
