"""What each kind of plug-in declares reaches the rule and the job; what it names and is not there, and what is made
from itself, is told with its place in the config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import one_fit
from imprint.config import graph, loading
from imprint.config.schema import Config
from imprint.dag import leakage
from imprint.dag.experiment import Experiment, Run
from imprint.dag.jobs import all_jobs
from imprint.dag.jobs.fits import Fitted
from imprint.dag.report_facts import facts_of, of_eval
from imprint.policies import generation, policy
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import write_json
from imprint.runtime.plugins import Inputs
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named

Add = Callable[[str, str, str], None]
READS = """
from __future__ import annotations

from imprint.runtime.plugins import Inputs, Strict


class Settings(Strict):
    datasets: list[str] = []
    arms: list[str] = []
    runs: list[list[str]] = []
    plugins: list[list[str]] = []


def inputs(settings):
    pairs = [tuple(tuple(pair) for pair in listed) for listed in (settings.runs, settings.plugins)]
    return Inputs(tuple(settings.datasets), tuple(settings.arms), *pairs)


"""
"""The beginning of a plug-in that reads what its settings name."""
ENDS = {
    "synthesis": "def rows(settings, inputs, ask):\n    raise AssertionError\n",
    "contexts": "def turns(request, row, settings, inputs):\n    return (yield [request])\n",
    "decoders": "def turns(request, row, settings, inputs):\n    return (yield [request])\n",
    "environments": "def turns(row, settings, inputs):\n    raise AssertionError\n",
    "hooks": "def install(model, settings, inputs, passing):\n    raise AssertionError\n",
    "methods": "def fit(job):\n    raise AssertionError\n",
    "analyses": "def rows(job):\n    raise AssertionError\n",
}


@pytest.fixture
def reading(plug_in: Add) -> None:
    """A plug-in `reads` of each kind that declares inputs."""
    for kind, end in ENDS.items():
        plug_in(kind, "reads", READS + end)


def raw(**changes: Any) -> dict[str, Any]:
    """A config of two seeds: an untrained arm and a trained one, and one whose parts the tests set."""
    base = one_fit() | {"seeds": [3, 4]}
    base["datasets"]["more"] = {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"}
    base["evals"]["words"] = {"dataset": "more", "score": "ifeval"}
    base["arms"]["reader"] = {"parent": "base", "evals": ["words"]}
    return loading.merge(base, changes)


ALL = {"datasets": ["dialogues"], "arms": ["tuned"], "runs": [["tuned", "general"], ["base", "general"]]}
PLUGINS = [["scores", "numeric"]]


def places(what: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Where in the config something can be read -> what to lay on it."""
    reads = {"reads": what}
    return {
        "datasets.made": {"datasets": {"made": {"synth": "reads", **what}}},
        "arms.reader.fit": {"arms": {"reader": {"fit": {"method": "reads", **what}}}},
        "arms.reader.fit in a context": {
            "arms": {"reader": {"fit": {"method": "sft", "data": "dialogues", "context": [reads, "plain"]}}}
        },
        "arms.reader.apply": {"arms": {"reader": {"apply": {"context": ["plain", reads]}}}},
        "arms.reader.apply in a hook": {"arms": {"reader": {"apply": {"hooks": reads}}}},
        "arms.reader.apply in a decoder": {"arms": {"reader": {"apply": {"decode": reads}}}},
        "evals.words.environment": {"evals": {"words": {"environment": reads}}},
        "analyses.odd": {"analyses": {"odd": reads}},
    }


JOBS = {
    "datasets.made": ("rearrange", {"dataset": "made"}),
    "arms.reader.fit": ("train", {"arm": "reader", "seed": 4}),
    "arms.reader.fit in a context": ("train", {"arm": "reader", "seed": 4}),
    "arms.reader.apply": ("generate", {"arm": "reader", "seed": 4, "eval": "words"}),
    "arms.reader.apply in a hook": ("generate", {"arm": "reader", "seed": 4, "eval": "words"}),
    "arms.reader.apply in a decoder": ("generate", {"arm": "reader", "seed": 4, "eval": "words"}),
    "evals.words.environment": ("generate", {"arm": "base", "seed": 4, "eval": "words"}),
    "analyses.odd": ("analyze", {"analysis": "odd"}),
}
MODEL = "resources/models/m1-"


