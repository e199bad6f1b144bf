"""The generate job on a pico model in fp32: rows and order, errors as rows, and resuming after every kind of break."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import asking
from asking import QUESTIONS, generate, generation_job, policy_spec, tables
from imprint.engines import Prompt, Response
from imprint.policies import conversation, generation, shards, teacher
from imprint.policies.dialogue import Request
from imprint.runtime import work
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_json, write_json
from imprint.runtime.plugins import Plug
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named, Read


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    torch.set_num_threads(1)
    return asking.model(tmp_path_factory.mktemp("project"))


@pytest.fixture
def dataset(tmp_path):
    return asking.questions(tmp_path / "data.parquet")


def test_rows_come_in_the_order_of_the_dataset(manifest, dataset, tmp_path):
    rows, prompts = generate(manifest, dataset, tmp_path, samples=2, temperature=1.0, limit=7)
    examples = [row["example_id"] for row in dataset_rows.read(dataset, 7)]
    assert [(r["example_id"], r["sample"], r["turn"]) for r in rows] == [(e, s, 0) for e in examples for s in (0, 1)]
    assert all(r["final"] and r["error"] is None and r["prompt_tokens"] > 0 and r["logprob_sum"] < 0 for r in rows)
    assert all(r["engine"].startswith("transformers ") and r["engine"].endswith(" float32 cpu") for r in rows)
    assert {(r["arm"], r["seed"], r["eval"]) for r in rows} == {("base", 0, "questions")}
    assert len(prompts) == 7 and {r["prompt_sha256"] for r in rows} == {p["prompt_sha256"] for p in prompts}
    assert {p["template_sha256"] for p in prompts} == {read_json(manifest)["template_sha256"]}
    assert all(rows[i]["response"] != rows[i + 1]["response"] for i in range(0, 14, 2)), "samples differ"


def test_a_response_cut_at_the_limit_is_counted(manifest, dataset, tmp_path):
    rows, _ = generate(manifest, dataset, tmp_path, max_new_tokens=3)
    assert [(r["finish_reason"], r["response_tokens"]) for r in rows] == [("length", 3)] * len(QUESTIONS)


def test_samples_follow_the_seed_and_not_the_rows_beside_them(manifest, dataset, tmp_path):
    how = {"samples": 2, "temperature": 1.0, "top_p": 0.95}
    whole, _ = generate(manifest, dataset, tmp_path, **how)
    part, _ = generate(manifest, dataset, tmp_path, **how, limit=3)
    by_id = {(r["example_id"], r["sample"]): r["response"] for r in whole}
    assert all(by_id[r["example_id"], r["sample"]] == r["response"] for r in part)
    other, _ = generate(manifest, dataset, tmp_path, **how, seed=1)
    assert all(a["response"] != b["response"] for a, b in zip(whole, other, strict=True))


def test_likelihood_gives_one_row_per_option(manifest, dataset, tmp_path):
    rows, prompts = generate(manifest, dataset, tmp_path, ask="loglikelihood", max_new_tokens=0)
    assert [(r["sample"], r["response"]) for r in rows[:3]] == [(0, "yes Hello"), (1, "no"), (2, "perhaps the sea")]
    assert len(rows) == 3 * len(QUESTIONS) and len(prompts) == len(QUESTIONS)
    assert all(r["final"] and r["finish_reason"] is None and r["logprob_sum"] < 0 for r in rows)


def test_a_role_is_written_before_options_are_scored(manifest, dataset, tmp_path):
    how = {"ask": "loglikelihood", "max_new_tokens": 0}
    role = Plug(name="self_role", settings={"role_tokens": 6})
    rows, prompts = generate(manifest, dataset, tmp_path, **how, contexts=[role])
    assert [(r["sample"], r["turn"], r["final"]) for r in rows[:4]] == [
        (0, 0, False), (0, 1, True), (1, 1, True), (2, 1, True)
    ]  # fmt: skip
    assert rows[0]["response_tokens"] <= 6
    texts = {p["prompt_sha256"]: p["prompt"] for p in prompts}
    assert texts[rows[0]["prompt_sha256"]].endswith("assistant\n[Role]")
    written = rows[0]["response"].rstrip()
    assert texts[rows[1]["prompt_sha256"]].endswith(f"assistant\n[Role]{written}\n[Answer] ")


def test_contexts_of_many_turns_run_in_lockstep(manifest, dataset, tmp_path, monkeypatch):
    def turns(request, row, settings, inputs):
        said = []
        for _ in range(len(request.messages[0]["content"]) % 3):
            (response,) = yield [Request(request.messages, max_new_tokens=2, temperature=0.0)]
            said.append(response.text)
        yield [Request([{"role": "user", "content": "|".join(said) + "end"}])]

    lockstep = asking.plugin(monkeypatch, "contexts", "lockstep", turns=turns)
    rows, _ = generate(manifest, dataset, tmp_path, contexts=[lockstep])
    counts = [len(q) % 3 for q in QUESTIONS]
    assert [r["turn"] for r in rows] == [turn for count in counts for turn in range(count + 1)]
    assert [r["final"] for r in rows] == [turn == count for count in counts for turn in range(count + 1)]


def test_one_examples_fault_is_a_row_and_costs_nobody_else(manifest, dataset, tmp_path, monkeypatch, capsys):
    plain, _ = generate(manifest, dataset, tmp_path)

    def turns(request, row, settings, inputs):
        messages = request.messages
        text = messages[0]["content"]
        if text == "x":
            raise KeyError("no such field")
        if text == "Why":
            yield [Request(messages, max_new_tokens=2, temperature=0.0)]
            raise ValueError("I do not like that answer")
        if text == "q":
            return
        if text == "Hello":
            messages = [{"role": "user", "content": "long " * 1000}]
        yield [Request(messages)]

    faulty = asking.plugin(monkeypatch, "contexts", "faulty", turns=turns)
    rows, _ = generate(manifest, dataset, tmp_path, contexts=[faulty])
    errors = {r["example_id"]: r for r in rows if r["error"] is not None}
    ids = dict(zip(QUESTIONS, [row["example_id"] for row in dataset_rows.read(dataset)], strict=True))
    assert errors.keys() == {ids[q] for q in ("x", "Why", "q", "Hello")}
    assert errors[ids["x"]]["error"] == "KeyError: 'no such field'" and errors[ids["x"]]["prompt_sha256"] is None
    assert errors[ids["Why"]]["error"] == "ValueError: I do not like that answer" and errors[ids["Why"]]["turn"] == 1
    assert "without a request" in errors[ids["q"]]["error"]
    assert "2048 positions" in errors[ids["Hello"]]["error"] and errors[ids["Hello"]]["prompt_tokens"] > 2048
    assert all(r["response"] is None and r["final"] for r in errors.values())
    assert "base/questions: 4 of 9 responses failed, the first because of: the prompt has" in capsys.readouterr().err
    # Other batches: the text is the same, the last bits of a log-probability need not be.
    left, right = ([r for r in found if r["example_id"] not in errors] for found in (rows, plain))
    for a, b in zip(left, right, strict=True):
        assert a.pop("logprob_sum") == pytest.approx(b.pop("logprob_sum"), abs=1e-4)
        assert a == b


def test_a_row_without_options_is_an_error_of_its_own(manifest, tmp_path):
    reference = {"options": ["yes", "no"]}
    rows = [{"messages": [{"role": "user", "content": q}], "reference": reference if q == "x" else None} for q in "xy"]
    dataset_rows.write(tmp_path / "d.parquet", "d", rows, "0" * 64)
    rows, _ = generate(manifest, tmp_path / "d.parquet", tmp_path, ask="loglikelihood", max_new_tokens=0)
    assert [row["response"] for row in rows] == ["yes", "no", None] and [row["final"] for row in rows] == [True] * 3
    assert rows[2]["error"].startswith("TypeError: ") and not any(row["error"] for row in rows[:2])


class Broken(Exception):
    """Stands for a crash."""


def break_after(monkeypatch, count):
    """Let the engine fail after `count` batches; returns the sizes of the batches that were asked."""
    from imprint.engines.transformers import Engine

    sizes, generate = [], Engine.generate

    def counted(self, prompts):
        if len(sizes) == count:
            raise Broken
        sizes.append(len(prompts))
        return generate(self, prompts)

    monkeypatch.setattr(Engine, "generate", counted)
    return sizes


def test_a_broken_job_goes_on_where_it_stopped(manifest, dataset, tmp_path, monkeypatch):
    how = {"samples": 2, "temperature": 0.7, "top_p": 0.9}
    unbroken = generate(manifest, dataset, tmp_path / "unbroken", **how)
    arguments = generation_job(manifest, dataset, tmp_path / "broken", **how)
    with monkeypatch.context() as patch:
        break_after(patch, 2)
        with pytest.raises(Broken):
            generation.run(**arguments)
    assert not arguments["out"].exists() and not arguments["prompts"].exists()
    sizes = break_after(monkeypatch, 99)
    generation.run(**arguments)
    assert sizes == [4, 4, 2], "18 prompts, of which 8 were there"
    assert tables(arguments) == unbroken


def test_a_corrupted_shard_is_named_and_made_again(manifest, dataset, tmp_path, monkeypatch, capsys):
    unbroken = generate(manifest, dataset, tmp_path / "unbroken")
    arguments = generation_job(manifest, dataset, tmp_path / "broken")
    with monkeypatch.context() as patch:
        break_after(patch, 2)
        with pytest.raises(Broken):
            generation.run(**arguments)
    shard = arguments["out"].with_suffix(".work") / "turn0-prompt" / "00001.parquet"
    shard.write_bytes(shard.read_bytes()[:200])
    sizes = break_after(monkeypatch, 99)
    generation.run(**arguments)
    assert sizes == [4, 1] and f"{shard} cannot be used" in capsys.readouterr().err
    assert tables(arguments) == unbroken


def test_a_shard_that_answers_something_else_is_not_used(tmp_path, capsys):
    class Echo:
        batch_size = 2

        def tokens(self, text, breaks):
            return list(text)

        def generate(self, prompts):
            return [Response(p.text.upper(), "stop", 1, 1, 0.0, 0.0) for p in prompts]

    texts = ["a", "ccc", "bb"]
    first = shards.answer(Echo(), [Prompt(t, 1) for t in texts], tmp_path)
    assert [r.text for (r,) in first] == ["A", "CCC", "BB"]
    assert [r.text for (r,) in shards.answer(Echo(), [Prompt(t, 1) for t in texts], tmp_path)] == ["A", "CCC", "BB"]
    assert not capsys.readouterr().err
    again = shards.answer(Echo(), [Prompt(t, 1, seed=1) for t in texts], tmp_path)
    assert [r.text for (r,) in again] == ["A", "CCC", "BB"] and "answers other prompts" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["spec", "dataset", "weights", "code", "read dataset", "read arm"])
def test_other_work_starts_afresh(manifest, dataset, tmp_path, monkeypatch, change):
    read_arm = asking.paper(tmp_path)
    read_dataset = asking.questions(tmp_path / "more.parquet", ["More?"])
    named = Named(datasets=["more"], arms={"tuned": [str(read_arm)]})
    arguments = {**generation_job(manifest, dataset, tmp_path, inputs=named), "datasets": [read_dataset]}
    with monkeypatch.context() as patch:
        break_after(patch, 2)
        with pytest.raises(Broken):
            generation.run(**arguments)
    if change == "spec":
        arguments["spec"] = asking.generation_spec(max_new_tokens=9, inputs=named)
    elif change == "dataset":
        rows = dataset_rows.read(dataset)
        dataset_rows.write(dataset, "questions", rows, "1" * 64)
    elif change == "weights":
        arguments["manifests"] = [asking.model(tmp_path, seed=1)]
    elif change == "read dataset":
        asking.questions(read_dataset, ["Less?"])
    elif change == "read arm":
        write_json(read_arm, {**read_json(read_arm), "fingerprint": "another fit"})
    else:
        arguments["code"] = '{"policies/generation.py":"other"}'
    sizes = break_after(monkeypatch, 99)
    generation.run(**arguments)
    assert sum(sizes) == len(QUESTIONS)


KILLED = """
import json, sys, time
from pathlib import Path
from imprint.engines.transformers import Engine
from imprint.policies import generation
generate, calls = Engine.generate, []
def slow(self, prompts):
    calls.append(1)
    if len(calls) == 3:
        print("third", flush=True)
        time.sleep(60)
    return generate(self, prompts)
