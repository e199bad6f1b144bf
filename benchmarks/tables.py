"""What the tables of a large experiment cost: `python benchmarks/tables.py [--rows 1 3 10]`, in millions of score rows.

Made-up runs of 20 arms for each million rows (200 arms for 10 million), 12 evals and 3 seeds are written into a
temporary folder by the writers of the pipeline, in its layout: a file of scores for each arm, seed and eval. The job
`summarize` then runs on them in a process of its own, with one thread, as its rule runs it. CPU seconds (user and
system, of all threads and children) and peak resident memory are taken. The jobs `summarize`, `collect`, `database` and
`report` also run on 200 arms x 12 evals x 300 examples with responses of 1 KB, and `python -m imprint.score` on
541 prompts with verifiable instructions and on 100,000 answers that are numbers.

The summaries and comparisons of a small experiment are first compared with plain sums over its rows. The last line is
one JSON object: figures, limits, and whether they hold.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from imprint.datasets import ifeval_format
from imprint.runtime import parquet
from imprint.runtime.plugins import Plug
from imprint.runtime.schemas import SCHEMAS
from imprint.tables import dataset_rows

TEMPLATE = Path(__file__).resolve().parents[1] / "resources/report.html.jinja"
SEEDS = 3
ARMS_A_MILLION = 20
EXAMPLES = 170  # of each eval, so that an arm with its seeds has some 50,000 score rows
LIMITS = {"seconds": 60.0, "gb": 4.0, "growth": 1.2, "ifeval": 10.0, "numeric": 60.0}
"""CPU seconds and peak memory of `summarize` with the most rows; seconds for a row with the most rows over those with
the fewest; CPU seconds of scoring."""
OF_RESPONSES = {"response_tokens": (False, 0), "answer_tokens": (False, 0), "delimiter_missing": (False, 0)}


class Kind(NamedTuple):
    """A kind of eval: its score, its metrics, the samples of an example, and how many items an example may have."""

    score: str
    metrics: dict[str, tuple[bool, int]]
    by_item: dict[str, tuple[bool, int]]
    samples: int = 1
    items: int = 1

    def all_metrics(self) -> dict[str, tuple[bool, int]]:
        """Every metric with its direction and whether it is the primary one."""
        return {**self.metrics, **self.by_item, **({} if self.score == "options" else OF_RESPONSES)}


FORMS = Kind(
    "ifeval",
    {"prompt_strict": (True, 1), "prompt_loose": (False, 1)},
    {"instruction_strict": (False, 1), "instruction_loose": (False, 1)},
    items=3,
)
SUMS = Kind("numeric", {"accuracy": (True, 1)}, {})
CHOICES = Kind("options", {"accuracy": (True, 1), "chance": (False, 0)}, {"picked": (False, 0)}, items=4)
EVALS = {
    **{f"forms{n}": FORMS for n in range(4)},
    **{f"sums{n}": SUMS for n in range(4)},
    **{f"draws{n}": SUMS._replace(samples=4) for n in range(2)},
    **{f"choices{n}": CHOICES for n in range(2)},
}


class Size(NamedTuple):
    """How large an experiment is. `characters`: of a response."""

    arms: int
    examples: int = EXAMPLES
    seeds: int = SEEDS
    characters: int = 0

    def names(self) -> list[str]:
        """The arms: an untrained one, and fits, of which every second one is asked with a prompt."""
        return ["base", *(f"arm{number:04d}" for number in range(1, self.arms))]

    def runs(self) -> list[tuple[str, int, str]]:
        """(arm, seed, eval), in the order of the pipeline. The untrained arm has one seed."""
        return [
            (arm, seed, name)
            for arm in self.names()
            for name in EVALS
            for seed in range(1 if arm == "base" else self.seeds)
        ]

    def controls(self) -> dict[str, list[str]]:
        """Every arm against the untrained one, and a prompted fit against the fit too."""
        names = self.names()
        return {
            arm: [] if not place else ["base"] if place % 2 else [names[place - 1], "base"]
            for place, arm in enumerate(names)
        }


class Eval(NamedTuple):
    """The examples of an eval: ids, clusters, and how many items each has, shape (examples,)."""

    ids: list[str]
    clusters: list[str]
    items: np.ndarray[Any, np.dtype[np.int64]]


def examples(name: str, size: Size) -> Eval:
    """Five examples of `sums` share a template; the others stand alone."""
    ids = dataset_rows.ids(f"{name} {number}" for number in range(size.examples))
    of_kind, draw = EVALS[name], np.random.default_rng([*name.encode()])
    items = draw.integers(1, 4, size.examples) if of_kind is FORMS else np.full(size.examples, of_kind.items)
    clusters = [f"template {number // 5}" if name.startswith("sums") else each for number, each in enumerate(ids)]
    return Eval(ids, clusters, items)


def scores(run: tuple[str, int, str], of: Eval, draw: np.random.Generator) -> pa.Table:
    """The score rows of a run: every example x sample has a row a metric, and a row an item for metrics by item. One
    response in a hundred has failed; one in fifty is unparsed."""
    arm, seed, name = run
    kind, n = EVALS[name], len(of.ids)
    skill = 0.4 + 0.2 * (int(arm[3:]) % 7) / 7 if arm != "base" else 0.4
    failed = draw.random((n, kind.samples)) < 0.01
    unparsed, truncated = draw.random((n, kind.samples)) < 0.02, draw.random((n, kind.samples)) < 0.1
    columns: dict[str, list[Any]] = {key: [] for key in ("example", "sample", "metric", "item", "value")}

    def add(metric: str, example: Any, sample: Any, item: Any, value: Any) -> None:
        for key, part in zip(columns, (example, sample, np.full(len(example), metric), item, value), strict=True):
            columns[key].append(part)

    example, sample = (grid.ravel() for grid in np.mgrid[:n, : kind.samples])
    none = np.full(len(example), -1)
    for metric in kind.all_metrics():
        if metric in kind.by_item:
            rows = np.repeat(np.arange(len(example)), np.where(failed.ravel(), 1, of.items[example]))
            first = np.concatenate([[True], rows[1:] != rows[:-1]])
            item = np.arange(len(rows)) - np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
            item = np.where(failed.ravel()[rows], -1, item)
            add(metric, example[rows], sample[rows], item, draw.random(len(rows)) < skill + 0.1)
        elif metric.endswith("tokens"):
            add(metric, example, sample, none, draw.integers(20, 400, len(example)))
        else:
            add(metric, example, sample, none, draw.random(len(example)) < skill)
    flat = {key: np.concatenate(parts) for key, parts in columns.items()}
    place = (flat["example"], flat["sample"])
    primary = np.isin(flat["metric"], list(kind.metrics))
    status = np.where(failed[place], "error", np.where(unparsed[place] & primary, "unparsed", "scored"))
    item = pa.array(flat["item"], mask=flat["item"] < 0)
    rows_of_run = len(status)
    return pa.table(
        {
            "arm": pa.repeat(arm, rows_of_run),
            "seed": pa.repeat(seed, rows_of_run),
            "eval": pa.repeat(name, rows_of_run),
            "eval_version": pa.repeat(f"{kind.score} 1", rows_of_run),
            "example_id": pa.array(of.ids).take(pa.array(flat["example"])),
            "sample": flat["sample"],
            "metric": flat["metric"],
            "item": item,
            "item_label": pa.array([f"kind:of_item_{each}" for each in range(4)]).take(item),
            "value": pa.array(flat["value"].astype(float), mask=failed[place]),
            "status": status,
            "truncated": truncated[place],
        }
    )


def responses(run: tuple[str, int, str], of: Eval, size: Size, text: str) -> tuple[pa.Table, pa.Table]:
    """The responses of a run, slices of `text`, and their prompts, which all arms share. Of options, the texts are
    short."""
    arm, seed, name = run
    kind = EVALS[name]
    options = kind.items if kind.score == "options" else kind.samples
    n, draw = len(of.ids) * options, np.random.default_rng([seed, *arm.encode(), *name.encode()])
    starts = draw.integers(0, len(text) - size.characters, n)
    length = 20 if kind.score == "options" else size.characters
    digests = [f"{each.split('-')[0]:0>64}" for each in of.ids]
    rows = {
        "arm": pa.repeat(arm, n),
        "seed": pa.repeat(seed, n),
        "eval": pa.repeat(name, n),
        "example_id": np.repeat(of.ids, options),
        "sample": np.tile(np.arange(options), len(of.ids)),
        "turn": pa.repeat(0, n),
        "final": pa.repeat(True, n),
        "prompt_sha256": np.repeat(digests, options),
        "response": [text[start : start + length] for start in starts],
        "finish_reason": pa.repeat("stop", n),
        "prompt_tokens": pa.repeat(200, n),
        "response_tokens": draw.integers(20, 400, n),
        "answer_tokens": draw.integers(20, 400, n),
        "logprob_sum": -draw.random(n) * 100,
        "seconds": draw.random(n),
        "engine": pa.repeat("transformers", n),
        **{column: pa.nulls(n, pa.string()) for column in ("state", "error")},
    }
    prompts = [f"{each}\n{text[number * 10 : number * 10 + size.characters]}" for number, each in enumerate(of.ids)]
    return pa.table(rows), pa.table(
        {"prompt_sha256": digests, "prompt": prompts, "template_sha256": ["0" * 64] * len(prompts)}
    )


REFERENCES = {
    "ifeval": {"instruction_id_list": ["punctuation:no_comma"] * 3, "kwargs": [{}] * 3},
    "numeric": {"answer": "18"},
    "options": {"options": ["red", "green", "blue", "grey"], "answer": 1},
}


def written(folder: Path, size: Size) -> int:
    """Write the datasets, scores and, where responses have characters, generations and prompts of an experiment; the
    number of score rows."""
    draw, rows = np.random.default_rng(0), 0
    of_evals = {name: examples(name, size) for name in EVALS}
    words = np.array(["a", "gardener", "plants", "rows", "of", "trees", "and", "sells", "each", "for", "some", "money"])
    text = " ".join(words[draw.integers(0, len(words), 200_000)])
    for name, of in of_evals.items():
        dataset_rows.write(
            folder / f"datasets/{name}.parquet",
            name,
            [
                {
                    "example_id": each,
                    "messages": [{"role": "user", "content": f"What does {each} ask?"}],
                    "reference": REFERENCES[EVALS[name].score],
                    "cluster": cluster,
                }
                for each, cluster in zip(of.ids, of.clusters, strict=True)
            ],
            "0" * 64,
        )
    for run in size.runs():
        table = scores(run, of_evals[run[2]], draw)
        rows += table.num_rows
        parquet.write(file(folder, "scores", run), "scores", table)
        if size.characters:
            of_run = responses(run, of_evals[run[2]], size, text)
            for name, table in zip(("generations", "prompts"), of_run, strict=True):
                parquet.write(file(folder, name, run), name, table)
    return rows


def file(folder: Path, table: str, run: tuple[str, int, str]) -> Path:
    """The file of a table of a run."""
    arm, seed, name = run
    path = folder / f"{table}/{arm}/seed{seed}/{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def files(folder: Path, size: Size, *names: str) -> dict[str, list[Path]]:
    """Table -> its files, of tables of runs."""
    return {name: [file(folder, name, run) for run in size.runs()] for name in names}


# ---- the jobs, each in a process of its own


def run_summarize(folder: Path, size: Size) -> None:
    """The job `summarize`, with 24 questions."""
    from imprint.statistics import summarize

    asked = [
        summarize.AskedQuestion(
            name=f"{arm} gains on {name}",
            asks="Does it gain?",
            arm=arm,
            control="base",
            eval=name,
            metric=next(metric for metric, (primary, _) in EVALS[name].all_metrics().items() if primary),
            kind="gain",
            margin=0.0,
            over=None,
            check=None,
        )
        for arm in size.names()[1:3]
        for name in EVALS
    ]
    spec = summarize.Spec(
        arms={arm: list(EVALS) for arm in size.names()},
        fitted=size.names()[1:],
        single=[],
        runs=size.runs(),
        metrics={name: kind.all_metrics() for name, kind in EVALS.items()},
        controls=size.controls(),
        datasets={name: name for name in EVALS},
        questions=asked,
        plan=summarize.Plan(version="v", seeds=size.seeds, looks=str(folder / "looks.json")),
    )
    summarize.run(
        spec=spec,
        scores=files(folder, size, "scores")["scores"],
        datasets=[folder / f"datasets/{name}.parquet" for name in sorted(EVALS)],
        manifests=[],
        out=made(folder, "summary", "comparisons", "pairs", "answers"),
    )


def made(folder: Path, *names: str) -> dict[str, Path]:
    """Table -> its file, of tables of the complete experiment."""
    (folder / "tables").mkdir(exist_ok=True)
    return {name: folder / f"tables/{name}.parquet" for name in names}


def run_collect(folder: Path, size: Size) -> None:
    """The job `collect`."""
    from imprint.report import costs

    jobs = [
        costs.Costed(
            stage="generate",
            arm=run[0],
            seed=run[1],
            eval=run[2],
            output=str(file(folder, "generations", run)),
            table="generations",
        )
        for run in size.runs()
    ]
    out = made(folder, "costs", "curves", "coefficients", "synthesis")
    costs.run(spec=costs.Spec(jobs=jobs), manifests=[], synthesis=[], out=out)


def all_tables(folder: Path, size: Size) -> dict[str, list[Path]]:
    """What the database and the report read."""
    empty = made(folder, "contamination", "contamination_rows")
    for name, path in empty.items():
        parquet.write(path, name, SCHEMAS[name].empty_table())
    alone = made(folder, "summary", "comparisons", "pairs", "answers", "costs", "curves", "coefficients", "synthesis")
    return {
        **files(folder, size, "scores", "generations", "prompts"),
        **{name: [path] for name, path in {**alone, **empty}.items()},
        "datasets": [folder / f"datasets/{name}.parquet" for name in EVALS],
    }


def run_database(folder: Path, size: Size) -> None:
    """The job `database`."""
    from imprint.tables import database

    database.run(database.Spec(arms=[], evals=[]), folder / "imprint.duckdb", all_tables(folder, size))


def run_report(folder: Path, size: Size) -> None:
    """The job `report`."""
    from imprint.report import facts, write

    controls = size.controls()
    spec = facts.Spec(
        title="A large experiment",
        arms=[facts.Arm(name=arm, what=arm, control=controls[arm]) for arm in size.names()],
        evals=[
            facts.Eval(
                name=name,
                dataset=name,
                score=kind.score,
                scorer=Plug(name=kind.score),
                asks="loglikelihood" if kind.score == "options" else "generate",
            )
            for name, kind in EVALS.items()
        ],
        models=[],
        datasets=[],
        seeds=list(range(size.seeds)),
        limit=None,
    )
    write.run(spec, TEMPLATE, all_tables(folder, size), {}, folder / "report.html")


JOBS = {"summarize": run_summarize, "collect": run_collect, "database": run_database, "report": run_report}


def measured(job: str, folder: Path, size: Size) -> dict[str, float]:
    """What a job costs on a folder."""
    found = cost([__file__, "--job", job, "--folder", str(folder), "--size", json.dumps(size)])
    print(f"{job}, {size.arms} arms x {len(EVALS)} evals x {size.seeds} seeds: {found}", flush=True)
    return found


def cost(words: list[str]) -> dict[str, float]:
    """CPU seconds and peak resident memory, in GB, of a Python process with one thread. What it prints is lost. The
    system counts the memory of this process, which starts it, as its least peak."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"), "1")
    process = subprocess.Popen([sys.executable, *words], env={**os.environ, **threads}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(words)} failed")
    return {"seconds": round(usage.ru_utime + usage.ru_stime, 1), "gb": round(usage.ru_maxrss * 1024 / 1e9, 2)}


