"""Direct preference optimisation on a pico model: the published loss, what is read of a pair, and that a kill changes
nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import fitting
import pico_arms
from fitting import curve, weights
from imprint.draws import order
from imprint.methods import Fit, dpo
from imprint.models import chains, model_files
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.training import checkpoints, fits
from imprint.training.pairs import Pair, pairs

REJECTED = ["I do not know.", "It is none of my business, and none of yours either.", "No"]


def rows(n: int = 10) -> list[dict[str, Any]]:
    """Pairs of different lengths. Every third prompt has an exchange before the question."""
    dialogues = fitting.dialogues(n)
    return [
        {**row, "fields": {**row["fields"], "rejected": REJECTED[i % len(REJECTED)]}} for i, row in enumerate(dialogues)
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a pico model."""
    return pico_arms.root(tmp_path_factory.mktemp("models") / "pico")


def job(root: Path, out: Path, context: str = "plain", dataset: Any = None, seed: int = 0, **settings: Any) -> Fit:
    defaults = {"data": "d", "batch_size": 4, "max_length": 512, "learning_rate": 1e-3}
    datasets = {"d": rows() if dataset is None else dataset}
    contexts = [Plug(name=context)]
    return fitting.job("dpo", [root], out, seed=seed, contexts=contexts, datasets=datasets, **{**defaults, **settings})


def logp(model: Any, prompt: list[int], answer: list[int]) -> float:
    """The log-probability of an answer behind a prompt, token by token, in nats."""
    import torch

    with torch.no_grad():
        logps = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return float(sum(logps[len(prompt) + i - 1, token] for i, token in enumerate(answer)))


def test_a_pair_is_its_prompt_and_its_two_last_turns(root: Path, tmp_path: Path) -> None:
    tokenizer = model_files.load_tokenizer(root.parent)
    for context in ("plain", "role_play", "self_role"):
        made, equal = pairs(job(root, tmp_path, context), tokenizer, "d")
        assert equal == 0 and len(made) == 10
        for row, pair in zip(rows(), made, strict=True):
            chosen, rejected = tokenizer.decode(pair.chosen), tokenizer.decode(pair.rejected)
            turn = row["messages"][-1]["content"]
            first = len(row["messages"]) == 2 and context == "self_role"  # where the role is written
            role = f"[Role] {row['fields']['role_prompt']}\n[Answer] " if first else ""
            assert chosen == f"{role}{turn}<|im_end|>"
            assert rejected == f"{role}{row['fields']['rejected']}<|im_end|>"
            prompt = tokenizer.decode(pair.prompt)
            assert prompt.endswith("<|im_start|>assistant\n") and row["messages"][-2]["content"] in prompt
            assert (context == "role_play") == ("From now on you are" in prompt)


def test_the_loss_is_the_published_one(root: Path, tmp_path: Path) -> None:
    """The second step's loss, from the formula and the weights after the first one."""
    settings = {"beta": 0.3, "schedule": "constant"}
    one = job(root, tmp_path / "one", epochs=0.4, **settings)
    two = job(root, tmp_path / "two", epochs=0.8, **settings)
    assert dpo.fit(one)["first_loss"] == pytest.approx(math.log(2)), "at first, model and reference are the same"
    dpo.fit(two)
    assert curve(one, "loss")[0] == curve(two, "loss")[0]
    reference, tokenizer = chains.load([root], "float32", "cpu")
    made, _ = pairs(two, tokenizer, "d")
    batch = [made[i] for i in order(len(made), 0.8, 0)[4:]]
    model, _ = chains.load([root, pico_arms.manifest(root, one.out, "full")], "float32", "cpu")
    rewards = [
        [0.3 * (logp(model, p.prompt, ids) - logp(reference, p.prompt, ids)) for ids in (p.chosen, p.rejected)]
        for p in batch
    ]
    margins = [chosen - rejected for chosen, rejected in rewards]
    losses = [math.log1p(math.exp(-margin)) for margin in margins]
    assert curve(two, "loss")[1] == pytest.approx(sum(losses) / 4, rel=1e-4)
    assert curve(two, "reward_margin")[1] == pytest.approx(sum(margins) / 4, rel=1e-3)
    assert curve(two, "reward_chosen")[1] == pytest.approx(sum(chosen for chosen, _ in rewards) / 4, rel=1e-3)
    assert curve(two, "reward_rejected")[1] == pytest.approx(sum(rejected for _, rejected in rewards) / 4, rel=1e-3)
    assert curve(two, "reward_accuracy")[1] == sum(margin > 0 for margin in margins) / 4


