"""GRPO on a pico model: that it is TRL's, that a kill changes nothing, and what it keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import fitting
import pico_arms
from fitting import curve, table, weights
from imprint.contexts import plain, prior_prompt, role_play
from imprint.draws import order
from imprint.methods import Fit, _prompts, grpo
from imprint.models import chains
from imprint.policies import policy
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.scoring import bounded
from imprint.training import checkpoints, grpo_trainer
from imprint.training.rewards import Reward

WORDS = ["the", "sea", "two red birds", "a house by the river", "rain", "my old friend", "bread"]


def rows(n: int = 6) -> list[dict[str, Any]]:
    """Prompts of different lengths with one or two constraints that a random model sometimes meets."""
    made = []
    for i in range(n):
        ids = ["punctuation:no_comma", "keywords:letter_frequency"]
        kwargs: list[dict[str, Any]] = [
            {},
            {"letter": "abcdefg"[i % 7], "let_frequency": 2, "let_relation": "at least"},
        ]
        made.append(
            {
                "messages": [{"role": "user", "content": f"Write about {WORDS[i % 7]}."}],
                "reference": {"instruction_id_list": ids, "kwargs": kwargs, "prompt": ""},
                "fields": {},
                "strata": {},
            }
        )
    return fitting.named(made)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a pico model."""
    return pico_arms.root(tmp_path_factory.mktemp("models") / "pico")


def job(root: Path, out: Path, context: Plug | None = None, dataset: Any = None, seed: int = 0, **settings: Any) -> Fit:
    defaults = {
        "data": "d",
        "reward": "ifeval.instruction_strict",
        "steps": 4,
        "prompts_per_step": 2,
        "group_size": 4,
        "completion_tokens": 24,
        "learning_rate": 1e-2,
    }
    datasets = {"d": rows() if dataset is None else dataset}
    contexts = [context or Plug(name="plain")]
    return fitting.job("grpo", [root], out, seed=seed, contexts=contexts, datasets=datasets, **{**defaults, **settings})


