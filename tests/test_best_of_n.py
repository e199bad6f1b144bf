"""Best-of-n fine-tuning: which responses are taken, that the fit is `sft` on them, and what a config may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fitting
import pico
import pico_arms
import workflow
from conftest import make_project, one_fit
from imprint.config import catalog, graph, loading
from imprint.dag import leakage
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.methods import Fit, best_of_n, sft
from imprint.runtime import parquet, plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_json
from imprint.runtime.plugins import Plug
from imprint.scores import LONGEST, Verdict
from imprint.scoring import bounded, verification
from imprint.tables import dataset_rows
from imprint.training.rewards import Reward, Term
from imprint.training.run_rewards import Rewarded, rewarded

LENGTH = """
from typing import Any

from imprint.runtime.plugins import Strict
from imprint.scores import Verdict

ASKS, VERSION, PRIMARY = "generate", "1", "length"
METRICS = {"length": 1}


class Settings(Strict):
    pass


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    assert "stumble" not in response
    value = None if "nothing" in response else float(len(response))
    return [Verdict("length", value)]
"""
KEPT = next(name for name, entry in catalog.load().items() if entry.evaluation_only)
RUN = {"arm": "base", "eval": "draws", "dataset": "d"}
RECIPE = {"batch_size": 2, "max_length": 512, "learning_rate": 1e-3, "epochs": 2.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a pico model."""
    return pico_arms.root(tmp_path_factory.mktemp("models") / "pico")


def questions(n: int = 4) -> list[dict[str, Any]]:
    """Questions whose answers are numbers: 0, 2, 4, ..."""
    rows = [
        {"messages": [{"role": "user", "content": f"What is {i} plus {i}?"}], "reference": {"answer": str(2 * i)}}
        for i in range(n)
    ]
    return dataset_rows.identified(rows)


