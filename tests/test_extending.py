"""docs/extending.md and README show plug-ins: each keeps its contract, does what it says, and passes mypy and ruff."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fake_results as fake
import fitting
import pico_arms
from conftest import ROOT
from imprint.analyses import Analysis
from imprint.charts import _drawing
from imprint.engines import Pass, Prompt, Response
from imprint.imports import COLUMNS
from imprint.models import chains
from imprint.policies.dialogue import Outcome, Request
from imprint.runtime import parquet, plugins
from imprint.runtime.errors import ImprintError
from imprint.tables import dataset_rows
from imprint.tables.inputs import Read
from test_plugins import KINDS, Add

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
SKELETONS = {
    (kind, name): text
    for kind, name, text in re.findall(r"(?ms)^## [^\n]*`(\w+)/(\w+)\.py`$.*?^```python\n(.*?)^```", PAGE)
}
README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN = 'lint.isort.known-first-party = ["imprint"]'
SHOWN = {
    tuple(path): text
    for *path, text in re.findall(r"(?ms)`workflow/scripts/imprint/(\w+)/(\w+)\.py`:\n+```python\n(.*?)^```", README)
}
"""The plug-ins that README shows: (kind, name) -> text."""


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def said(text: str) -> Response:
    return Response(text, "stop", 3, len(text), -1.0, 0.0)


def ended(turns: Any, responses: list[Response]) -> Outcome | None:
    with pytest.raises(StopIteration) as end:
        turns.send(responses)
    outcome: Outcome | None = end.value.value
    return outcome


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a pico model."""
    return pico_arms.root(tmp_path_factory.mktemp("models") / "pico")


@pytest.fixture
def skeleton(plug_in: Add) -> Any:
    """`skeleton(kind)`: the page's plug-in of a kind, loaded as any plug-in is."""

    def load(kind: str) -> Any:
        ((name, text),) = [(name, text) for (of, name), text in SKELETONS.items() if of == kind]
        assert name not in plugins.names(kind), "a shipped plug-in has this name"
        plug_in(kind, name, text)
        return plugins.load(kind, name)

    return load


def test_there_is_one_skeleton_of_every_kind() -> None:
    assert sorted(kind for kind, _ in SKELETONS) == KINDS
    assert PAGE.count("```python") == len(SKELETONS)


def test_readme_shows_a_score(plug_in: Add) -> None:
    assert SHOWN
    for (kind, name), text in SHOWN.items():
        plug_in(kind, name, text)
        (verdict,) = plugins.load(kind, name).score({}, "It is four.", plugins.load(kind, name).Settings())
        assert verdict.value == 3


def test_all_pass_mypy_and_ruff(tmp_path: Path) -> None:
    for (kind, name), text in {**SKELETONS, **SHOWN}.items():
        (tmp_path / f"{kind}_{name}.py").write_text(text, encoding="utf-8")
    config = str(ROOT / "pyproject.toml")
    paths = sorted(map(str, tmp_path.glob("*.py")))
    environment = {**os.environ, "MYPYPATH": str(ROOT / "workflow/scripts")}
    for words in (
        ["mypy", "--config-file", config, *paths],
        # Ruff looks for the project's own package beside the files, and these lie elsewhere.
        ["ruff", "check", "--no-cache", "--config", config, "--config", OWN, *paths],
        ["ruff", "format", "--no-cache", "--check", "--config", config, *paths],
    ):
        done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_score(skeleton: Any) -> None:
    module = skeleton("scores")
    settings = module.Settings(most=2)
    assert [verdict.value for verdict in module.score({}, "two words", settings)] == [1.0, 2.0]
    assert [verdict.value for verdict in module.score({}, "now three words", settings)] == [0.0, 3.0]


def test_the_context(skeleton: Any) -> None:
    module = skeleton("contexts")
    settings = module.Settings()
    turns = module.turns(Request([user("Why?")], max_new_tokens=9), {}, settings, Read())
    (request,) = next(turns)
    assert request.messages[1:] == [user("Why?")] and request.max_new_tokens == 9
    assert ended(turns, [said("So.")]) is None
    assert module.answer("Hm.\nAnswer: 4", settings) == ("4", True)
    assert module.answer("It is 4", settings) == ("It is 4", False)