def test_a_fit_learns_and_keeps_what_it_drew(root: Path, tmp_path: Path) -> None:
    fit = job(root, tmp_path, steps=6)
    made = grpo.fit(fit)
    assert grpo.makes(fit.settings) == "full" and made["completions"] == 48
    drawn = table(fit, "rollouts")
    assert len(drawn) == 48 and [row["step"] for row in drawn] == [1 + i // 8 for i in range(48)]
    for start in range(0, 48, 4):
        group = drawn[start : start + 4]
        assert len({row["example_id"] for row in group}) == 1 and len({row["prompt"] for row in group}) == 1
        assert [row["sample"] for row in group] == [0, 1, 2, 3]
        assert abs(sum(row["advantage"] for row in group)) < 1e-4
        if len({row["reward"] for row in group}) == 1:
            assert all(row["advantage"] == 0 for row in group)
    by_step = [sum(row["reward"] for row in drawn[8 * i : 8 * i + 8]) / 8 for i in range(6)]
    assert curve(fit, "reward") == pytest.approx(by_step)
    assert curve(fit, "reward/ifeval.instruction_strict") == pytest.approx(by_step)
    lengths = [sum(row["response_tokens"] for row in drawn[8 * i : 8 * i + 8]) / 8 for i in range(6)]
    assert curve(fit, "length") == pytest.approx(lengths)
    assert {len(curve(fit, name)) for name in ("loss", "entropy", "zero_variance_share", "unjudged_share")} == {6}
    assert {row["finish_reason"] for row in drawn} <= {"stop", "length"}
    # The kept rewards are what the score says of the kept responses.
    reference = {row["example_id"]: row for row in rows()}
    (reward,) = (Reward(term, fit.contexts) for term in fit.settings.reward)
    for row in drawn[:8]:
        assert dict(row["rewards"])["ifeval.instruction_strict"] == reward.value(
            reference[row["example_id"]], row["response"]
        )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora": {"rank": 4, "alpha": 8}},
        {"beta": 0.1, "lora": {"rank": 4, "alpha": 8}},
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "beta": 0.1, "temperature": 0.7},
        {"updates_per_rollout": 2},
        {"updates_per_rollout": 2, "micro_batch_size": 2, "beta": 0.1, "lora": {"rank": 4, "alpha": 8}},
        {"updates_per_rollout": 4, "loss": "grpo"},
        {"updates_per_rollout": 2, "loss": "bnpo", "micro_batch_size": 2},
        {"loss": "dr_grpo", "micro_batch_size": 4},
    ],
    ids=[
        "full",
        "lora",
        "lora_kl",
        "checkpointing",
        "checkpointing_kl",
        "two_updates",
        "two_lora_kl",
        "grpo",
        "bnpo",
        "dr_grpo",
    ],
)
def test_it_is_trls_trainer(root: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """The same draws, rewards, losses and weights as TRL's own trainer, step by step."""
    import grpo_peer

    fit = job(root, tmp_path, steps=3, learning_rate=1e-3, completion_tokens=16, **settings)
    grpo.fit(fit)
    drawn = table(fit, "rollouts")
    model, tokenizer = chains.load([root], "float32", "cpu")
    asking = policy.over(model, tokenizer, 4, fit.contexts)
    made, _, _ = _prompts.prompts(fit, asking, [Reward(fit.settings.reward[0], fit.contexts)])
    ordered = [made[i] for i in order(len(made), 6 / len(made), fit.seed)]
    peer = grpo_peer.peer(fit, ordered, beta=fit.settings.beta)
    texts: list[str] = []
    calculate = peer._calculate_rewards
    peer._calculate_rewards = lambda i, p, completions, ids: (
        texts.extend(completions) or calculate(i, p, completions, ids)
    )
    with grpo_peer.coupled(fit, peer):
        peer.train()
    assert texts == [row["response"] for row in drawn]
    logged = [entry for entry in peer.state.log_history if "loss" in entry]
    for quantity, name in (("loss", "loss"), ("reward", "reward"), ("entropy", "entropy"), ("grad_norm", "grad_norm")):
        assert curve(fit, quantity) == pytest.approx([entry[name] for entry in logged], rel=1e-3, abs=1e-5)
    if fit.settings.beta:
        assert curve(fit, "kl") == pytest.approx([entry["kl"] for entry in logged], rel=1e-3, abs=1e-6)
        at_start = curve(fit, "kl")[0]
        assert (at_start < 1e-6) == (fit.settings.updates_per_rollout == 1) and max(curve(fit, "kl")) > 1e-6
    kind = plugins.load("artifacts", grpo.makes(fit.settings))
    kind.save(peer.accelerator.unwrap_model(peer.model), tmp_path / "peer")
    from safetensors.torch import load_file

    (ours,), (theirs,) = ((tmp_path / name).glob("*.safetensors") for name in ("weights", "peer/weights"))
    one, two = load_file(ours), load_file(theirs)
    assert one.keys() == two.keys()
    # Adam divides by tiny second moments, so a rounding of the gradient may turn a step of 1e-3; most must agree.
    near = [float(((one[name] - two[name]).abs() < 2e-5).float().mean()) for name in one]
    assert min(near) > 0.97, near


LOSSES = ("dapo", "grpo", "bnpo", "dr_grpo")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_update_has_the_clipped_loss_of_the_papers(
    root: Path, tmp_path: Path, monkeypatch: Any, loss: str, checkpointing: bool
) -> None:
    """Its value and its gradient, against plain passes over one completion at a time. The second update is against the
    weights that drew the completions, and some of its ratios are clipped."""
    from types import SimpleNamespace

    import torch

    import grpo_peer
    from imprint.training import grpo_trainer

    seen: list[dict[str, Any]] = []
    compute = grpo_trainer.Trainer._compute_loss

    def watched(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        value = compute(self, model, inputs)
        parameters = dict(model.named_parameters())
        gradient = torch.autograd.grad(value, list(parameters.values()), retain_graph=True)
        seen.append(
            {
                "weights": {name: weight.detach().clone() for name, weight in parameters.items()},
                "gradient": dict(zip(parameters, gradient, strict=True)),
                "loss": float(value.detach()),
                **{name: tensor.clone() for name, tensor in inputs.items()},
            }
        )
        return value

    monkeypatch.setattr(grpo_trainer.Trainer, "_compute_loss", watched)
    settings = {"updates_per_rollout": 2, "micro_batch_size": 2, "epsilon": 0.05, "learning_rate": 0.02}
    fit = job(root, tmp_path, steps=1, loss=loss, gradient_checkpointing=checkpointing, **settings)
    grpo.fit(fit)
    assert len(seen) == 4 and sum(int(part["completion_mask"].sum()) for part in seen) == sum(
        row["response_tokens"] for row in table(fit, "rollouts")
    )
    assert all(part["advantages"].any() for part in seen), "a pass of this fit has no advantages: change its rows"
    drawn_by, trained = (chains.load([root], "float32", "cpu")[0] for _ in range(2))
    mean_tokens = sum(int(part["completion_mask"].sum()) for part in seen) / 2
    known = SimpleNamespace(epsilon=0.05, completion_tokens=24, mean_tokens=mean_tokens)

    def logps(model: Any, part: dict[str, Any], row: int) -> Any:
        prompt = part["prompt_ids"][row][part["prompt_mask"][row].bool()]
        completion = part["completion_ids"][row][part["completion_mask"][row].bool()]
        logits = model(torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(1).gather(1, completion[:, None])[:, 0]

    for number, update in enumerate((seen[:2], seen[2:])):
        trained.load_state_dict(update[0]["weights"], strict=False)
        trained.zero_grad()
        places = [(part, row) for part in update for row in range(2)]
        now = [logps(trained, *place) for place in places]
        with torch.no_grad():
            then = [logps(drawn_by, *place) for place in places]
        advantages = [float(part["advantages"][row]) for part, row in places]
        expected = grpo_peer.published_loss(loss, now, then, advantages, known, [(0, 1), (2, 3)])
        expected.backward()
        assert sum(part["loss"] for part in update) == pytest.approx(float(expected), abs=1e-5)
        for name, weight in trained.named_parameters():
            total = sum(part["gradient"][name] for part in update)
            assert torch.allclose(total, weight.grad, atol=1e-5, rtol=1e-3), (number, name)
        ratios = torch.cat([(new - old).exp().detach() for new, old in zip(now, then, strict=True)])
        outside = float(((ratios - 1).abs() > known.epsilon).float().mean())
        assert (outside == 0) if number == 0 else (0 < outside < 1)
    assert curve(fit, "clipped_share")[0] > 0


def test_a_step_is_a_rollout_of_several_updates(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    import torch

    from imprint.training import grpo_trainer

    read, passes = grpo_trainer.shared_prompt_logps, []

    def watched(model: Any, ids: Any, *rest: Any) -> Any:
        passes.append((torch.is_grad_enabled(), len(ids)))
        return read(model, ids, *rest)

    monkeypatch.setattr(grpo_trainer, "shared_prompt_logps", watched)
    fit = job(root, tmp_path, steps=3, updates_per_rollout=4, micro_batch_size=2, learning_rate=2e-2)
    made = grpo.fit(fit)
    assert (made["steps"], made["updates"], made["completions"]) == (3, 12, 24)
    drawn = table(fit, "rollouts")
    assert [row["step"] for row in drawn] == [1 + i // 8 for i in range(24)]
    assert curve(fit, "reward") == pytest.approx([sum(r["reward"] for r in drawn[i : i + 8]) / 8 for i in (0, 8, 16)])
    rows = table(fit, "curves")
    quantities = {row["quantity"] for row in rows}
    assert {"loss", "grad_norm", "clipped_share"} < quantities
    assert all([row["step"] for row in rows if row["quantity"] == name] == [1, 2, 3] for name in quantities)
    assert max(size for _, size in passes) == 2, "the log-probabilities of a whole rollout are computed in small passes"
    once = job(root, tmp_path / "once", steps=3)
    grpo.fit(once)
    first, alone = ([row["response"] for row in table(one, "rollouts")[:8]] for one in (fit, once))
    assert first == alone and set(curve(once, "clipped_share")) == {0.0}


def test_the_reference_is_in_the_number_format_of_generation(root: Path, tmp_path: Path) -> None:
    model, _ = chains.load([root], "float32", "cpu")
    for dtype in (torch.bfloat16, torch.float32):
        job = replace(fitting.job("sft", [root], tmp_path, data="d"), dtype=str(dtype).removeprefix("torch."))
        reference = grpo_trainer.Trainer._reference(job, model)
        assert {weights.dtype for weights in reference.parameters()} == {dtype}
        assert {weights.dtype for weights in model.parameters()} == {torch.float32}, "the model in training stays"


def test_a_kl_term_against_the_starting_weights_needs_no_hub(root: Path, tmp_path: Path) -> None:
    fit = job(root, tmp_path, beta=0.1, steps=3)
    grpo.fit(fit)
    assert curve(fit, "kl")[0] == pytest.approx(0, abs=1e-6) and curve(fit, "kl")[-1] > 1e-6


def test_the_shared_prompt_pass_gives_the_gradients_of_the_plain_one(root: Path) -> None:
    import torch

    from imprint.training.grpo_trainer import shared_prompt_logps

    model, tokenizer = chains.load([root], "float32", "cpu")
    prompts = [[3, 4, 5, 6], [7, 8], [3, 4, 5, 6], [9, 10, 11]]
    tails = [[12, 13, 14], [15, 2], [16, 17, 18], [19]]
    ids = torch.full((4, 7), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, (prompt, tail) in enumerate(zip(prompts, tails, strict=True)):
        ids[row, 4 - len(prompt) : 4 + len(tail)] = torch.tensor([*prompt, *tail])
        mask[row, 4 - len(prompt) : 4 + len(tail)] = 1
    model.train()
    found, entropies = shared_prompt_logps(model, ids, mask, 3, 0.7, True)
    (found * torch.arange(12).view(4, 3)).sum().backward()
    gradient = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    total = torch.zeros(())
    for row, (prompt, tail) in enumerate(zip(prompts, tails, strict=True)):
        logits = model(torch.tensor([[*prompt, *tail]])).logits[0, len(prompt) - 1 : -1] / 0.7
        logps = logits.log_softmax(1)
        chosen = logps.gather(1, torch.tensor(tail)[:, None])[:, 0]
        assert torch.allclose(found[row, : len(tail)], chosen, atol=1e-5) and (found[row, len(tail) :] == 0).all()
        assert torch.allclose(entropies[row, : len(tail)], -(logps.exp() * logps).sum(1), atol=1e-5)
        total = total + (chosen * torch.arange(12).view(4, 3)[row, : len(tail)]).sum()
    total.backward()
    for name, p in model.named_parameters():
        assert torch.allclose(gradient[name], p.grad, atol=1e-4, rtol=1e-4), name


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_completions_that_move_nothing_are_read_without_a_gradient(
    root: Path, tmp_path: Path, monkeypatch: Any, beta: float
) -> None:
    """`test_it_is_trls_trainer` says that the weights stay TRL's."""
    import torch

    from imprint.training import grpo_trainer

    read, seen = grpo_trainer.shared_prompt_logps, []

    def watched(model: Any, ids: Any, *rest: Any) -> Any:
        if model.training:  # not the reference model of a KL term
            seen.append((torch.is_grad_enabled(), len(ids)))
        return read(model, ids, *rest)

    monkeypatch.setattr(grpo_trainer, "shared_prompt_logps", watched)
    fit = job(root, tmp_path, steps=4, beta=beta)
    grpo.fit(fit)
    drawn = table(fit, "rollouts")
    still = [sum(row["advantage"] == 0 for row in drawn if row["step"] == step) for step in range(1, 5)]
    assert any(still), "no group of this fit has equal rewards: change its rows"
    assert sum(rows for gradient, rows in seen if not gradient) == (0 if beta else sum(min(n, 7) for n in still))
    assert sum(rows for _, rows in seen) == len(drawn)


@pytest.mark.parametrize(
    "settings", [{}, {"lora": {"rank": 4, "dropout": 0.2}, "micro_batch_size": 4}, {"updates_per_rollout": 2}]
)
def test_a_broken_off_fit_ends_with_the_same_weights(
    root: Path, tmp_path: Path, monkeypatch: Any, settings: Any
) -> None:
    from imprint.training import grpo_trainer

    settings = {"steps": 7, "checkpoint_steps": 2, **settings}
    whole = job(root, tmp_path / "whole", **settings)
    made = grpo.fit(whole)
    broken = job(root, tmp_path / "broken", **settings)
    rollout, calls = grpo_trainer.Trainer._rollout, []

    def failing(self: Any, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise RuntimeError("power cut")
        return rollout(self, *args)

    monkeypatch.setattr(grpo_trainer.Trainer, "_rollout", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        grpo.fit(broken)
    assert checkpoints.last(broken.folder) == broken.folder / f"checkpoint-{4 * whole.settings.updates_per_rollout}"
    calls[:] = [1] * 10
    assert grpo.fit(broken) == made and len(calls) == 10 + 3  # steps 5 to 7 only
    assert weights(broken) == weights(whole)
    for name in ("curves", "rollouts"):
        assert table(whole, name) == table(broken, name)


def test_a_killed_fit_ends_with_the_same_weights(root: Path, tmp_path: Path) -> None:
    settings = {"steps": 8, "checkpoint_steps": 3}
    whole, killed = (job(root, tmp_path / name, **settings) for name in ("whole", "killed"))
    made = grpo.fit(whole)
    fitting.kill("grpo", killed, ("imprint.training.grpo_trainer.Trainer", "training_step"), 6)
    assert grpo.fit(killed) == made and weights(killed) == weights(whole)


def test_equal_rewards_are_counted_and_move_nothing(root: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    easy = [
        {
            **row,
            "reference": {
                "instruction_id_list": ["length_constraints:number_words"],
                "kwargs": [{"relation": "less than", "num_words": 500}],
            },
        }
        for row in rows()
    ]
    fit = job(root, tmp_path, dataset=easy, steps=2, learning_rate=1e-2)
    made = grpo.fit(fit)
    assert made["zero_variance_share"] == 1.0 and curve(fit, "zero_variance_share") == [1.0, 1.0]
    (file,) = (tmp_path / "weights").glob("*.safetensors")
    before = load_file(next(root.parent.glob("*.safetensors")))
    assert all((tensor == before[name]).all() for name, tensor in load_file(file).items())


def test_a_lost_loss_or_reward_stops_the_fit(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(ImprintError, match=r"arm 'tuned': the (loss|grad_norm) is (nan|inf)|found nan"):
        grpo.fit(job(root, tmp_path / "a", steps=20, learning_rate=1e30))
    value = Reward.value
    monkeypatch.setattr(Reward, "value", lambda self, row, text: value(self, row, text) if not text else float("nan"))
    with pytest.raises(ImprintError, match=r"the reward ifeval\.instruction_strict is nan at step 1 for example"):
        grpo.fit(job(root, tmp_path / "b"))
    assert not (tmp_path / "a" / "weights").exists() and not (tmp_path / "b" / "weights").exists()


def test_a_prior_prompt_is_put_before_every_prompt(root: Path, tmp_path: Path) -> None:
    context = Plug(name="prior_prompt", settings={"style": "plan"})
    reward = ["ifeval.instruction_strict", {"format": "plan"}]
    fit = job(root, tmp_path, context=context, steps=1, reward=reward)
    grpo.fit(fit)
    drawn = table(fit, "rollouts")
    text = prior_prompt.prompt(prior_prompt.Settings(style="plan"))
    assert all(f"user\n{text}\n\nWrite about" in row["prompt"] for row in drawn)
    for row in drawn:  # a random model writes no answer block, so nothing is worth anything
        assert dict(row["rewards"]) == {"ifeval.instruction_strict": 0.0, "format": 0.0} and row["reward"] == 0
    with pytest.raises(ImprintError, match="format asks for <think>, but the context asks for <plan>"):
        grpo.fit(
            replace(
                fit,
                settings=fit.settings.model_copy(
                    update={"reward": grpo.Settings(data="d", reward=[{"format": "think"}]).reward}
                ),
            )
        )


def test_rows_whose_gold_cannot_be_read_are_left_out_and_counted(root: Path, tmp_path: Path) -> None:
    golds = ["3", "$", "\\frac{1}{2}", ""]
    data = [{**row, "reference": {"answer": gold}} for row, gold in zip(rows(4), golds, strict=True)]
    made = grpo.fit(job(root, tmp_path, dataset=data, reward="math", steps=1))
    assert made["rows"] == 2 and made["unscorable_rows"] == 2
    with pytest.raises(ImprintError, match="no row that the rewards can judge"):
        grpo.fit(job(root, tmp_path / "none", dataset=data[1:2], reward="math"))


def test_contexts_chain_and_what_the_model_answered_in_the_data_is_not_shown(root: Path, tmp_path: Path) -> None:
    contexts = [Plug(name="prior_prompt", settings={"style": "plan"}), Plug(name="role_play")]
    fit = replace(job(root, tmp_path), contexts=contexts)
    row = rows(1)[0]
    answered = {**row, "messages": [*row["messages"], {"role": "assistant", "content": "The sea."}]}
    request = _prompts.ask(fit, answered)
    assert request == _prompts.ask(fit, row)
    first, accepted, question = request.messages
    assert first["content"] == role_play.ROLE and accepted["content"] == role_play.FEEDBACK
    prompt = prior_prompt.prompt(prior_prompt.Settings(style="plan"))
    assert question["content"] == f"{prompt}\n\nWrite about the."


def test_prompts_that_do_not_fit_and_contexts_of_many_calls_are_errors(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ImprintError, match="beyond the model's 2048 positions"):
        grpo.fit(job(root, tmp_path, completion_tokens=2040))

    def twice(request: Any, row: Any, settings: Any, inputs: Any) -> Any:
        yield [request]
        yield [request]

    monkeypatch.setattr(plain, "turns", twice)
    with pytest.raises(ImprintError, match="arm 'tuned': context 'plain' makes more than one request; write another"):
        grpo.fit(job(root, tmp_path))


def test_settings_are_read_and_checked() -> None:
    settings = grpo.Settings(data="d", reward={"math": {}, "format": "plan"})
    assert [term.name for term in settings.reward] == ["math", "format"]
    needs = grpo.inputs(settings)
    assert needs.datasets == ("d",)
    assert needs.plugins == (("scores", "math"), ("scores", "format"), ("engines", "transformers"))
    apart = settings.model_copy(update={"sampler": "vllm"})
    assert grpo.shared(settings) and grpo.shared(apart) is None
    assert grpo.holds(apart, 1) == grpo.holds(settings, 1)._replace(apart=True)
    assert plugins.settings("methods", "grpo", settings.model_dump(mode="json")) == settings
    for wrong, said in (
        ({"reward": []}, "at least 1"),
        ({"reward": ["nothing"]}, "no scores plug-in named 'nothing'"),
        ({"reward": ["ifeval.none"]}, "has no metric 'none'"),
        ({"reward": ["options"]}, "scores options"),
        ({"reward": ["judged_behaviours"]}, "asks a judge, which no reward can wait for"),
        ({"reward": ["math", "math"]}, "may stand once"),
        ({"reward": ["format"]}, "tag"),
        ({"reward": "math", "micro_batch_size": 5}, "does not divide the 32 completions an update"),
        ({"reward": "math", "updates_per_rollout": 5}, "5 does not divide the 32 completions a step"),
        ({"reward": "math", "updates_per_rollout": 4, "micro_batch_size": 16}, "the 8 completions an update"),
        ({"reward": "math", "loss": "ppo"}, "'dapo', 'grpo', 'bnpo' or 'dr_grpo'"),
        ({"reward": "math", "sampler": "echo"}, "'echo', which is no engine that draws for a fit; write one of: tr"),
        ({"reward": "math", "group_size": 1}, "greater than or equal to 2"),
    ):
        with pytest.raises((ValidationError, ValueError), match=said):
            grpo.Settings(data="d", **wrong)
    assert all(field.description for field in grpo.Settings.model_fields.values())


def test_no_verifier_outlives_the_tests() -> None:
    bounded.close()
    assert not bounded._workers