def job_of(config: Config, where: str) -> tuple[Any, Any]:
    """The jobs of the stage that reads there, and the one that the test looks at."""
    name, wanted = JOBS[where]
    jobs = all_jobs(Experiment(config))[name]
    (job,) = [job for job in jobs.jobs() if job._asdict() == wanted]
    return jobs, job


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("where", JOBS)
def test_what_a_plug_in_declares_reaches_the_rule_and_the_job(where: str) -> None:
    config = loading.parse(raw(**places(ALL | {"plugins": PLUGINS})[where]))
    jobs, job = job_of(config, where)
    inputs, spec = jobs.inputs(job), jobs.spec(job)
    analysis = where == "analyses.odd"
    seeds = [3, 4] if analysis else [3] if where == "datasets.made" else [4]
    fitted = [f"results/arms/tuned/seed{seed}/manifest.json" for seed in seeds]
    assert {"results/datasets/dialogues.parquet"} == set(inputs["datasets"])
    assert [path for path in inputs["arms"] if not path.startswith(MODEL)] == fitted
    assert len(inputs["arms"]) == len(fitted) + 1, "the root's manifest too"
    runs = [path.removeprefix("results/generations/") for path in inputs["runs"]]
    assert runs == [
        path for seed in seeds for path in (f"tuned/seed{seed}/general.parquet", "base/seed0/general.parquet")
    ]
    named = dict(spec.inputs) if analysis else {seeds[0]: spec.inputs}
    assert list(named) == seeds
    for seed, told in named.items():
        assert (told.datasets, told.runs) == (["dialogues"], [("tuned", "general"), ("base", "general")])
        assert list(told.arms) == ["tuned"]
        assert told.arms["tuned"][1:] == [f"results/arms/tuned/seed{seed}/manifest.json"]
    assert ("scores", "numeric") in jobs.plugins(job)
    assert ("artifacts", "full") in jobs.plugins(job), "what puts the weights of an arm together that is read"
    assert set(map(str, inputs["datasets"])) <= set(all_jobs(Experiment(config))["prepare"].files())


@pytest.mark.usefixtures("reading")
def test_of_several_plug_ins_nothing_is_dropped() -> None:
    """An arm with contexts, a hook and a decoder, on an eval with an environment, all of which read."""
    context = [{"reads": {"datasets": ["dialogues"]}}, {"reads": {"runs": [["base", "general"]]}}]
    changes = {
        "arms": {
            "reader": {
                "apply": {
                    "context": context,
                    "hooks": [{"reads": {"arms": ["tuned"]}}],
                    "decode": {"reads": {"datasets": ["general"]}},
                }
            }
        },
        "evals": {"words": {"environment": {"reads": {"runs": [["tuned", "general"]]}}}},
    }
    config = loading.parse(raw(**changes))
    jobs, job = job_of(config, "arms.reader.apply")
    named = jobs.spec(job).inputs
    assert named.datasets == ["dialogues", "general"] and list(named.arms) == ["tuned"]
    assert named.runs == [("base", "general"), ("tuned", "general")]
    assert {kind for kind, name in jobs.plugins(job) if name == "reads"} == {
        "contexts", "hooks", "decoders", "environments",
    }  # fmt: skip
    score = all_jobs(Experiment(config))["score"]
    assert [plug.settings["datasets"] for plug in score.spec(job).contexts] == [["dialogues"], []]
    other = Run("base", 4, "words")
    assert jobs.spec(other).inputs.datasets == [], "an arm that applies nothing reads what the environment does"
    assert jobs.spec(other).inputs.runs == [("tuned", "general")]


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("where", JOBS)
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"datasets": ["dialoges"]}, "no dataset named 'dialoges'; did you mean 'dialogues'?"),
        ({"arms": ["tund"]}, "no arm named 'tund'; did you mean 'tuned'?"),
        ({"runs": [["bse", "general"]]}, "no arm named 'bse'; did you mean 'base'?"),
        ({"runs": [["tuned", "genral"]]}, "no eval of arm 'tuned' named 'genral'; did you mean 'general'?"),
        ({"runs": [["reader", "general"]]}, "no eval of arm 'reader' named 'general'; write one of: words"),
    ],
)
def test_a_name_that_is_missing_is_told_with_its_place(where: str, what: dict[str, Any], said: str) -> None:
    with pytest.raises(ImprintError) as caught:
        loading.parse(raw(**places(what)[where]))
    assert f"{where.split(' ')[0]}: {said}" in str(caught.value).splitlines()[0]


