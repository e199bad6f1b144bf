"""The tables: their Parquet schemas. Tables are long, not wide: a new metric adds rows.

An edit of a schema reruns the jobs that write its table, and no others: a job's code holds the schemas of its outputs.
"""

from __future__ import annotations

import pyarrow as pa

_text, _int, _float, _bool = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_run = [("arm", _text), ("seed", _int), ("eval", _text)]

_difference = pa.schema(
    [
        ("arm", _text),
        ("control", _text),
        ("eval", _text),
        ("metric", _text),
        ("primary", _bool),
        ("direction", _int),
        ("n_pairs", _int),
        ("n_missing", _int),
        ("n_seeds", _int),
        ("difference", _float),
        ("se", _float),
        ("ci_low", _float),
        ("ci_high", _float),
        ("interval", _text),
        ("wins", _int),
        ("losses", _int),
        ("ties", _int),
    ]
)

SCHEMAS: dict[str, pa.Schema] = {
    # One row per example. Rows of one `cluster` depend on each other.
    "datasets": pa.schema(
        [
            ("dataset", _text),
            ("example_id", _text),
            ("messages", pa.list_(pa.struct([("role", _text), ("content", _text)]))),
            ("reference", _text),
            ("fields", _text),
            ("strata", _text),
            ("cluster", _text),
            ("source_sha256", _text),
        ]
    ),
    # One row per attempt of a synthesiser; `reason` is null where the row was kept.
    "synthesis": pa.schema(
        [("dataset", _text), ("example_id", _text), ("kept", _bool), ("reason", _text), ("response", _text)]
    ),
    # One row per distinct rendered prompt.
    "prompts": pa.schema([("prompt_sha256", _text), ("prompt", _text), ("template_sha256", _text)]),
    # One row per response: per example x sample x turn, and several in a turn that asks for several.
    # `response_tokens` counts all generated tokens, and `logprob_sum` (nats) is their log-likelihood. `answer_tokens`
    # counts those behind the text that opens the answer under the arm's contexts; without this text in the response,
    # and where no context asks for one, the whole response is the answer. An imported response has no counts. When
    # options are scored, `sample` is the option's index, `response` its text and `logprob_sum` its log-likelihood. The
    # row with `final` holds a dialogue's outcome, and `state` the dialogue's final state as JSON text. A final row
    # without a prompt holds a text that was made of several responses.
    "generations": pa.schema(
        [
            *_run,
            ("example_id", _text),
            ("sample", _int),
            ("turn", _int),
            ("final", _bool),
            ("prompt_sha256", _text),
            ("response", _text),
            ("state", _text),
            ("finish_reason", _text),
            ("prompt_tokens", _int),
            ("response_tokens", _int),
            ("answer_tokens", _int),
            ("logprob_sum", _float),
            ("seconds", _float),
            ("engine", _text),
            ("error", _text),
        ]
    ),
    # One row per response x question to a judge. Where the judge's engine failed, `answer` is null, and `error` says
    # why.
    "judgements": pa.schema(
        [
            *_run,
            ("example_id", _text),
            ("sample", _int),
            ("score", _text),
            ("question", _text),
            ("judge", _text),
            ("answer", _text),
            ("response_tokens", _int),
            ("error", _text),
        ]
    ),
    # One row per example x sample x metric x item. `value` is null where nothing could be scored. `status` is one of
    #   "scored",
    #   "unparsed": value 0 where a response has no answer; null where a judge's answer cannot be read,
    #   "error": null, since the engine failed,
    #   "unjudged": null, since the eval has no judge,
    #   "unverified": the check took too long or failed; value 0 where more is better, else null.
    # `eval_version` names the score that made the row, with its version and conditions.
    "scores": pa.schema(
        [
            *_run,
            ("eval_version", _text),
            ("example_id", _text),
            ("sample", _int),
            ("metric", _text),
            ("item", _int),
            ("item_label", _text),
            ("value", _float),
            ("status", _text),
            ("truncated", _bool),
        ]
    ),
    # One row per response of which the eval's score reads a part: `text` is this part. A response without a row is read
    # whole.
    "scored_texts": pa.schema([*_run, ("example_id", _text), ("sample", _int), ("text", _text)]),
    # One row per arm x eval x metric (all seeds and samples together).
    "summary": pa.schema(
        [
            ("arm", _text),
            ("eval", _text),
            ("metric", _text),
            ("primary", _bool),
            ("direction", _int),
            ("n_examples", _int),
            ("n_attempted", _int),
            ("n_scored", _int),
            ("n_error", _int),
            ("n_unparsed", _int),
            ("n_unverified", _int),
            ("n_truncated", _int),
            ("mean", _float),
            ("se", _float),
            ("ci_low", _float),
            ("ci_high", _float),
            ("interval", _text),
        ]
    ),
    # One row per arm x control x eval x metric: the arm minus the control on the same examples, with its marginal
    # interval. These are explorations; verdicts stand in `answers`.
    "comparisons": _difference,
    # The same of all pairs of arms, each pair once, for primary metrics; empty with more than 24 arms.
    "pairs": _difference,
    # One row per question of the config x eval. `ci_low` and `ci_high` are the simultaneous interval of all questions,
    # which alone gives the verdict: "better", "worse", "higher", "lower", "kept", "lost", "equivalent", "undecided",
    # "not tested" or "no data". `scope` is "method", or "weights" where an arm shows one training run: it is fitted at
    # one seed, or has given weights. `n_seeds` is 0 where no arm is fitted by seed. `over` names the stratum whose
    # values are the clusters of a claim about other values. `var_...` and `lending` are the variances of
    # imprint.statistics.planning. `worst_low` and `worst_high`: the difference if all clusters that could not be scored
    # had gone to the control, or to the arm. `share`: of the planned data. `looks_before`: earlier looks at less of
    # them. `may_decide`: whether error is left to spend at this look. `other_versions`: how many other versions of the
    # experiment were looked at.
    "answers": pa.schema(
        [
            ("question", _text),
            ("asks", _text),
            ("kind", _text),
            ("arm", _text),
            ("control", _text),
            ("eval", _text),
            ("metric", _text),
            ("margin", _float),
            ("over", _text),
            ("direction", _int),
            ("n_pairs", _int),
            ("n_missing", _int),
            ("n_seeds", _int),
            ("wins", _int),
            ("losses", _int),
            ("ties", _int),
            ("verdict", _text),
            ("scope", _text),
            ("difference", _float),
            ("ci_low", _float),
            ("ci_high", _float),
            ("p", _float),
            ("smallest", _float),
            ("seed_sd", _float),
            ("examples_needed", _int),
            ("seeds_needed", _int),
            ("var_examples", _float),
            ("var_answers", _float),
            ("var_runs", _float),
            ("lending", _int),
            ("worst_low", _float),
            ("worst_high", _float),
            ("share", _float),
            ("looks_before", _int),
            ("may_decide", _bool),
            ("other_versions", _int),
        ]
    ),
    # One row per arm x seed x stage ("train", or "generate" and "judge" with the eval's name), and one per analysis of
    # an arm's model ("probe", at the first seed).
    "costs": pa.schema(
        [
            ("arm", _text),
            ("seed", _int),
            ("stage", _text),
            ("eval", _text),
            ("seconds", _float),
            ("cpu_seconds", _float),
            ("gpu_seconds", _float),  # seconds times GPUs held, also of attempts that failed
            ("peak_memory_bytes", _int),
            ("peak_gpu_memory_bytes", _int),
            ("attempts", _int),
            ("tokens", _int),
            ("tokens_per_second", _float),
            ("device", _text),
            ("source", _text),  # "slurm" where its accounting knows the job, else "record"
        ]
    ),
    # One row per logged training step and quantity (loss, reward, learning_rate, ...).
    "curves": pa.schema([("arm", _text), ("seed", _int), ("step", _int), ("quantity", _text), ("value", _float)]),
    # One row per task vector x block x part of a composed arm: `value` is the coefficient of the merge. `layer` is null
    # outside the layers, `kind` is the block's place within its layer, `part` is 0 unless blocks are partitioned.
    "coefficients": pa.schema(
        [
            ("arm", _text),
            ("seed", _int),
            ("vector", _text),
            ("layer", _int),
            ("kind", _text),
            ("block", _text),
            ("part", _int),
            ("value", _float),
        ]
    ),
    # One row per quantity that an analysis computes of an arm or of a pair of arms, at a place in the model. `layer` is
    # null outside the layers; `kind` is the part of the layer ("all": all parts), or another kind that the analysis
    # knows. A rule that answers a dataset's questions without a model stands in place of an arm, and the dataset is
    # `other`. The column `null` is the mean of the quantity under the null hypothesis; it is empty where no such mean
    # is known.
    "analyses": pa.schema(
        [
            ("analysis", _text),
            ("seed", _int),
            ("arm", _text),
            ("other", _text),
            ("layer", _int),
            ("kind", _text),
            ("quantity", _text),
            ("value", _float),
            ("null", _float),
        ]
    ),
    # One row per completion that a fit has sampled, in the order of its steps. `rewards` has a value per term; the
    # advantage is computed from `reward`. `logprob_sum` (nats, temperature 1) is over `response_tokens` tokens, which
    # include the end token.
    "rollouts": pa.schema(
        [
            ("arm", _text),
            ("seed", _int),
            ("step", _int),
            ("example_id", _text),
            ("sample", _int),
            ("prompt", _text),
            ("response", _text),
            ("response_tokens", _int),
            ("finish_reason", _text),
            ("logprob_sum", _float),
            ("rewards", pa.map_(_text, _float)),
            ("reward", _float),
            ("advantage", _float),
        ]
    ),
    # One row per pair of a training dataset and an eval: how many of the eval's rows the training set holds word for
    # word (`n_shared`), and how many as near copies (`n_near`).
    "contamination": pa.schema(
        [
            ("arm", _text),
            ("dataset", _text),
            ("eval", _text),
            ("n_train", _int),
            ("n_eval", _int),
            ("n_shared", _int),
            ("n_near", _int),
        ]
    ),
    # One row per row of an eval that a training set holds: the training row that covers most of it, and the share that
    # this row covers. `equal`: word for word.
    "contamination_rows": pa.schema(
        [
            ("arm", _text),
            ("dataset", _text),
            ("eval", _text),
            ("example_id", _text),
            ("train_example_id", _text),
            ("overlap", _float),
            ("equal", _bool),
        ]
    ),
}
