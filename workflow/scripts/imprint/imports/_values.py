"""The job that takes the values of a log as scores, where `take` says so."""

from __future__ import annotations

from pathlib import Path

from imprint.imports import _job
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError


class Spec(_job.Spec):
    """What the job makes. `metrics`: metric of the eval's score -> metric of the log. `primary`: the primary metric of
    the score; the log must have its counterpart."""

    metrics: dict[str, str]
    primary: str


def run(*, spec: Spec, log: Path, dataset: Path, out: Path) -> None:
    """Write the scores of a run. A row of the dataset that the log lacks, or whose value is no finite number, has the
    status "error". Raises ImprintError if the log lacks the primary metric."""
    from imprint.imports import _matching

    module, settings = spec.reader.open("imports")
    content = module.read(log, settings)
    if spec.metrics[spec.primary] not in content.metrics:
        raise ImprintError(
            f"{log}: has no metric '{spec.metrics[spec.primary]}'; write `take: {{{spec.primary}: NAME}}` with one of "
            f"{', '.join(content.metrics)}"
        )
    values_by_metric = {
        metric: content.values[name].to_list() for metric, name in spec.metrics.items() if name in content.metrics
    }
    truncated = content.samples["truncated"].to_list()
    rows = []
    for row, example in _matching.matched(content, log, dataset, spec.limit):
        for number in range(spec.samples):
            place = None if example is None else example.places.get(number)
            for metric, values in values_by_metric.items():
                value = None if place is None else values[place]
                rows.append(
                    {
                        **{"arm": spec.arm, "seed": spec.seed, "eval": spec.eval, "example_id": row["example_id"]},
                        **{"sample": number, "metric": metric, "value": value},
                        "eval_version": f"values of {spec.reader.name}",
                        "status": "error" if value is None else "scored",
                        "truncated": place is not None and bool(truncated[place]),
                    }
                )
    parquet.write(out, "scores", rows)