CIRCLES = {
    "two arms through runs": (
        {
            "arms": {
                "tuned": {"apply": {"context": {"reads": {"runs": [["reader", "words"]]}}}},
                "reader": {"fit": {"method": "reads", "runs": [["tuned", "general"]]}},
            }
        },
        "arms.reader.fit: made from itself: reader -> tuned on general -> reader on words -> reader",
    ),
    "contexts that read each other's runs": (
        {
            "arms": {
                "tuned": {"apply": {"context": {"reads": {"runs": [["reader", "words"]]}}}},
                "reader": {"apply": {"context": {"reads": {"runs": [["tuned", "general"]]}}}},
            }
        },
        "arms.tuned.apply: made from itself: tuned on general -> reader on words -> tuned on general",
    ),
    "an arm that reads its own runs": (
        {"arms": {"reader": {"apply": {"context": {"reads": {"runs": [["reader", "words"]]}}}}}},
        "arms.reader.apply: made from itself: reader on words -> reader on words",
    ),
    "a fit that reads its own weights": (
        {"arms": {"reader": {"fit": {"method": "reads", "arms": ["reader"]}}}},
        "arms.reader.fit: made from itself: reader -> reader",
    ),
    "a dataset of the runs on it": (
        {
            "datasets": {"made": {"synth": "reads", "runs": [["reader", "asked"]]}},
            "evals": {"asked": {"dataset": "made", "score": "numeric"}},
            "arms": {"reader": {"evals": ["asked"]}},
        },
        "datasets.made: made from itself: made -> reader on asked -> made",
    ),
    "a fit on the runs of what it makes": (
        {
            "datasets": {"made": {"synth": "reads", "runs": [["reader", "words"]]}},
            "arms": {"reader": {"fit": {"method": "sft", "data": "made"}}},
        },
        "arms.reader.fit: made from itself: reader -> made -> reader on words -> reader",
    ),
    "an environment that reads the runs in it": (
        {"evals": {"words": {"environment": {"reads": {"runs": [["base", "words"]]}}}}},
        "evals.words.environment: made from itself: base on words -> base on words",
    ),
    "a context under which a fit trains": (
        {
            "arms": {
                "reader": {
                    "fit": {
                        "method": "sft",
                        "data": "dialogues",
                        "context": {"reads": {"runs": [["child", "words"]]}},
                    }
                },
                "child": {"parent": "reader"},
            }
        },
        "arms.reader.fit: made from itself: reader -> child on words -> child -> reader",
    ),
    "parents": (
        {"arms": {"reader": {"parent": "child"}, "child": {"parent": "reader"}}},
        "arms.reader: made from itself: reader -> child -> reader",
    ),
    "a teacher": (
        {
            "datasets": {"roles": {"synth": "role_prompts", "from": "dialogues", "teacher": "reader"}},
            "arms": {"reader": {"fit": {"method": "sft", "data": "roles"}}},
        },
        "arms.reader.fit: made from itself: reader -> roles -> reader",
    ),
}


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize(("changes", "said"), CIRCLES.values(), ids=CIRCLES)
def test_what_is_made_from_itself_is_told(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ImprintError) as caught:
        loading.parse(raw(**changes))
    assert str(caught.value) == f"{said}; break the cycle"