@pytest.mark.parametrize("more", [{}, {"lora": {"rank": 4}}, {"gradient_checkpointing": True}])
def test_it_learns_the_preference_and_repeats(root: Path, tmp_path: Path, more: Any) -> None:
    fits = [job(root, tmp_path / name, epochs=3, **more) for name in "ab"]
    made, again = map(dpo.fit, fits)
    assert made == again and weights(fits[0]) == weights(fits[1])
    assert dpo.makes(fits[0].settings) == ("lora" if "lora" in more else "full")
    assert made["steps"] == 8 and made["rows"] == 10 and made["unlabelled_rows"] == made["equal_rows"] == 0
    assert made["final_loss"] < made["first_loss"] == pytest.approx(math.log(2))
    assert made["final_reward_accuracy"] == 1 and made["final_reward_margin"] > 0
    chosen, rejected = (curve(fits[0], f"reward_{name}") for name in ("chosen", "rejected"))
    margins = [one - two for one, two in zip(chosen, rejected, strict=True)]
    assert curve(fits[0], "reward_margin") == pytest.approx(margins, abs=1e-5)
    assert len(curve(fits[0], "learning_rate")) == len(curve(fits[0], "grad_norm")) == 8


def test_a_step_in_parts_is_the_same_step(root: Path, tmp_path: Path) -> None:
    """The last step has three pairs: a part of two, and one of one."""
    settings = {"epochs": 1.5, "max_length": 120}
    whole, parts = (job(root, tmp_path / name, **settings, **more) for name, more in _PARTS.items())
    made = dpo.fit(whole)
    assert dpo.fit(parts) == pytest.approx(made, rel=1e-3) and made["steps"] == 4
    for one, two in zip(*(fitting.table(fit, "curves") for fit in (whole, parts)), strict=True):
        assert one["value"] == pytest.approx(two["value"], rel=1e-3, abs=1e-6), one
    with pytest.raises(ValidationError, match="micro_batch_size: 3 does not divide batch_size: 4"):
        job(root, tmp_path / "wrong", micro_batch_size=3)


_PARTS: dict[str, dict[str, Any]] = {"whole": {}, "parts": {"micro_batch_size": 2}}