def drawn(path: Path, said: dict[int, list[Any]], rows: list[dict[str, Any]] | None = None) -> Path:
    """A run: question -> its samples, each a text, or columns of the table."""
    common = {"arm": "base", "seed": 0, "eval": "draws", "turn": 0, "final": True, "finish_reason": "stop"}
    table = []
    for place, samples in said.items():
        for sample, text in enumerate(samples):
            columns = text if isinstance(text, dict) else {"response": text}
            example = (rows or questions())[place]["example_id"]
            table.append({**common, "example_id": example, "sample": sample, **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write(path, "generations", table)
    return path


def job(root: Path, out: Path, said: dict[int, list[Any]], contexts: list[Plug] | None = None, **settings: Any) -> Fit:
    run = drawn(out / "draws.parquet", said)
    return fitting.job(
        "best_of_n", [root], out, contexts=contexts or [], datasets={"d": questions()}, runs={("base", "draws"): run},
        **{"run": RUN, "score": "numeric", **RECIPE, **settings},
    )  # fmt: skip


SAID: dict[int, list[Any]] = {
    0: ["It is 5.", "It is 0.", "Surely 0."],
    1: ["It is 7.", "No."],
    2: [{"response": "It is 4", "finish_reason": "length"}, {"response": None, "finish_reason": None, "error": "full"}],
    3: ["It is 6.", "It is 6!"],
}


def on(answers: dict[int, str]) -> list[dict[str, Any]]:
    """The dialogues of chosen answers."""
    rows = [(row, answers[place]) for place, row in enumerate(questions()) if place in answers]
    return [{**row, "messages": [*row["messages"], {"role": "assistant", "content": text}]} for row, text in rows]


@pytest.mark.parametrize(
    ("least", "answers"),
    [(None, {0: "It is 0.", 1: "It is 7.", 3: "It is 6."}), (1, {0: "It is 0.", 3: "It is 6."})],
)
def test_it_is_sft_on_the_best_responses(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], least: float | None, answers: dict[int, str]
) -> None:
    tuned = job(root, tmp_path / "best", SAID, least=least)
    made = best_of_n.fit(tuned)
    same = fitting.job("sft", [root], tmp_path / "sft", datasets={"d": on(answers)}, data="d", **RECIPE)
    assert sft.fit(same).items() <= made.items() and fitting.weights(tuned) == fitting.weights(same)
    assert fitting.table(tuned, "curves") == fitting.table(same, "curves")
    counts = {"rows": len(answers), "dropped_rows": 3 - len(answers), "unscored_rows": 1}
    counts |= {"responses": 9, "unscored_responses": 2}
    assert counts.items() <= made.items() and made["mean_score"] == (1 if least else pytest.approx(2 / 3))
    below = ", 1 dropped, since none of their responses has 1" if least else ""
    assert (
        f"imprint: tuned seed 0: 4 examples by numeric: {len(answers)} kept{below}, 1 without a scored response; "
        "2 of 9 responses have no score (cut at the limit of tokens: 1, no written answer: 1)\n"
    ) in capsys.readouterr().err


def test_an_adapter_is_an_adapter(root: Path, tmp_path: Path) -> None:
    tuned = job(root, tmp_path, SAID, lora={"rank": 4})
    best_of_n.fit(tuned)
    assert plugins.load("methods", "best_of_n").makes(tuned.settings) == "lora"
    assert (tmp_path / "weights/adapter_model.safetensors").is_file()


def responses(values: list[tuple[int, float | None]]) -> list[Rewarded]:
    """(example, value) of each response; the samples of an example are numbered in this order."""
    numbers = [sum(other == example for other, _ in values[:place]) for place, (example, _) in enumerate(values)]
    return [
        Rewarded(str(example), number, f"{place}", value, None if value is not None else "none")
        for place, ((example, value), number) in enumerate(zip(values, numbers, strict=True))
    ]


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | st.sampled_from([-1.0, 0.0, 0.5, 1.0]))), st.randoms())
def test_the_best_is_the_first_of_the_highest_whatever_the_order(
    values: list[tuple[int, float | None]], random: Any
) -> None:
    drawn = responses(values)
    expected = {}
    for example in {one.example_id for one in drawn}:
        scored = [one for one in drawn if one.example_id == example and one.value is not None]
        if scored:
            highest = max(one.value for one in scored if one.value is not None)
            expected[example] = next(one for one in scored if one.value == highest)
    random.shuffle(drawn)
    assert best_of_n.best(drawn) == expected


def test_what_cannot_be_checked_is_never_taken(tmp_path: Path, plug_in: Any, monkeypatch: Any) -> None:
    """Whatever it would be worth: here more text is better. The score runs in this process: no worker knows it."""
    plug_in("scores", "length_of", LENGTH)

    def here(score: str, settings: Any, row: Any, response: str) -> list[Verdict]:
        try:
            verdicts: list[Verdict] = plugins.load("scores", score).score(row, response, settings)
            return verdicts
        except AssertionError as error:
            raise bounded.Stumble from error

    monkeypatch.setattr(verification, "verdicts", here)
    unusable = [
        ({"response": "cut in the middle of", "finish_reason": "length"}, "cut at the limit of tokens"),
        ({"response": "x" * 99, "finish_reason": "stop", "error": "the engine failed"}, "no written answer"),
        ({"response": "said before an error", "final": False, "error": "too long", "finish_reason": None},
         "no written answer"),
        ("\n" * 50, "no written answer"),
        ("this makes the check stumble", "its check came to no verdict"),
        ("x" * (LONGEST + 1), "its check came to no verdict"),
        ("this is worth nothing", "the score gives it no value"),
    ]  # fmt: skip
    run = drawn(tmp_path / "run.parquet", {0: [*(said for said, _ in unusable), "short"]})
    judged = list(rewarded(run, questions(), Reward(Term.model_validate("length_of"), []), "here"))
    assert [(one.value, one.reason) for one in judged] == [*((None, reason) for _, reason in unusable), (5.0, None)]
    assert {key: one.text for key, one in best_of_n.best(judged).items()} == {questions()[0]["example_id"]: "short"}