STRAIGHT: dict[str, dict[str, Any]] = {
    "a context reads runs of an arm that reads the weights": {
        "arms": {
            "reader": {"apply": {"context": {"reads": {"runs": [["other", "words"]]}}}},
            "other": {"parent": "base", "fit": {"method": "reads", "arms": ["reader"]}},
        }
    },
    "a fit reads runs of an arm whose context reads the parent's": {
        "arms": {
            "other": {"parent": "base", "apply": {"context": {"reads": {"runs": [["base", "general"]]}}}},
            "reader": {"parent": "base", "fit": {"method": "reads", "runs": [["other", "general"]]}},
        }
    },
    "a child learns from its parent's runs": {
        "arms": {"reader": {"parent": "tuned", "fit": {"method": "reads", "runs": [["tuned", "words"]]}}}
    },
    "a dataset of runs on another eval is trained on and asked": {
        "datasets": {"made": {"synth": "reads", "runs": [["base", "general"]]}},
        "evals": {"asked": {"dataset": "made", "score": "numeric"}},
        "arms": {"reader": {"evals": ["asked"], "transductive": True, "fit": {"method": "sft", "data": "made"}}},
    },
    "an environment reads runs on another eval": {
        "evals": {"words": {"environment": {"reads": {"runs": [["base", "general"]]}}}}
    },
    "a judge is judged": {
        "evals": {"words": {"describe": ["judged_behaviours"], "judge": "reader"}},
    },
    "an analysis reads all of it": {
        "analyses": {
            "odd": {"reads": {"runs": [["reader", "words"]], "arms": ["tuned", "reader"], "datasets": ["more"]}}
        }
    },
}


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("changes", STRAIGHT.values(), ids=STRAIGHT)
def test_what_is_no_circle_is_none(changes: dict[str, Any]) -> None:
    config = loading.parse(raw(**changes))
    assert graph.cycle(config) == []
    experiment = Experiment(config)
    for jobs in all_jobs(experiment).values():
        for job in jobs.jobs():
            jobs.inputs(job)
            jobs.spec(job)


# What follows from the graph


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize(
    "where", ["arms.reader.fit", "arms.reader.fit in a context", "arms.reader.apply", "arms.reader.apply in a decoder"]
)
@pytest.mark.parametrize("what", [{"datasets": ["general"]}, {"runs": [["base", "general"]]}])
def test_leakage_sees_what_an_arm_is_made_with(where: str, what: dict[str, Any]) -> None:
    tested = {"arms": {"reader": {"evals": ["words", "general"]}}}
    config = loading.parse(raw(**loading.merge(places(what)[where], tested)))
    assert "general" in graph.sees(config, "reader")
    with pytest.raises(ImprintError, match=r"arms\.reader: trains on 'general', which shares 200 row\(s\)"):
        leakage.check(config)
    pairs = all_jobs(Experiment(config))["check_leakage"].spec(()).pairs
    assert ("reader", "general", "general") in [(pair.arm, pair.dataset, pair.eval) for pair in pairs]
    assert set(all_jobs(Experiment(config))["check_leakage"].inputs(())["datasets"]) >= {
        "results/datasets/general.parquet"
    }
    allowed = {"arms": {"reader": {"transductive": True}}}
    leakage.check(loading.parse(raw(**loading.merge(loading.merge(places(what)[where], tested), allowed))))
    # An eval that neither the arm nor an arm made from it takes cannot show what the arm has seen.
    other = loading.merge(places(what)[where], {"arms": {"reader": {"evals": ["words"]}}})
    leakage.check(loading.parse(raw(**other)))
    if "fit" in where:
        child = {"arms": {"child": {"parent": "reader", "evals": ["general"]}}}
        with pytest.raises(ImprintError, match=r"arms\.reader: trains on 'general'"):
            leakage.check(loading.parse(raw(**loading.merge(other, child))))


@pytest.mark.usefixtures("reading")
def test_only_what_is_trained_on_is_told_as_trained_on() -> None:
    """An arm that is asked with a memory of an eval's rows trains nobody on their kinds."""
    seen = {"transductive": True, "apply": {"context": {"reads": {"datasets": ["more"]}}}}
    fit = {"transductive": True, "fit": {"method": "sft", "data": "more"}}
    for arm, told in ((seen, ""), (fit, "instruction types trained on")):
        experiment = Experiment(loading.parse(raw(arms={"reader": arm})))
        assert of_eval(experiment, "words").description == told


@pytest.mark.usefixtures("reading")
def test_leakage_sees_runs_behind_a_dataset() -> None:
    changes = {
        "datasets": {"made": {"synth": "reads", "runs": [["base", "general"]]}},
        "arms": {"reader": {"fit": {"method": "sft", "data": "made"}, "evals": ["general"]}},
    }
    with pytest.raises(ImprintError, match=r"arms\.reader: trains on 'made', which shares 200 row\(s\)"):
        leakage.check(loading.parse(raw(**changes)))