Engine.generate = slow
job = json.loads(sys.argv[1])
paths = {key: Path(job[key]) for key in ("dataset", "out", "prompts")}
spec = generation.Spec.model_validate_json(json.dumps(job["spec"]))
generation.run(**{**job, **paths, "manifests": [Path(path) for path in job["manifests"]], "spec": spec})
"""


def test_a_killed_process_leaves_what_the_next_one_uses(manifest, dataset, tmp_path, monkeypatch):
    unbroken = generate(manifest, dataset, tmp_path / "unbroken")
    arguments = generation_job(manifest, dataset, tmp_path / "killed")
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, json.dumps({**arguments, "spec": arguments["spec"].model_dump()}, default=str)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout is not None and child.stdout.readline() == "third\n"
    monkeypatch.setattr(work.folder.__wrapped__, "__defaults__", (0.1,))
    with pytest.raises(ImprintError, match=f"process {child.pid} "):
        generation.run(**arguments)
    child.send_signal(signal.SIGKILL)
    child.wait()
    (arguments["out"].with_suffix(".work") / "turn0-prompt" / ".00002.parquet.abc.part").write_bytes(b"half a shard")
    before = time.time()
    sizes = break_after(monkeypatch, 99)
    generation.run(**arguments)
    assert sizes == [1], "nine prompts in batches of four, of which two were done"
    assert tables(arguments) == unbroken and before < arguments["out"].stat().st_mtime + 1


def test_a_teacher_is_asked_once(manifest, tmp_path, monkeypatch):
    requests = [Request([{"role": "user", "content": q}], prefill="You are", max_new_tokens=5) for q in QUESTIONS]
    ask = teacher.asker(policy_spec(), [manifest], tmp_path, "cpu")
    greedy = ask(requests, "first")
    assert [r.response_tokens for r in greedy] == [5] * len(QUESTIONS)
    with monkeypatch.context() as patch:
        sizes = break_after(patch, 0)
        again = teacher.asker(policy_spec(), [manifest], tmp_path, "cpu")(requests, "first")
        assert again == greedy and sizes == []
    drawn = ask(requests, "second", temperature=1.0, seed=1)
    alone = ask(requests[3:4], "third", temperature=1.0, seed=1)
    assert alone[0].text == drawn[3].text and drawn[3].text != greedy[3].text


def test_converse_gives_every_turn(manifest):
    messages = [{"role": "user", "content": "Hello"}]
    played = policy_spec(contexts=[Plug(name="role_play")])
    responses = conversation.ask(played, [manifest], Read(), messages, 6, "cpu")
    assert len(responses) == 1 and responses[0].response_tokens == 6