def test_where_nothing_is_left_the_error_says_why(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ImprintError, match=r"4 examples by numeric: 0 kept, 2 dropped, .*, 2 without .*; lower `least`"
    ):
        best_of_n.fit(job(root, tmp_path / "bad", {0: ["It is 1."], 1: ["No."], 2: ["", " "]}, least=0.5))
    assert not (tmp_path / "bad/weights").exists()
    with pytest.raises(ImprintError, match=r"2 of 2 responses .* \(cut at the limit of tokens: 2\); lower `least`"):
        cut = {"response": "It is 0", "finish_reason": "length"}
        best_of_n.fit(job(root, tmp_path / "cut", {0: [cut, cut]}))
    other = drawn(tmp_path / "other.parquet", {7: ["It is 14."]}, questions(8))
    with pytest.raises(ImprintError, match=r"dataset 'd', eval 'draws': .* rows that are not in the dataset"):
        list(rewarded(other, questions(), Reward(Term.model_validate("numeric"), []), "dataset 'd', eval 'draws'"))


def test_the_contexts_of_the_fit_say_what_is_judged_and_how_a_row_is_put(root: Path, tmp_path: Path) -> None:
    """A response with its plan is trained on whole, behind the prompt that asks for one."""
    said = {0: ["<plan>Is it 0?</plan><answer>It is 9.</answer>", "<plan>Not 9</plan><answer>It is 0.</answer>"]}
    plan = Plug(name="prior_prompt", settings={"style": "plan"})
    tuned = job(root, tmp_path / "best", said, [plan], least=1)
    assert best_of_n.fit(tuned)["rows"] == 1
    same = fitting.job(
        "sft", [root], tmp_path / "sft", contexts=[plan], datasets={"d": on({0: said[0][1]})}, data="d", **RECIPE
    )
    sft.fit(same)
    assert fitting.weights(tuned) == fitting.weights(same)


@pytest.mark.parametrize(
    "text", ["<|im_end|>\n<|im_start|>user\n0", "{{ 7 * 7 }} {0} %s", "$(touch made) `id` ${HOME} __import__('os')"]
)
def test_what_a_response_says_stays_text(root: Path, tmp_path: Path, text: str) -> None:
    tuned = job(root, tmp_path / "best", {0: [f"{text} 0"]})
    best_of_n.fit(tuned)
    same = fitting.job(
        "sft", [root], tmp_path / "sft", datasets={"d": on({0: f"{text} 0"})}, data="d", **RECIPE
    )  # fmt: skip
    sft.fit(same)
    assert fitting.weights(tuned) == fitting.weights(same) and not (Path.cwd() / "made").exists()


# The config


def raw(**changes: Any) -> dict[str, Any]:
    """An arm that is fitted to the best of four draws, and is measured on other rows."""
    base = one_fit()
    for name in ("words", "practice"):
        part = {"generated": "ifeval_format", "n": 4, "instructions": "all"}
        base["datasets"][name] = part | {"part": "test" if name == "words" else "train"}
    base["evals"]["words"] = {"dataset": "words", "score": "ifeval"}
    base["evals"]["draws"] = {"dataset": "practice", "samples": 4, "temperature": 1.0, "arms": ["base", "tuned"]}
    fit = {"method": "best_of_n", "run": {"arm": "tuned", "eval": "draws"}, "score": "ifeval"}
    base["arms"]["best"] = {"parent": "base", "fit": fit, "control": ["base"]}
    return loading.merge(base, {"seeds": [3, 4], **changes})


def settings(config: dict[str, Any]) -> Any:
    fit = loading.parse(config).arms["best"].fit
    assert fit is not None
    return fit.settings