MADE_WITH: dict[str, dict[str, Any]] = {
    "its parent": {"parent": "adapted"},
    "a fit on its runs": {"parent": "base", "fit": {"method": "reads", "runs": [["adapted", "words"]]}},
    "a fit on its weights": {"parent": "base", "fit": {"method": "reads", "arms": ["adapted"]}},
    "a fit on a dataset that it taught": {"parent": "base", "fit": {"method": "sft", "data": "taught"}},
    "a context that reads its runs": {
        "parent": "base",
        "apply": {"context": {"reads": {"runs": [["adapted", "words"]]}}},
    },
    "a hook that reads its artifact": {"parent": "base", "apply": {"hooks": {"reads": {"arms": ["adapted"]}}}},
    "a context that reads runs of its child": {
        "parent": "base",
        "apply": {"context": {"reads": {"runs": [["child", "words"]]}}},
    },
}


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("arm", MADE_WITH.values(), ids=MADE_WITH)
def test_the_transductive_stamp_is_on_all_that_is_made_with_one(arm: dict[str, Any]) -> None:
    changes = {
        "datasets": {"taught": {"synth": "role_prompts", "from": "dialogues", "teacher": "adapted"}},
        "arms": {
            "adapted": {"parent": "base", "transductive": True, "fit": {"method": "sft", "data": "dialogues"}},
            "child": {"parent": "adapted"},
            "marked": arm,
        },
    }
    config = loading.parse(raw(**changes))
    stamped = {spec.name for spec in facts_of(Experiment(config)).arms if spec.transductive}
    assert stamped == {"adapted", "child", "marked"}


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("seeds", [[3], [3, 4]])
def test_an_arm_runs_at_every_seed_that_it_depends_on(seeds: list[int]) -> None:
    def context(**what: Any) -> dict[str, Any]:
        return {"parent": "base", "evals": ["words"], "apply": {"context": {"reads": what}}}

    arms = {
        "of_weights": context(arms=["tuned"]),
        "of_runs": context(runs=[["tuned", "words"]]),
        "of_a_reader": context(runs=[["of_runs", "words"]]),
        "of_rows": context(datasets=["dialogues"]),
        "of_base": context(arms=["base"], runs=[["base", "words"]]),
        "of_sampled": context(runs=[["base", "drawn"]]),
    }
    drawn = {"dataset": "more", "score": "ifeval", "temperature": 1.0}
    config = loading.parse(raw(arms=arms, evals={"drawn": drawn}) | {"seeds": seeds})
    experiment = Experiment(config)
    assert {arm: experiment.seeds(arm, "words") for arm in arms} == {
        "of_weights": seeds,
        "of_runs": seeds,
        "of_a_reader": seeds,
        "of_rows": [0],
        "of_base": [0],
        "of_sampled": seeds,
    }
    generate = all_jobs(experiment)["generate"]
    for seed in seeds:
        (path,) = generate.inputs(Run("of_a_reader", seed, "words"))["runs"]
        assert path == f"results/generations/of_runs/seed{seed}/words.parquet"
    config = loading.parse(
        raw(evals={"words": {"environment": {"reads": {"runs": [["tuned", "general"]]}}}}) | {"seeds": seeds}
    )
    assert Experiment(config).seeds("base", "words") == seeds
    assert Experiment(config).seeds("base", "general") == [0]


def test_a_context_or_decoder_or_environment_that_draws_runs_at_every_seed(plug_in: Add) -> None:
    for kind in ("contexts", "decoders", "environments"):
        plug_in(kind, "draws", READS + ENDS[kind] + "\n\ndef draws(settings):\n    return True\n")
    for change in (
        {"arms": {"reader": {"apply": {"context": ["plain", "draws"]}}}},
        {"arms": {"reader": {"apply": {"decode": "draws"}}}},
        {"evals": {"words": {"environment": "draws"}}},
    ):
        experiment = Experiment(loading.parse(raw(**change)))
        assert experiment.seeds("reader", "words") == [3, 4]
        assert experiment.seeds("base", "general") == [0]


