"""A score says what it reads of a row's reference, and a dataset that lacks it is refused before a model answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import ROOT, one_fit
from imprint import manual
from imprint.config import loading
from imprint.dag import leakage, scored_rows
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.dag.jobs.data import OfDataset
from imprint.datasets import _job as preparing
from imprint.runtime import frame, needs, plugins
from imprint.runtime.errors import ImprintError
from imprint.scores import Reads
from imprint.tables import dataset_rows

OPTIONS = {"options": ["A", "B"], "answer": 1, "names": ["one", "two"]}
NUMBER = {"answer": "18"}


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", plugins.names("scores"))
def test_a_score_says_what_it_reads(name: str) -> None:
    module = plugins.load("scores", name)
    assert issubclass(module.Reference, Reads)
    assert all(field.description for field in module.Reference.model_fields.values())
    free = {"behaviours", "clarification", "format", "judged_behaviours", "pairwise", "repetition"}
    assert (needs.problem(name, None) is None) == (needs.reads(name) == "nothing") == (name in free)


@pytest.mark.parametrize(
    ("reference", "names"),
    [
        (OPTIONS, ["choice", "likelihood", "options"]),
        (NUMBER, ["exact", "math", "numeric", "word"]),
        ({"answer": 18}, ["numeric"]),
        ({"options": ["a text"]}, ["likelihood"]),
        (None, ["behaviours", "clarification", "format", "judged_behaviours", "pairwise", "repetition"]),
    ],
)
def test_the_scores_that_read_a_row(reference: Any, names: list[str]) -> None:
    assert needs.readers(reference) == names


def evaluated(dataset: dict[str, Any], score: Any, **more: Any) -> dict[str, Any]:
    return {
        "models": {"m1": {"hub": "a/b", "revision": "0" * 40}},
        "datasets": {"quiz": dataset},
        "evals": {"sums": {"dataset": "quiz", "score": score}},
        "arms": {"base": {"model": "m1"}},
        **more,
    }


def refusal(raw: dict[str, Any]) -> str:
    config = loading.parse(raw)
    with pytest.raises(ImprintError) as error:
        scored_rows.check(config, leakage.check(config))
    return str(error.value)


def test_a_number_is_not_looked_for_in_multiple_choice() -> None:
    message = refusal(evaluated({"bundled": "general.jsonl"}, "numeric"))
    assert message.startswith("evals.sums.score: 'numeric' reads in the reference of a row `answer` (the number")
    assert (
        "row 1 of 'quiz' has a reference with answer, options (reference.options: found [" in message
        and "; leave it out)" in message
    )
    assert "write a score that reads such rows (choice, likelihood, options), or a dataset" in message


@pytest.mark.parametrize(
    ("dataset", "score", "problem"),
    [
        ({"bundled": "dialogues.jsonl"}, "options", "has no reference (reference.options: missing)"),
        ({"bundled": "dialogues.jsonl"}, "numeric", "has no reference (reference.answer: missing)"),
        (
            {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"},
            "word",
            "reference.answer: missing",
        ),
        ({"bundled": "general.jsonl"}, "ifeval", "reference.instruction_id_list: missing"),
        ({"bundled": "passages.jsonl"}, "choice", "reference.answer: missing"),
    ],
)
def test_scores_on_rows_without_what_they_read(dataset: dict, score: str, problem: str) -> None:
    assert problem in refusal(evaluated(dataset, score))


@pytest.mark.parametrize(
    ("name", "score"), [("general", "options"), ("passages", "likelihood"), ("dialogues", "behaviours")]
)
def test_rows_that_a_score_reads_pass(name: str, score: str) -> None:
    config = loading.parse(evaluated({"bundled": f"{name}.jsonl"}, score))
    scored_rows.check(config, leakage.check(config))


def test_rewards_read_references_too() -> None:
    raw = one_fit()
    raw["arms"]["tuned"]["fit"] = {"method": "grpo", "data": "dialogues", "reward": ["ifeval", {"format": "plan"}]}
    assert refusal(raw).startswith("arms.tuned.fit: 'ifeval' reads in the reference of a row `instruction_id_list`")


def test_a_table_with_a_wrong_score_is_refused_before_any_job(tmp_path: Path) -> None:
    rows = [{"q": f"What is {i} + {i}?", "choices": [str(i), str(2 * i), "x"], "label": "B"} for i in range(1, 5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "quiz.parquet")
    mapping = {"messages": {"user": "q"}, "reference": {"options": "choices", "answer": "label"}}
    raw = evaluated({"file": str(tmp_path / "quiz.parquet"), "columns": mapping}, "numeric")
    assert "row 1 of 'quiz' has a reference with answer, names, options" in refusal(raw)
    raw["evals"]["sums"]["score"] = "choice"
    config = loading.parse(raw)
    scored_rows.check(config, leakage.check(config))
    prepare = all_jobs(Experiment(config))["prepare"]
    assert prepare.inputs(OfDataset("quiz"))["files"] == [str(tmp_path / "quiz.parquet")]
    assert prepare.scores(OfDataset("quiz")) == "quiz:choice"
    raw["datasets"]["quiz"]["columns"]["messages"]["user"] = "question"
    with pytest.raises(ImprintError, match="has no column 'question'; it has: q, choices, label"):
        scored_rows.check(loading.parse(raw), {})


def test_the_job_that_makes_rows_refuses_them(tmp_path: Path) -> None:
    """For rows that could not be read when the config was loaded."""
    (tmp_path / "test.jsonl").write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')
    spec = preparing.Spec(dataset="sums", source="catalog", name="gsm8k_test", plugin="gsm8k", settings={})
    out = tmp_path / "sums.parquet"
    with pytest.raises(ImprintError, match=r"the score 'options' reads .* row 1 of 'sums' has a reference with answer"):
        preparing.run(spec, [tmp_path / "test.jsonl"], ["sums:math", "sums:options"], out)
    assert not out.exists()
    preparing.run(spec, [tmp_path / "test.jsonl"], ["sums:math", "sums:numeric", "others:options"], out)
    assert out.exists()


def test_a_score_that_is_changed_later_is_compared_before_the_first_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The dataset is there already, so no job makes it again; the job that asks the model sees the new score."""
    for name in ("prepare", "log_to"):  # they change the process, which is the tests' here
        monkeypatch.setattr(frame, name, lambda *given: None)
    dataset = tmp_path / "sums.parquet"
    rows = [{"messages": [{"role": "user", "content": "1 + 1?"}], "reference": {"answer": "2"}}]
    dataset_rows.write(dataset, "sums", rows, "0")
    ran = []

    def generate(scores: str) -> None:
        snakemake = SimpleNamespace(
            **{"rule": "generate", "wildcards": {"arm": "base"}, "threads": 1, "params": {}},
            **{"log": [str(tmp_path / "job.log")], "output": [str(dataset)], "resources": {"scores": scores}},
            input=Named({"dataset": str(dataset)}),
        )
        with frame.job(snakemake):
            ran.append(scores)

    with pytest.raises(SystemExit):
        generate("sums:numeric sums:options")
    assert not ran and "the score 'options' reads" in capsys.readouterr().err
    generate("others:options sums:numeric")
    assert ran == ["others:options sums:numeric"]


class Named(list[str]):
    """Snakemake's input: a list of files, some of which have names."""

    def __init__(self, named: dict[str, str]) -> None:
        super().__init__(named.values())
        self.get = named.get


def test_a_changed_score_makes_no_answer_anew() -> None:
    raw = evaluated({"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"}, "ifeval")
    params = []
    for score in ("ifeval", ["ifeval", "repetition"]):
        raw["evals"]["sums"]["score"] = score
        jobs = all_jobs(Experiment(loading.parse(raw)))["generate"]
        run = next(iter(jobs.jobs()))
        params.append((jobs.params(run), jobs.scores(run)))
    (before, of_one), (after, of_two) = params
    assert before == after and of_one == "quiz:ifeval" and "quiz:repetition" in of_two


def test_every_config_of_the_project_passes() -> None:
    for path in sorted(Path("config").rglob("*.yaml")):
        config = loading.load([path])
        scored_rows.check(config, {})


def test_the_manual_says_what_a_score_reads() -> None:
    assert "| `answer` | text or integer or number | required | the number, such as" in manual.render()