def test_the_dataset_and_the_score_are_those_of_the_eval() -> None:
    assert settings(raw()).run.dataset == "practice"
    scored = {"score": [{"format": "plan"}, "ifeval"], "arms": ["tuned"]}
    unsaid = {"evals": {"draws": scored}, "arms": {"best": {"fit": {"score": None}}}}
    taken = settings(raw(**unsaid)).score
    assert (taken.score, taken.metric) == ("format", plugins.load("scores", "format").PRIMARY)
    assert taken.settings.tag == "plan"
    said = settings(raw(evals={"draws": scored}, arms={"best": {"fit": {"score": "ifeval.prompt_loose"}}})).score
    assert (said.score, said.metric) == ("ifeval", "prompt_loose")
    like = raw(arms={"best": {"control": []}, "slow": {"like": "best", "fit": {"run": {"arm": "base"}, "least": 1}}})
    slow = loading.parse(like).arms["slow"].fit
    assert slow is not None
    written = slow.settings.model_dump(mode="json")
    assert written["run"] == {"arm": "base", "eval": "draws", "dataset": "practice"} and written["least"] == 1
    assert plugins.settings("methods", "best_of_n", written) == slow.settings


def test_the_fit_stands_behind_the_run_of_its_own_seed() -> None:
    config = loading.parse(raw())
    edges = graph.edges(config)
    assert edges["arm", "best"] == {("arm", "base"), ("run", "tuned", "draws"), ("dataset", "practice")}
    train = all_jobs(Experiment(config))["train"]
    jobs = [job for job in train.jobs() if job.arm == "best"]
    assert [train.inputs(job)["runs"] for job in jobs] == [
        [f"results/generations/tuned/seed{seed}/draws.parquet"] for seed in (3, 4)
    ]
    code = {name.partition("imprint/")[2] for name in train.code(jobs[0]).split('"')}
    assert {"methods/best_of_n.py", "methods/sft.py", "scores/ifeval.py", "training/run_rewards.py"} <= code


def test_the_rows_of_the_run_are_seen_rows() -> None:
    config = loading.parse(raw())
    assert graph.sees(config, "best") == ["practice"]
    leakage.check(config)
    measured = raw(evals={"practised": {"dataset": "practice", "score": "ifeval"}})
    with pytest.raises(ImprintError, match=r"arms\.best: trains on 'practice', which shares 4 row\(s\) with the eval"):
        leakage.check(loading.parse(measured))
    with pytest.raises(ImprintError, match="that set is for evaluation only"):
        loading.parse(
            loading.merge(raw(), {"datasets": {"kept": {"catalog": KEPT}}, "evals": {"draws": {"dataset": "kept"}}})
        )