def scoring(folder: Path, share: float = 1.0) -> dict[str, dict[str, float]]:
    """What `python -m imprint.score` costs: of 541 responses of some 200 words to prompts with one to three verifiable
    instructions, and of 100,000 responses of some 50 words that end in a number; or of a share of them."""
    draw = random.Random(0)
    words = ["A", "gardener", "plants", "rows", "of", "trees.", "And", "sells", "each,", "for", "*some*", "money\n\n"]
    settings = ifeval_format.Settings(n=int(541 * share), instructions="all", part="test", per_prompt=3)
    of_score = {
        "ifeval": [
            {**row["reference"], "response": " ".join(draw.choices(words, k=200))}
            for row in ifeval_format.rows(settings, {})
        ],
        "numeric": [
            {
                "answer": str(number),
                "response": f"{' '.join(draw.choices(words, k=50))}\n#### {draw.choice((number, 7)):,}",
            }
            for number in range(int(100_000 * share))
        ],
    }
    found = {}
    for score, rows in of_score.items():
        path = folder / f"{score}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found[score] = cost(["-m", "imprint.score", score, str(path)])
        print(f"imprint.score {score}, {len(rows)} responses: {found[score]}", flush=True)
    return found


# ---- the small experiment


def rows_of(folder: Path, size: Size) -> Iterator[dict[str, Any]]:
    """All score rows, one by one."""
    for path in files(folder, size, "scores")["scores"]:
        yield from parquet.read(path, "scores").to_pylist()