def test_the_decoder(skeleton: Any) -> None:
    module = skeleton("decoders")
    turns = module.turns(Request([user("Why?")]), {}, module.Settings(n=3), Read())
    assert [request.temperature for request in next(turns)] == [1.0] * 3
    outcome = ended(turns, [said("long text"), said("a"), said("b")])
    assert outcome is not None and outcome.text == "a"
    assert module.draws(module.Settings()) is True


def test_the_hook(skeleton: Any, root: Path) -> None:
    import torch

    module = skeleton("hooks")
    ids = torch.tensor([[5, 6, 7]])
    plain, same, damped = (chains.load([root], "float32", "cpu")[0] for _ in range(3))
    passing = Pass()
    module.install(same, module.Settings(layer=0, factor=1.0), Read(), passing)
    module.install(damped, module.Settings(layer=1, factor=0.5), Read(), passing)
    for written in (False, True):
        passing.begin(torch.tensor([[True, True, written]]), written=written, ends=not written)
        with torch.no_grad():
            assert torch.equal(same(ids).logits, plain(ids).logits)
            assert torch.allclose(damped(ids).logits, plain(ids).logits) is not written
    with pytest.raises(ImprintError, match="the model has 2; write one of 0 to 1"):
        module.install(plain, module.Settings(layer=2, factor=1.0), Read(), passing)


def test_the_environment(skeleton: Any) -> None:
    module = skeleton("environments")
    turns = module.turns({"messages": [user("2 + 2?")]}, module.Settings(), Read())
    assert [request.messages for request in next(turns)] == [[user("2 + 2?")]]
    (second,) = turns.send([said("5")])
    assert [message["role"] for message in second.messages] == ["user", "assistant", "user"]
    outcome = ended(turns, [said("4")])
    assert outcome is not None and (outcome.text, outcome.state) == ("4", {"first": "5"})


def test_the_method(skeleton: Any, root: Path, tmp_path: Path) -> None:
    import torch

    skeleton("methods")
    jobs = [
        fitting.job("noise", [root], tmp_path / name, seed=seed, size=0.1)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    for job in jobs:
        assert plugins.load("methods", "noise").fit(job) == {"size": 0.1}
    assert plugins.load("methods", "noise").makes(jobs[0].settings) == "full"
    assert fitting.weights(jobs[0]) == fitting.weights(jobs[1]) != fitting.weights(jobs[2])
    noisy, _ = chains.load([root, pico_arms.manifest(root, jobs[0].out, "full")], "float32", "cpu")
    plain, _ = chains.load([root], "float32", "cpu")
    for one, two in zip(noisy.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, two) == (one.dim() != 2)


def test_the_artifact(skeleton: Any, root: Path, tmp_path: Path) -> None:
    import torch

    skeleton("artifacts")
    trained, _ = chains.load([root], "float32", "cpu")
    with torch.no_grad():
        for weight in trained.parameters():
            weight.mul_(1.5)
    plugins.load("artifacts", "norms").save(trained, tmp_path)
    chain = [root, pico_arms.manifest(root, tmp_path, "norms")]
    loaded, plain = chains.load(chain, "float32", "cpu")[0], chains.load([root], "float32", "cpu")[0]
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, (trained if "norm" in name else plain).state_dict()[name]), name


def test_the_engine(skeleton: Any) -> None:
    engine = skeleton("engines").start([], "float32", "cpu", 4)
    text = engine.render([{"role": "user", "content": "Is it?"}])
    (response,) = engine.generate([Prompt(text.text, 8)])
    assert (response.text, response.finish_reason, response.error) == ("Yes.", "stop", None)
    assert engine.batch_size == 4 and engine.tokens("ab") == [97, 98]