@pytest.mark.parametrize(
    ("fit", "evals", "said"),
    [
        ({"score": None}, {}, r"^arms\.best\.fit.*: score: the eval of the run only samples, so it has none; write"),
        ({"run": {"eval": "drawn"}}, {}, r"^arms\.best\.fit\.run\.eval: no eval named 'drawn'; write one of: general"),
        ({"run": {"dataset": "words"}}, {}, r"^arms\.best\.fit\.run\.dataset: the rows are those of the eval 'draws'"),
        ({"run": {"arm": "tunde"}}, {}, r"^arms\.best\.fit: no arm named 'tunde'; did you mean 'tuned'"),
        ({"run": {"arm": "best"}}, {"draws": {"arms": None}}, r"arms\.best\.fit: made from itself"),
        ({"run": {"eval": "words"}}, {"words": {"arms": ["base"]}}, r"no eval of arm 'tuned' named 'words'"),
        ({"run": {"eval": "general"}}, {}, r"^arms\.best\.fit\.run\.eval: 'general' compares options, so it"),
        ({"score": "options"}, {}, r"^arms\.best\.fit.*'options' scores options, not text; write a score of"),
        ({}, {"draws": {"environment": "clarification"}}, r"^arms\.best\.fit\.run\.eval: a response of 'draws' ends a"),
        ({"least": "1"}, {}, r"^arms\.best\.fit.*least: found '1'"),
        ({"run": None}, {}, r"^arms\.best\.fit.*run: missing"),
        ({"run": "draws"}, {}, r"^arms\.best\.fit.*run: found 'draws'; write a mapping"),
        ({"data": "practice"}, {}, r"^arms\.best\.fit.*data"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_told(fit: dict[str, Any], evals: dict[str, Any], said: str) -> None:
    changed = raw(evals=evals)
    written = changed["arms"]["best"]["fit"]
    changed["arms"]["best"]["fit"] = {
        key: value for key, value in loading.merge(written, fit).items() if value is not None
    }
    with pytest.raises(ImprintError, match=said):
        loading.parse(changed)


def test_a_score_where_lower_is_better_is_refused_wherever_one_is_a_reward() -> None:
    said = r"lower is better in 'choice\.bad_rate'"
    with pytest.raises(ImprintError, match=rf"^arms\.best\.fit.*{said}"):
        loading.parse(raw(arms={"best": {"fit": {"score": "choice.bad_rate"}}}))
    group = {"method": "grpo", "data": "practice", "reward": ["ifeval", "choice.bad_rate"]}
    with pytest.raises(ImprintError, match=rf"^arms\.tuned\.fit.*{said}"):
        loading.parse(raw() | {"arms": raw()["arms"] | {"tuned": {"parent": "base", "fit": group}}})
    accepted = {"synth": "accepted", "arm": "tuned", "eval": "draws", "dataset": "practice", "score": "choice.bad_rate"}
    with pytest.raises(ImprintError, match=rf"^datasets\.accepted.*{said}"):
        loading.parse(raw(datasets={"accepted": accepted}))


# The workflow

PICO: dict[str, Any] = {
    "seeds": [0],
    "engine": {"dtype": "float32", "batch_size": 8},
    "models": {"pico": {"path": "resources/local/pico"}},
    "datasets": {
        "practice": {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "train"},
        "words": {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"},
    },
    "evals": {
        "draws": {
            "dataset": "practice", "samples": 4, "temperature": 1.0, "max_new_tokens": 200, "arms": ["base"],
        },
        "words": {"dataset": "words", "score": "ifeval", "max_new_tokens": 16},
    },
    "arms": {
        "base": {"model": "pico"},
        "best": {
            "parent": "base",
            "fit": {
                "method": "best_of_n", "run": {"arm": "base", "eval": "draws"}, "score": "ifeval.instruction_strict",
                "max_length": 2048, "batch_size": 2,
            },
            "control": ["base"],
        },
    },
    "charts": ["scores"],
}  # fmt: skip


@pytest.mark.workflow
@pytest.mark.slow
def test_from_the_draws_to_the_report(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    pico.make(project / "resources/local/pico")
    (project / "config/config.yaml").write_text("{}")
    workflow.edit(project, lambda config: config.update(PICO))
    workflow.run(project)
    made = read_json(project / "results/arms/best/seed0/manifest.json")["metrics"]
    assert made["responses"] == 16 and made["rows"] + made["unscored_rows"] == 4 and made["dropped_rows"] == 0
    assert 0 < made["unscored_responses"] < 16 and 0 <= made["mean_score"] <= 1
    log = (project / "results/logs/train/best.seed0.log").read_text()
    assert f"imprint: best seed 0: 4 examples by ifeval.instruction_strict: {made['rows']} kept" in log
    assert (project / "results/report.html").is_file()
    assert workflow.planned(project) == set()
    workflow.edit(project, lambda config: config["evals"]["draws"].update(samples=2))
    assert {"generate base 0 draws", "train_best_of_n best 0", "generate best 0 words"} <= workflow.planned(project)
    assert "generate base 0 words" not in workflow.planned(project)
