"""The report job: gathers tables, charts and facts, and writes the report and, if needed, the page of responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import polars as pl

from imprint.report import RESPONSES, browser, page
from imprint.report.facts import Fit, Provenance, Spec
from imprint.report.responses import OnDisk
from imprint.runtime import job_record, parquet, provenance
from imprint.runtime.identity import atomic, read_object

PACKAGES = ("snakemake", "torch", "transformers", "trl", "peft", "polars", "duckdb")

OF_MODELS = ("generations", "judgements", "datasets")
"""Tables whose files may have been made by a job that ran a model."""


def run(
    spec: Spec, template: Path, tables: Mapping[str, Sequence[Path]], charts: Mapping[Path, Path], out: Path
) -> None:
    """Write the page, and beside it NAME.responses.html if the page has no room for every response that an arm won or
    lost. `tables`: table -> its files; `charts`: SVG file -> caption file. Raises like `page.render`."""
    responses = OnDisk(tables["generations"], tables["prompts"])
    frames = {
        name: pl.DataFrame(pl.from_arrow(parquet.concat(tables[name], name, coded=name == "scores")))
        for name in (*page.NEEDED, "datasets")
        if name in tables and name != "generations"
    } | {"generations": responses.rows}
    drawn = {
        svg.stem.replace("_", " "): (svg.read_text(encoding="utf-8") or None, caption.read_text(encoding="utf-8"))
        for svg, caption in charts.items()
    }
    made_with = _made_with([path for name in OF_MODELS for path in tables.get(name, ())], spec)
    facts = with_manifests(_with_rows(spec, frames))
    data, beside = browser.collect(frames, facts, browser.BUDGET, responses), out.with_suffix(".responses.html")
    if browser.holds_differences(data):
        beside.unlink(missing_ok=True)
        _write(out, page.render(template, frames, drawn, facts, made_with, data))
        return
    _write(out, page.render(template, frames, drawn, facts, made_with, data, beside.name))
    pair = page.first_pair(frames["answers"].to_dicts(), facts)
    more = browser.collect(frames, facts, browser.SIDE_BUDGET, responses)
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


def _made_with(made: Iterable[Path], spec: Spec) -> Provenance:
    """What is known of this run and its machines. `made`: files of tables that jobs with a model may have made."""
    return Provenance(
        versions={name: version(name) for name in PACKAGES},
        commit=provenance.commit(),
        changes=provenance.changes(),
        configs=provenance.config_files(),
        date=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        machine=provenance.words(provenance.machine()),
        machines=machines([*made, *(Path(fit.manifest) for arm in spec.arms for fit in arm.fits)]),
    )


def machines(made: Iterable[Path]) -> dict[str, int]:
    """Machine, in words -> how many of the files were made on it, by the records of their jobs. A file whose job left
    no record ran no model."""
    last = [attempts[-1] for path in made if (attempts := job_record.read(job_record.path_for(path)))]
    counted = Counter(
        provenance.words(
            {"host": attempt.get("host"), **(attempt.get("machine") or {}), "gpus": attempt.get("gpu_names") or ()}
        )
        for attempt in last
    )
    return dict(counted.most_common())