def test_the_dataset(skeleton: Any, tmp_path: Path) -> None:
    module = skeleton("datasets")
    path = tmp_path / "q.txt"
    path.write_text("2 + 2?\t4\nWhy?\tSo.\n", encoding="utf-8")
    rows = dataset_rows.identified(module.rows(module.Settings(), {"q.txt": path}))
    assert [row["reference"]["answer"] for row in rows] == ["4", "So."] and rows[0]["messages"] == [user("2 + 2?")]
    dataset_rows.write(tmp_path / "d.parquet", "d", rows, "0")
    path.write_text("no tab\n", encoding="utf-8")
    with pytest.raises(ImprintError, match="line 1: found 'no tab'; write a question, a tab"):
        list(module.rows(module.Settings(), {"q.txt": path}))


def test_the_synthesiser(skeleton: Any) -> None:
    module = skeleton("synthesis")
    settings = module.Settings.model_validate({"from": "d"})
    assert module.inputs(settings).datasets == ("d",)
    dialogues = [*fitting.dialogues(4), {"messages": [user("Alone")], "example_id": "x-0"}]
    rows, attempts = module.rows(settings, Read(datasets={"d": dialogues}), None)
    assert [len(row["messages"]) for row in rows] == [2] * 4
    assert [attempt["kept"] for attempt in attempts] == [True] * 4 + [False]
    table = [{"dataset": "d", **attempt} for attempt in attempts]
    assert len(fake.frame("synthesis", table)) == 5


def test_the_import(skeleton: Any, tmp_path: Path) -> None:
    module = skeleton("imports")
    path = tmp_path / "sums.scored"
    path.write_text("2 + 2?\t4\t1\nWhy?\tSo.\t0.5\n", encoding="utf-8")
    assert module.suits(path) and not module.suits(tmp_path / "sums.jsonl")
    log = module.read(path, module.Settings())
    assert log.eval == "sums" and log.samples.columns == list(COLUMNS) and log.metrics == {"score": 1}
    assert log.values["score"].to_list() == [1.0, 0.5] and log.samples["response"].to_list() == ["4", "So."]
    path.write_text("2 + 2?\tfour\n", encoding="utf-8")
    with pytest.raises(ImprintError, match="line 1: found"):
        module.read(path, module.Settings())


def test_the_analysis(skeleton: Any, tmp_path: Path) -> None:
    module = skeleton("analyses")
    settings = module.Settings(arm="base", eval="sums")
    run = {"arm": "base", "seed": 0, "eval": "sums", "sample": 0, "turn": 0, "final": True}
    rows = [{**run, "example_id": f"{i}-0", "response": text} for i, text in enumerate(["four", "it is", None])]
    path = tmp_path / "g.parquet"
    parquet.write(path, "generations", rows)
    (row,) = module.rows(Analysis(0, settings, Read(runs={module.inputs(settings).runs[0]: path})))
    assert row == {"arm": "base", "quantity": "characters", "value": 4.5}
    assert len(fake.frame("analyses", [{"analysis": "x", "seed": 0, **row}])) == 1


def test_the_chart(skeleton: Any) -> None:
    module = skeleton("charts")
    tables = {"summary": fake.tables(6)["summary"]}
    picture = _drawing.svg(module.chart(tables, fake.ARMS, fake.EVALS))
    assert all(f">{arm}<" in picture for arm in fake.ARMS)
    assert module.chart({"summary": fake.frame("summary", [])}, fake.ARMS, fake.EVALS) is None
    assert module.facts(tables) == {"arms": len(fake.ARMS)}


def test_the_tracker(skeleton: Any, tmp_path: Path) -> None:
    module = skeleton("trackers")
    assert module.PACKAGE == ""
    for losses in ([3.0, 2.0], [3.0]):  # a second attempt takes the place of the first
        writer = module.start(tmp_path)
        for step, loss in enumerate(losses, 1):
            writer.add(step, {"loss": loss})
        assert len((tmp_path / "lines.jsonl").read_text().splitlines()) == len(losses), "seen while the fit runs"
        writer.close()
    assert (tmp_path / "lines.jsonl").read_text() == '{"step": 1, "loss": 3.0}\n'