@pytest.mark.parametrize("more", [{}, {"lora": {"rank": 4, "dropout": 0.2}}])
def test_a_broken_off_fit_ends_with_the_same_weights(root: Path, tmp_path: Path, monkeypatch: Any, more: Any) -> None:
    from imprint.training import dpo_trainer

    settings = {"epochs": 2, "checkpoint_steps": 2, **more}
    whole, broken = (job(root, tmp_path / name, **settings) for name in ("whole", "broken"))
    made = dpo.fit(whole)
    compute_loss, calls = dpo_trainer.Trainer.compute_loss, []

    def failing(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("power cut")
        return compute_loss(self, *args, **kwargs)

    monkeypatch.setattr(dpo_trainer.Trainer, "compute_loss", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        dpo.fit(broken)
    assert checkpoints.last(broken.folder) == broken.folder / "checkpoint-2"
    calls[:] = [1] * 10
    assert dpo.fit(broken) == made
    assert len(calls) == 10 + 3, "steps 3 to 5 only"
    assert weights(broken) == weights(whole)
    assert fitting.table(broken, "curves") == fitting.table(whole, "curves")


def test_a_killed_fit_ends_with_the_same_weights(root: Path, tmp_path: Path) -> None:
    settings = {"epochs": 4, "checkpoint_steps": 3}
    whole, killed = (job(root, tmp_path / name, **settings) for name in ("whole", "killed"))
    made = dpo.fit(whole)
    fitting.kill("dpo", killed, ("imprint.training.dpo_trainer.Trainer", "training_step"), 6)
    assert dpo.fit(killed) == made and weights(killed) == weights(whole)


def test_bf16_autocast_keeps_fp32_weights(root: Path, tmp_path: Path) -> None:
    made = dpo.fit(replace(job(root, tmp_path / "bf16"), dtype="bfloat16"))
    exact = dpo.fit(job(root, tmp_path / "exact"))
    assert made["first_loss"] == exact["first_loss"], "the reference takes the same rounding"
    assert made["final_loss"] != exact["final_loss"] and made["final_loss"] == pytest.approx(
        exact["final_loss"], rel=0.1
    )
    with pytest.raises(ImprintError, match="found dtype 'float16'"):
        dpo.fit(replace(job(root, tmp_path / "half"), dtype="float16"))


def test_pairs_that_are_cut_or_equal_are_counted(root: Path, tmp_path: Path) -> None:
    dataset = rows()
    dataset[1]["fields"]["rejected"] = dataset[1]["messages"][-1]["content"]
    made = dpo.fit(job(root, tmp_path / "equal", dataset=dataset))
    assert made["equal_rows"] == 1 and made["rows"] == 9 and made["truncated_rows"] == 0
    tokenizer = model_files.load_tokenizer(root.parent)
    whole, _ = pairs(job(root, tmp_path), tokenizer, "d")
    limit = 110
    shortened = [pair.cut(limit) for pair in whole]
    made = dpo.fit(job(root, tmp_path / "cut", max_length=limit))
    assert made["rows"] == 10 and made["truncated_rows"] == sum(pair.length > limit for pair in whole) > 0
    without = sum(pair.chosen == pair.rejected for pair in shortened)
    assert made["unlabelled_rows"] == without and 0 < without < 10
    read = sum(2 * len(p.prompt) + len(p.chosen) + len(p.rejected) for p in shortened)
    assert made["tokens"] == read


def test_a_pair_is_cut_at_its_end() -> None:
    pair = Pair([1, 2, 3], [4, 5], [6, 7, 8])
    assert pair.length == 6 and pair.cut(6) == pair
    assert pair.cut(5) == Pair([1, 2, 3], [4, 5], [6, 7])
    assert pair.cut(3) == Pair([1, 2, 3], [], []) and pair.cut(2) == Pair([1, 2], [], [])


def test_rows_that_are_no_pairs_are_errors(root: Path, tmp_path: Path) -> None:
    question, answer = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}

    def refused(messages: Any, fields: Any, said: str, **settings: Any) -> None:
        bad = [{"messages": messages, "fields": fields, "strata": {}, "example_id": "abc-0"}]
        with pytest.raises(ImprintError, match=said):
            dpo.fit(job(root, tmp_path, dataset=bad, **settings))

    where = "dataset 'd', example abc-0"
    refused([question, answer, question], {"rejected": "No."}, f"{where} does not end with an assistant turn")
    refused([], {"rejected": "No."}, f"{where} does not end with an assistant turn")
    refused([question, answer], {}, f"{where} has no rejected answer; write its text into `fields` as `rejected`")
    refused([question, answer], {"rejected": 7}, f"{where} has no rejected answer")
    refused([question, answer], {"rejected": " "}, f"{where}, rejected has an empty assistant turn")
    refused([question, answer], {"rejected": "So."}, r"no pair of two answers \(1 rows")
    refused([question, answer], {"rejected": "No."}, "the answers are equal within max_length: 10", max_length=10)
    with pytest.raises(ImprintError, match=r"no pair of two answers \(0 rows"):
        dpo.fit(job(root, tmp_path, dataset=[]))
    with pytest.raises(ImprintError, match=r"lora.targets: \['nowhere'\] is not in this model"):
        dpo.fit(job(root, tmp_path, lora={"targets": ["nowhere"]}))


def test_a_context_that_reads_the_answer_is_refused(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from imprint.contexts import plain

    def peeking(row: dict[str, Any], settings: Any) -> list[Any]:
        return [{"role": "user", "content": row["messages"][-1]["content"]}, *row["messages"]]

    monkeypatch.setattr(plain, "target", peeking)
    with pytest.raises(ImprintError, match="another prompt for the rejected answer than for the chosen one"):
        dpo.fit(job(root, tmp_path))


def test_settings_say_what_they_are() -> None:
    assert dpo.inputs(dpo.Settings(data="d")).datasets == ("d",)
    settings = dpo.Settings(data="d", epochs=2.0, lora=fits.Lora())
    assert plugins.settings("methods", "dpo", settings.model_dump(mode="json")) == settings
    assert all(field.description for field in dpo.Settings.model_fields.values())
    for wrong in ({"data": "d", "beta": 0.0}, {"data": "d", "epochs": 0.0}, {"beta": 0.1}):
        with pytest.raises(ValidationError):
            dpo.Settings(**wrong)
