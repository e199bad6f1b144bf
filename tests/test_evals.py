"""Several scores on the responses of one eval, evals of some arms, and evals that only sample: which jobs there are,
who is compared, and what is told."""

from __future__ import annotations

from typing import Any

import pytest

import generated
from conftest import one_fit
from imprint.config import graph, loading
from imprint.dag import asked, leakage
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import Jobs, all_jobs
from imprint.dag.report_facts import facts_of
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError

SCORES = ["ifeval", {"pairwise": {"against": "base", "eval": "words"}}]


def raw(ev: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Two arms on an eval `words` of written answers, and on one of options."""
    base = one_fit()
    base["datasets"]["words"] = {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"}
    base["datasets"]["practice"] = {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "train"}
    base["evals"]["words"] = ev or {"dataset": "words", "score": "ifeval"}
    base["arms"]["tuned"]["control"] = ["base"]
    return loading.merge(base, changes)


def shared(*scores: Any, **more: Any) -> dict[str, Any]:
    return raw({"dataset": "words", "score": list(scores), "max_new_tokens": 9, **more})


def plan(config: dict[str, Any]) -> dict[str, tuple[str, str, Any]]:
    """Output -> the params and the inputs of the job that makes it, for every job of a config."""
    stages: dict[str, Jobs] = all_jobs(Experiment(loading.parse(config)))
    made = {}
    for jobs in stages.values():
        for job in jobs.jobs():
            wildcards = job._asdict() if job else {}
            for pattern in jobs.outputs.values():
                made[pattern.format(**wildcards)] = (jobs.params(job), jobs.code(job), jobs.inputs(job))
    return made


def folder(paths: Any, name: str) -> set[str]:
    return {path.removeprefix(f"results/{name}/") for path in paths if path.startswith(f"results/{name}/")}


# Several scores


def test_a_further_score_scores_and_changes_no_other_job() -> None:
    before, after = plan(shared("ifeval")), plan(shared("ifeval", "word"))
    new = after.keys() - before.keys()
    assert new == {
        f"results/{made}/{arm}/seed0/words_word.parquet"
        for made in ("scores", "scored_texts")
        for arm in ("base", "tuned")
    }
    changed = {path for path in before if before[path] != after[path]}
    whole = {"answers", "comparisons", "pairs", "summary", "costs", "curves", "coefficients", "synthesis"}
    assert folder(changed, "tables") <= {f"{name}.parquet" for name in whole} | {
        "contamination.parquet", "contamination_rows.parquet",
    }  # fmt: skip
    for kept in ("generations", "prompts", "scores", "arms", "datasets", "judgements"):
        assert not folder(changed, kept), kept
    score = after["results/scores/tuned/seed0/words_word.parquet"][2]
    assert score["generations"] == "results/generations/tuned/seed0/words.parquet"


def test_one_score_and_a_list_of_one_are_the_same() -> None:
    assert plan(raw()) == plan(raw({"dataset": "words", "score": ["ifeval"]}))
    in_short = loading.parse(shared("ifeval", "word", retention=True))
    in_full = {"dataset": "words", "score": "ifeval", "max_new_tokens": 9, "retention": True}
    other = {"responses": "words", "score": "word", "retention": True}
    assert in_short == loading.parse(raw(in_full, evals={"words_word": other}))


def test_each_score_has_metrics_and_questions_of_its_own() -> None:
    question = {"asks": "Is it shorter?", "arm": "tuned", "control": "base"}
    config = loading.parse(shared("ifeval", "word") | {"questions": {
        "strict": {**question, "eval": "words"},
        "formed": {**question, "eval": "words_word"},
        "loose": {**question, "eval": "words", "metric": "prompt_loose"},
    }})  # fmt: skip
    metrics = all_jobs(Experiment(config))["summarize"].spec(()).metrics
    primary = {ev: [name for name, (first, _) in of.items() if first] for ev, of in metrics.items()}
    assert primary["words"] == ["prompt_strict"] and primary["words_word"] == [config.evals["words_word"].primary]
    told = {question.name: (question.eval, question.metric) for question in asked.questions(config)}
    assert told["formed"] == ("words_word", config.evals["words_word"].primary)
    assert told["loose"] == ("words", "prompt_loose")


def test_scores_may_have_metrics_of_the_same_name() -> None:
    metrics = {name: plugins.load("scores", name).METRICS for name in ("numeric", "word")}
    assert metrics["numeric"].keys() & metrics["word"].keys()
    plan(shared("numeric", "word"))


def test_the_judge_goes_to_the_scores_that_ask_it() -> None:
    after = plan(shared(*SCORES, judge="base"))
    assert folder(after, "judgements") == {f"{arm}/seed0/words_pairwise.parquet" for arm in ("base", "tuned")}
    others = after["results/judgements/tuned/seed0/words_pairwise.parquet"][2]
    assert others["generations"] == "results/generations/tuned/seed0/words.parquet"
    described = plan(shared("ifeval", "word", judge="base", describe=["judged_behaviours"]))
    assert folder(described, "judgements") == {f"{arm}/seed0/words.parquet" for arm in ("base", "tuned")}


def test_the_history_of_looks_outlives_a_further_score() -> None:
    question = {"q1": {"asks": "Is it better?", "arm": "tuned", "control": "base", "eval": "words"}}
    configs = [loading.parse(shared(*scores) | {"questions": question}) for scores in (["ifeval"], ["ifeval", "word"])]
    assert len({asked.version(config) for config in configs}) == 1


def test_the_report_says_whose_responses_are_scored() -> None:
    facts = facts_of(Experiment(loading.parse(shared("ifeval", "word"))))
    assert {ev.name: (ev.score, ev.responses) for ev in facts.evals if ev.name != "general"} == {
        "words": ("ifeval", None), "words_word": ("word", "words"),
    }  # fmt: skip
    stages = [(job.stage, job.eval) for job in facts.arms[0].jobs if job.eval != "general"]
    assert stages == [("generate", "words"), ("score", "words"), ("score", "words_word")]


def test_logs_of_another_harness_are_scored_twice_too() -> None:
    log = {"import": "lm_eval", "evals": {"sums": "tests/logs/samples_tiny_sums.jsonl"}}
    config = raw(
        {"dataset": "words", "score": "ifeval"},
        datasets={"sums": {"catalog": "gsm8k_test"}},
        evals={"sums": {"dataset": "sums", "score": ["numeric", "word"]}},
        arms={"theirs": {"runs": log}, "valued": {"runs": {**log, "take": {"accuracy": "exact_match,strict-match"}}}},
    )
    stages = generated.plan(config)
    runs = {
        name: {(job.arm, job.eval) for job in stages[name].jobs()} for name in ("import_run", "import_values", "score")
    }
    assert runs["import_run"] == {("theirs", "sums"), ("valued", "sums")}
    assert runs["import_values"] == {("valued", "sums")}
    scored = {run for run in runs["score"] if run[0] in ("theirs", "valued")}
    assert scored == {("theirs", "sums"), ("theirs", "sums_word"), ("valued", "sums_word")}


# Evals of some arms


def test_an_eval_is_taken_by_the_arms_that_it_names() -> None:
    config = loading.parse(shared("ifeval", "word", arms=["tuned"], judge=None))
    assert graph.evals_of(config, "base") == ["general"]
    assert graph.evals_of(config, "tuned") == ["general", "words", "words_word"]


# Evals that only sample

BEST = {
    "datasets": {
        "accepted": {"synth": "accepted", "arm": "base", "eval": "draws", "dataset": "practice", "score": "ifeval"},
    },
    "evals": {"draws": {"dataset": "practice", "samples": 4, "temperature": 1.0}},
    "arms": {"best": {"parent": "base", "fit": {"method": "sft", "data": "accepted"}, "control": ["base"]}},
}  # fmt: skip


def test_an_eval_without_a_score_is_sampled_and_not_measured() -> None:
    made = plan(raw(**BEST))
    assert folder(made, "generations") >= {f"{arm}/seed0/draws.parquet" for arm in ("base", "tuned", "best")}
    assert not [path for path in folder(made, "scores") if path.endswith("draws.parquet")]
    spec = all_jobs(Experiment(loading.parse(raw(**BEST))))["summarize"].spec(())
    assert "draws" not in spec.metrics and "draws" not in spec.datasets
    assert all("draws" not in evals for evals in spec.arms.values())
    facts = facts_of(Experiment(loading.parse(raw(**BEST))))
    assert [ev.score for ev in facts.evals if ev.name == "draws"] == [None]
    assert ("score", "draws") not in [(job.stage, job.eval) for arm in facts.arms for job in arm.jobs]


def test_rows_that_are_only_sampled_may_be_trained_on() -> None:
    leakage.check(loading.parse(raw(**BEST)))
    config = loading.parse(raw(**BEST))
    spec = all_jobs(Experiment(config))["check_leakage"].spec(())
    assert {pair.eval for pair in spec.pairs} == {"general", "words"} and not graph.transductive(config)["best"]
    scored = loading.merge(BEST, {"evals": {"draws": {"score": "ifeval"}}})
    with pytest.raises(
        ImprintError, match=r"arms\.best: trains on 'accepted', which shares 4 row\(s\) with the eval 'draws'"
    ):
        leakage.check(loading.parse(raw(**scored)))
    elsewhere = loading.merge(BEST, {"evals": {"graded": {"responses": "draws", "score": "ifeval"}}})
    with pytest.raises(ImprintError, match=r"shares 4 row\(s\) with the eval 'graded'"):
        leakage.check(loading.parse(raw(**elsewhere)))


def test_only_chosen_arms_need_sample() -> None:
    made = plan(raw(**loading.merge(BEST, {"evals": {"draws": {"arms": ["base"]}}})))
    assert [path for path in folder(made, "generations") if "draws" in path] == ["base/seed0/draws.parquet"]


# What is told

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"evals": {"words": {"score": []}}}, r"^evals\.words\.score: found \[\]; write at least one score, and each once"),
    ({"evals": {"words": {"score": ["ifeval", "ifeval"]}}}, r"^evals\.words\.score: .* each once"),
    ({"evals": {"words": {"score": ["ifeval", "wrod"]}}}, r"evals\.words_wrod\.score: .*'wrod'"),
    (
        {"evals": {"words": {"score": ["ifeval", "word"]}, "words_word": {"dataset": "words", "score": "word"}}},
        r"^evals\.words\.score: makes an eval 'words_word', and there is one already; rename one of them",
    ),
    (
        {"evals": {"words": {"score": ["ifeval", "options"]}}},
        r"evals\.words_options\.score: needs given options, and 'words' has written responses; write an eval",
    ),
    ({"evals": {"other": {"responses": "wrods", "score": "word"}}}, r"^evals\.other\.responses: no eval named 'wrods'"),
    ({"evals": {"other": {"responses": "other", "score": "word"}}}, r"'other' has the responses of 'other'"),
    (
        {"evals": {"one": {"responses": "words", "score": "word"}, "two": {"responses": "one", "score": "word"}}},
        r"^evals\.two\.responses: 'one' has the responses of 'words'; write that eval",
    ),
    (
        {"evals": {"other": {"responses": "words", "score": "word", "temperature": 1.0}}},
        r"^evals\.other\.temperature: the responses are those of 'words'; leave it out",
    ),
    ({"evals": {"other": {"responses": "words"}}}, r"evals\.other: responses: an eval without `score` only samples"),
    (
        {"evals": {"draws": {"dataset": "practice"}}},
        r"^evals\.draws: has no score, and nothing reads its responses; write `score: NAME`, or name it",
    ),
    ({"evals": {"draws": {"dataset": "practice", "retention": True}}}, r"evals\.draws: retention: an eval without"),
    (
        {"evals": {"draws": {"dataset": "practice", "describe": ["behaviours"]}}},
        r"evals\.draws: describe: an eval without `score` only samples; write a score, or leave it out",
    ),
    (
        loading.merge(BEST, {"arms": {"best": {"evals": ["draws"]}}}),
        r"arms\.best\.control: shares no eval with 'base'",
    ),
    (
        loading.merge(BEST, {"questions": {"q1": {
            "asks": "Is it better?", "arm": "best", "control": "base", "eval": "draws",
        }}}),
        r"questions\.q1\.eval: 'draws' has no score, so nothing is compared on it; write an eval with a score",
    ),
    ({"evals": {"words": {"arms": ["tunde"]}}}, r"evals\.words\.arms: no arm named 'tunde'; did you mean 'tuned'\?"),
    (
        {"evals": {"words": {"arms": ["base"]}}, "arms": {"tuned": {"evals": ["general", "words"]}}},
        r"^arms\.tuned\.evals: `evals\.words\.arms` does not name 'tuned'; add it there, or leave 'words' out here",
    ),
    (
        {"evals": {"words": {"arms": ["tuned"]}}, "arms": {"tuned": {"evals": ["general"]}}},
        r"^evals\.words\.arms: 'tuned' chooses other evals; add 'words' to those, or leave 'tuned' out here",
    ),
    (
        {"evals": {"words": {"score": ["ifeval", "word"]}}, "arms": {"tuned": {"evals": ["words_word"]}}},
        r"arms\.tuned\.evals: 'words_word' scores the responses to 'words', so an arm takes both or neither; write",
    ),
    (
        loading.merge(BEST, {
            "datasets": {"accepted": {"eval": "words_word"}}, "evals": {"words": {"score": ["ifeval", "word"]}},
        }),
        r"datasets\.accepted: no eval of arm 'base' named 'words_word'; did you mean 'words'\?",
    ),
    (
        {"arms": {"slow": {"like": "tuned", "for": {"fit.epochs": [1, 2]}}, "child": {"parent": "slow"}}},
        r"arms\.child\.parent: no arm named 'slow'; did you mean 'slow_1' or 'slow_2'\? write one of",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_does_not_fit_together_is_told(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ImprintError, match=said):
        loading.parse(raw(**changes))