def test_a_hook_that_acts_at_run_time_changes_no_weights(plug_in: Add) -> None:
    """An artifact that does not count as weights is no part of a chain, but is read by name."""
    plug_in("methods", "steers", READS + ENDS["methods"] + "\n\ndef makes(settings):\n    return 'vector'\n")
    plug_in("artifacts", "vector", "WEIGHTS = False\n\n\ndef install(model, folder, dtype):\n    return model\n")
    plug_in("hooks", "reads", READS + ENDS["hooks"])
    arms = {
        "steering": {"parent": "tuned", "evals": [], "fit": {"method": "steers", "datasets": ["dialogues"]}},
        "reader": {"parent": "tuned", "apply": {"hooks": {"reads": {"arms": ["steering"]}}}},
        "child": {"parent": "steering", "evals": ["words"]},
    }
    experiment = Experiment(loading.parse(raw(arms=arms)))
    fit = "results/arms/{}/seed3/manifest.json".format
    for arm in ("steering", "child", "reader"):
        assert experiment.chain(arm, 3)[1:] == [fit("tuned")]
    assert experiment.artifact("steering", 3)[1:] == [fit("tuned"), fit("steering")]
    stage = all_jobs(experiment)
    asked = Run("reader", 3, "words")
    assert stage["generate"].inputs(asked)["arms"][-2:] == [fit("steering"), fit("tuned")]
    assert stage["generate"].spec(asked).inputs.arms["steering"][1:] == [fit("tuned"), fit("steering")]
    child = stage["generate"].plugins(Run("child", 3, "words"))
    assert ("artifacts", "full") in child and ("artifacts", "vector") not in child
    assert ("artifacts", "vector") in stage["generate"].plugins(asked)
    assert ("artifacts", "vector") in stage["train"].plugins(Fitted("steering", 3))


class Begun(Exception):
    """A job has named its work."""