def check(folder: Path, size: Size) -> None:
    """Compare the tables of a small experiment with plain sums over its score rows: counts and means of `summary`, and
    differences, wins, losses and ties of `comparisons` of unfitted arms. Ends the process where they differ."""
    clusters = {
        (name, each): cluster for name in EVALS for each, cluster in zip(*examples(name, size)[:2], strict=True)
    }
    counts: dict[tuple[str, str, str], dict[str, Any]] = defaultdict(lambda: defaultdict(int))
    values: dict[tuple[str, str, str], dict[Any, dict[int, list[float | None]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in rows_of(folder, size):
        key = (row["arm"], row["eval"], row["metric"])
        counts[key]["n_attempted"] += 1
        counts[key]["n_scored"] += row["value"] is not None
        counts[key]["n_error"] += row["status"] == "error"
        counts[key]["n_unparsed"] += row["status"] == "unparsed"
        counts[key]["n_truncated"] += row["value"] is not None and row["truncated"]
        values[key][row["example_id"], row["item"]][row["seed"]].append(row["value"])

    def items(key: tuple[str, str, str]) -> dict[Any, float]:
        """(example, item) -> the mean over seeds and samples, of items with a value in each. A response that failed
        takes out all items of its example."""
        seeds = 1 if key[0] == "base" else size.seeds
        lost = {example for (example, item), of in values[key].items() if item is None and _holes(of)}
        return {
            (example, item): sum(sum(each) / len(each) for each in of.values()) / seeds
            for (example, item), of in values[key].items()
            if example not in lost and len(of) == seeds and not _holes(of)
        }

    def differs(found: dict[str, Any], expected: dict[str, Any]) -> bool:
        return any(
            not math.isclose(found[name], value, rel_tol=1e-11, abs_tol=1e-12) for name, value in expected.items()
        )

    tables = {
        name: parquet.read(path, name).to_pylist() for name, path in made(folder, "summary", "comparisons").items()
    }
    assert len(tables["summary"]) == len(counts) == size.arms * sum(len(kind.all_metrics()) for kind in EVALS.values())
    assert len(tables["comparisons"]) == sum(map(len, size.controls().values())) * (4 * 4 + 6 + 2)
    for row in tables["summary"]:
        key = (row["arm"], row["eval"], row["metric"])
        means = list(items(key).values())
        if differs(row, {**counts[key], "mean": sum(means) / len(means)}):
            sys.exit(f"summary: {row} instead of {dict(counts[key])} with mean {sum(means) / len(means)}")
    for row in tables["comparisons"]:
        arm, control = (items((row[side], row["eval"], row["metric"])) for side in ("arm", "control"))
        gaps: dict[str, list[float]] = defaultdict(list)
        for each in arm.keys() & control.keys():
            gaps[clusters[row["eval"], each[0]]].append(arm[each] - control[each])
        sums = [0.0 if abs(sum(part)) < 1e-9 else sum(part) for part in gaps.values()]
        expected = {
            "difference": sum(map(sum, gaps.values())) / sum(map(len, gaps.values())),
            "n_pairs": len(gaps),
            "wins": sum(each > 0 for each in sums),
            "losses": sum(each < 0 for each in sums),
            "ties": sum(each == 0 for each in sums),
        }
        if differs(row, expected):
            sys.exit(f"comparisons: {row} instead of {expected}")


def _holes(of_seeds: dict[int, list[float | None]]) -> bool:
    return any(None in values for values in of_seeds.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", type=int, default=[1, 3, 10], help="millions of score rows")
    parser.add_argument("--report", nargs=2, type=int, default=[200, 300], help="arms, examples of the report")
    parser.add_argument("--score", type=float, default=1.0, help="share of the responses that are scored")
    parser.add_argument("--job", choices=JOBS, help="run one job on a folder that this script has written")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--size", type=json.loads)
    options = parser.parse_args()
    if options.job:
        JOBS[options.job](options.folder, Size(*options.size))
        return
    found: dict[str, Any] = {"summarize": {}}
    small, size = Size(5, seeds=2), Size(*options.report, seeds=1, characters=1000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written(folder / "small", small)
        run_summarize(folder / "small", small)
        check(folder / "small", small)
        found["scoring"] = scoring(folder, options.score)
    for millions in options.rows:
        of_rows = Size(ARMS_A_MILLION * millions)
        with tempfile.TemporaryDirectory() as name:
            rows = written(Path(name), of_rows)
            found["summarize"][rows] = measured("summarize", Path(name), of_rows)
    with tempfile.TemporaryDirectory() as name:
        found["rows_of_report"] = written(Path(name), size)
        found["jobs"] = {job: measured(job, Path(name), size) for job in JOBS}
    (fewest, least), *_, (most, largest) = [*sorted(found["summarize"].items())] * 2
    limited = {
        **largest,
        "growth": round(largest["seconds"] / most / (least["seconds"] / fewest), 2),
        **{score: of_score["seconds"] for score, of_score in found["scoring"].items()},
    }
    holds = all(limited[key] <= LIMITS[key] for key in LIMITS)
    print(json.dumps({**found, **limited, "limits": LIMITS, "holds": holds}))


if __name__ == "__main__":
    main()