@pytest.mark.parametrize("changed", ["its own weights", "an artifact that a hook reads", "a run that a context reads"])
def test_shards_are_kept_for_the_same_inputs_alone(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed job leaves answers in its work folder. They are another's where anything that it reads has changed."""
    names = {"its own weights": "own", "an artifact that a hook reads": "read", "a run that a context reads": "run"}
    files = {name: tmp_path / f"{name}.json" for name in names.values()}
    for path in files.values():
        write_json(path, {"kind": "full", "fingerprint": "0", "template_sha256": ""})
    dataset_rows.write(tmp_path / "rows.parquet", "rows", [{"messages": [{"role": "user", "content": "?"}]}], "0")
    spec = generation.Spec(
        arm="a1", seed=0, eval="e1", ask="generate", environment=None, samples=1, temperature=0.0, top_p=1.0,
        max_new_tokens=8, limit=None, policy=policy.Spec(engine="transformers", dtype="float32", batch_size=1),
        inputs=Named(arms={"b1": [str(files["read"])]}, runs=[("c1", "e1")]),
    )  # fmt: skip
    works: list[str] = []

    def folder(path: Path, fingerprint: str) -> None:
        works.append(fingerprint)
        raise Begun

    monkeypatch.setattr(generation.work, "folder", folder)
    for fingerprint in ("0", "1"):
        write_json(files[names[changed]], {"kind": "full", "fingerprint": fingerprint, "template_sha256": ""})
        with pytest.raises(Begun):
            generation.run(
                spec=spec, manifests=[files["own"]], dataset=tmp_path / "rows.parquet", datasets=[],
                runs=[files["run"]], out=tmp_path / "out.parquet", prompts=tmp_path / "p.parquet", code="{}", threads=1,
                device="cpu",
            )  # fmt: skip
    assert works[0] != works[1]


# Engines


MUTE = """
CAN = frozenset({can})


def start(chain, dtype, device, batch_size, ranks=1):
    raise AssertionError
"""
MODEL_OF_ITS_OWN = {"hub": "c/d", "revision": "1" * 40, "engine": "mute"}


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize(
    ("can", "changes", "said"),
    [
        (
            "('generate',)",
            {"arms": {"told": {"model": "m2", "evals": ["general"]}}},
            "arms.told: the eval 'general' cannot be asked: the engine 'mute' of model 'm2' has no loglikelihood; "
            "write an engine that has: transformers",
        ),
        (
            "('loglikelihood',)",
            {"arms": {"told": {"model": "m2", "evals": ["words"]}}},
            "arms.told: the eval 'words' cannot be asked: the engine 'mute' of model 'm2' has no generate;",
        ),
        (
            "('generate',)",
            {"arms": {"told": {"model": "m2", "evals": ["words"], "apply": {"hooks": "reads"}}}},
            "arms.told.apply.hooks: the engine 'mute' of model 'm2' has no hooks; write an engine that has: transf",
        ),
        (
            "('generate', 'loglikelihood', 'hooks')",
            {"arms": {"told": {"model": "m2", "fit": {"method": "sft", "data": "dialogues"}}}},
            "arms.told.fit: the engine 'mute' of model 'm2' has no weights; write an engine that has: transformers",
        ),
        (
            "('loglikelihood',)",
            {
                "arms": {"told": {"model": "m2", "evals": []}},
                "datasets": {"roles": {"synth": "role_prompts", "from": "dialogues", "teacher": "told"}},
            },
            "datasets.roles: the engine 'mute' of model 'm2' has no generate;",
        ),
        (
            "('loglikelihood',)",
            {
                "arms": {"told": {"model": "m2", "evals": []}},
                "evals": {"words": {"describe": ["judged_behaviours"], "judge": "told"}},
            },
            "evals.words.judge: the engine 'mute' of model 'm2' has no generate;",
        ),
    ],
)
def test_an_engine_is_not_asked_for_what_it_cannot_do(can: str, changes: dict, said: str, plug_in: Add) -> None:
    plug_in("engines", "mute", MUTE.format(can=can))
    told = loading.merge({"models": {"m2": MODEL_OF_ITS_OWN}}, changes)
    with pytest.raises(ImprintError) as caught:
        loading.parse(raw(**told))
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_each_arm_is_asked_by_the_engine_of_its_model(plug_in: Add) -> None:
    plug_in("engines", "mute", MUTE.format(can="('generate', 'loglikelihood', 'weights')"))
    arms = {
        "told": {"model": "m2"},
        "child": {"parent": "told", "fit": {"method": "sft", "data": "dialogues"}},
    }
    changes = {
        "models": {"m2": MODEL_OF_ITS_OWN},
        "arms": arms,
        "evals": {"words": {"describe": ["judged_behaviours"], "judge": "told"}},
        "datasets": {"roles": {"synth": "role_prompts", "from": "dialogues", "teacher": "child"}},
    }
    experiment = Experiment(loading.parse(raw(**changes)))
    stage = all_jobs(experiment)
    for arm, engine in {"base": "transformers", "tuned": "transformers", "told": "mute", "child": "mute"}.items():
        (run,) = [run for run in experiment.runs if run[0] == arm and run[2] == "words"][:1]
        assert stage["generate"].spec(run).policy.engine == engine
        assert {name for kind, name in stage["generate"].plugins(run) if kind == "engines"} == {engine}
        assert stage["judge"].spec(run).policy.engine == "mute", "the judge's, whoever is judged"
    (taught,) = stage["synthesize"].jobs()
    assert stage["synthesize"].spec(taught).teacher.engine == "mute"
    with_engine = experiment.model_key("m2")
    without = {key: value for key, value in MODEL_OF_ITS_OWN.items() if key != "engine"}
    other = Experiment(loading.parse(raw(models={"m2": without}, arms={"told": {"model": "m2"}})))
    assert with_engine == other.model_key("m2"), "weights are the same, whatever runs them"


def test_an_ability_that_no_engine_has_is_told_too(plug_in: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in("engines", "mute", MUTE.format(can="('generate', 'loglikelihood')"))
    plug_in("hooks", "reads", READS + ENDS["hooks"])
    from imprint.engines import transformers

    monkeypatch.setattr(transformers, "CAN", frozenset({"generate", "loglikelihood", "weights"}))
    with pytest.raises(ImprintError, match=r"has no hooks; write an engine that has: \(there is none yet\)"):
        loading.parse(raw(arms={"reader": {"apply": {"hooks": "reads"}}}))


def test_inputs_of_a_config_without_readers_are_empty() -> None:
    config = loading.parse(one_fit())
    assert [reader.where for reader in graph.readers(config) if reader.inputs != Inputs()] == ["arms.tuned.fit"]
