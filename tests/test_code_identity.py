"""What a job's code is: every real edit of a file that decides what it computes changes it, and nothing else does."""

from __future__ import annotations

import ast
import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT
from imprint.config import loading
from imprint.dag import code
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.runtime import origin, parsed, plugins, schemas, stages
from imprint.runtime.errors import ImprintError

MODULES = sorted(
    path for path in plugins.PACKAGE.parent.rglob("*.py") if not any(map(path.is_relative_to, code.CARRIES))
)
CONFIGS = (
    *("config/config.yaml", "tests/real.yaml", "config/effects/composition.yaml", "config/real.yaml"),
    *("config/paper/coat.yaml", "config/paper/ppe.yaml"),
)


@pytest.fixture
def of(tmp_path: Path) -> Any:
    """The hash of a text of code."""

    def hashed(text: str) -> str:
        (tmp_path / "code.py").write_text(text, encoding="utf-8")
        return parsed.read(tmp_path / "code.py").sha256

    return hashed


# What counts of a file

TEXT = '''"""What it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.runtime import work

if TYPE_CHECKING:
    import torch

LIMIT = 1.5
"""Of what."""


class Kind:
    """What kind."""

    name = "one"
    """Its name."""

    def value(self, number: int) -> float:
        """Its value."""
        if number > 3 and self.name != "two":
            "a text that nobody reads"
            return LIMIT * -number
        return {"a": [None, True, b"x"]}["a"][0]
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 1.5", "LIMIT = 1.5  # seconds"),
        ("LIMIT = 1.5", "# How long it takes.\n\n\n\nLIMIT = (1.50)"),
        ('"""What it is."""', '"""What it is, in other words."""'),
        ('"""What it is."""\n', ""),
        ('    """What kind."""\n', '    """What kind it is."""\n'),
        ('        """Its value."""\n', ""),
        ('"""Of what."""\n', ""),
        ('            "a text that nobody reads"\n', ""),
        ('"two"', "'two'"),
        ('number > 3 and self.name != "two"', '(number > 3) and (\n            self.name != "two"\n        )'),
        ("    import torch\n", "    import torch\n    from imprint.engines import Running\n"),
        ("if TYPE_CHECKING:\n    import torch\n", ""),
        ('[None, True, b"x"]', "[None, True, b'x',]"),
    ],
)
def test_what_a_reader_sees_alone_counts_for_nothing(old: str, new: str, of: Any) -> None:
    assert old in TEXT
    assert of(TEXT.replace(old, new)) == of(TEXT)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 1.5", "LIMIT = 1.25"),
        ("LIMIT = 1.5", "LIMIT = '1.5'"),
        ("LIMIT = 1.5", "LIMIT = 'float 1.5'"),
        ("True", "1"),
        ("True", "'bool True'"),
        ("None", "'None'"),
        ("None", "..."),
        ('b"x"', '"x"'),
        ("-number", "+number"),
        ("number > 3", "number >= 3"),
        (" and ", " or "),
        ("LIMIT * ", "LIMIT / "),
        ('name = "one"', 'name: str = "one"'),
        ("self.name !=", "self.label !="),
        ("number: int", "number: int = 0"),
        ("from imprint.runtime import work", "from imprint.runtime import work as folder"),
        ('"a text that nobody reads"', 'print("a text that somebody reads")'),
        ("if TYPE_CHECKING:\n    import torch\n", "if TYPE_CHECKING:\n    import torch\nelse:\n    torch = None\n"),
        ("if TYPE_CHECKING:\n    import torch\n", "import torch\n"),
        ("class Kind:", "@staticmethod\nclass Kind:"),
    ],
)
def test_what_runs_counts(old: str, new: str, of: Any) -> None:
    assert old in TEXT
    assert of(TEXT.replace(old, new)) != of(TEXT)


def test_a_text_that_is_no_python_counts_as_it_is(of: Any) -> None:
    assert of("a = (") != of("a  = (")
    assert of("a = 1\0") != of("a = 1 \0")
    deep = "a = " + "-" * 5000 + "1"
    assert of(deep) != of(deep + "\n")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(plugins.PACKAGE.parent)))
def test_the_layout_of_our_own_files_counts_for_nothing(path: Path, of: Any) -> None:
    assert of(ast.unparse(ast.parse(path.read_text(encoding="utf-8")))) == parsed.read(path).sha256


@cache
def tree_of(path: Path) -> tuple[ast.Module, int]:
    """The running part of a file, and how many places it has that can be edited."""
    tree = parsed.running(ast.parse(path.read_text(encoding="utf-8")))
    return tree, len(places(tree))


OPERATORS: dict[type[ast.AST], ast.AST] = {
    **{ast.Add: ast.Sub(), ast.Sub: ast.Add(), ast.Mult: ast.Div(), ast.Div: ast.Mult(), ast.FloorDiv: ast.Mod()},
    **{ast.Mod: ast.FloorDiv(), ast.Pow: ast.Mult(), ast.BitOr: ast.BitAnd(), ast.BitAnd: ast.BitOr()},
    **{ast.LShift: ast.RShift(), ast.RShift: ast.LShift(), ast.MatMult: ast.Mult()},
    **{ast.And: ast.Or(), ast.Or: ast.And(), ast.Not: ast.USub(), ast.USub: ast.UAdd(), ast.Invert: ast.USub()},
    **{ast.Eq: ast.NotEq(), ast.NotEq: ast.Eq(), ast.Lt: ast.LtE(), ast.LtE: ast.Lt(), ast.Gt: ast.GtE()},
    **{ast.GtE: ast.Gt(), ast.In: ast.NotIn(), ast.NotIn: ast.In(), ast.Is: ast.IsNot(), ast.IsNot: ast.Is()},
}
NAMES = {
    ast.Name: "id",
    ast.Attribute: "attr",
    ast.FunctionDef: "name",
    ast.ClassDef: "name",
    ast.arg: "arg",
    ast.keyword: "arg",
    ast.alias: "name",
}


def places(tree: ast.Module) -> list[ast.AST]:
    """Constants, operators and names."""
    nodes = [node for node in ast.walk(tree) if type(node) in NAMES or isinstance(node, ast.Constant)]
    nodes += [node for node in ast.walk(tree) if isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp | ast.Compare)]
    return [node for node in nodes if not isinstance(node, ast.keyword) or node.arg is not None]


def other(value: Any) -> Any:
    """Another constant."""
    match value:
        case bool():
            return not value
        case str():
            return f"{value}x"
        case bytes():
            return value + b"x"
        case int() | float():
            return value * 2 + 1
    return 0


def edit(node: ast.AST) -> None:
    """Change a node by one constant, operator or name."""
    if isinstance(node, ast.Constant):
        node.value = other(node.value)
    elif isinstance(node, ast.Compare):
        node.ops[0] = OPERATORS[type(node.ops[0])]  # type: ignore[assignment]
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp):
        node.op = OPERATORS.get(type(node.op), ast.Add())  # type: ignore[assignment]
    else:
        field = NAMES[type(node)]
        setattr(node, field, f"{vars(node)[field]}x")


@given(st.sampled_from(MODULES), st.floats(0, 1, exclude_max=True))
@settings(max_examples=300, deadline=None)
def test_every_edit_of_a_constant_an_operator_or_a_name_counts(path: Path, where: float) -> None:
    tree, count = tree_of(path)
    if count == 0:
        return
    edited = copy.deepcopy(tree)
    place = places(edited)[int(where * count)]
    edit(place)
    assert parsed.of_tree(edited) != parsed.of_tree(tree), ast.dump(place)


# Which files count


@cache
def jobs_of(config: str) -> dict[str, Any]:
    return all_jobs(Experiment(loading.load([ROOT / config])))


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv(origin.PLANNED, raising=False)


def files(config: str, stage: str, **job: Any) -> set[str]:
    """The files below the package that are in the code of the one kind of job that fits."""
    jobs = jobs_of(config)[stage]
    fitting = [each for each in jobs.jobs() if not job or all(getattr(each, key) == job[key] for key in job)]
    assert fitting, (config, stage, job)
    told = json.loads(jobs.code(fitting[0]))
    return {name.removeprefix("workflow/scripts/imprint/") for name in told if name.endswith(".py")}


@pytest.mark.parametrize("config", CONFIGS)
def test_what_carries_a_job_is_in_no_jobs_code(config: str) -> None:
    for name, jobs in jobs_of(config).items():
        for job in jobs.jobs():
            told = json.loads(jobs.code(job))
            assert f"workflow/scripts/{name}.py" in told
            assert not below({file.partition("imprint/")[2] for file in told}, "config/", "dag/", "runtime/")


ENGINES = {path.relative_to(plugins.PACKAGE).as_posix() for path in (plugins.PACKAGE / "engines").glob("*.py")} - {
    "engines/__init__.py"
}


def below(names: set[str], *folders: str) -> set[str]:
    return {name for name in names if name.startswith(folders)}


def test_a_supervised_fit_has_no_code_of_what_asks_or_judges() -> None:
    told = files("tests/real.yaml", "train", arm="instruct")
    assert {"methods/sft.py", "training/launch.py", "training/rank.py", "training/sft_trainer.py"} <= told
    assert {"training/fit_watch.py", "artifacts/full.py", "contexts/plain.py"} <= told
    assert not told & (ENGINES | {"policies/shards.py", "policies/generation.py", "policies/judging.py"})
    assert not below(told, "scoring/", "scores/", "composition/")


def test_a_fit_on_rewards_has_the_code_of_its_rewards_and_of_the_engine_that_draws() -> None:
    told = files("tests/real.yaml", "train", arm="ppe_plan")
    assert {"methods/grpo.py", "training/grpo_trainer.py", "training/rewards.py", "policies/policy.py"} <= told
    assert {"scores/ifeval.py", "scores/format.py", "scoring/jail.py", "contexts/prior_prompt.py"} <= told
    assert told & ENGINES == files("tests/real.yaml", "generate", arm="base") & ENGINES  # `transformers`
    assert not told & {"policies/shards.py", "policies/generation.py", "runtime/progress.py"}


def test_a_composed_fit_has_the_artifacts_of_its_vectors() -> None:
    """They are read by the kind that their manifests name, from arms that are not its ancestors."""
    raw = {
        "models": {"m1": {"hub": "a/b", "revision": "0" * 40}},
        "datasets": {"dialogues": {"bundled": "dialogues.jsonl"}},
        "arms": {
            "base": {"model": "m1"},
            "adapted": {"parent": "base", "fit": {"method": "sft", "data": "dialogues", "lora": {}}},
            "whole": {"parent": "base", "fit": {"method": "sft", "data": "dialogues"}},
            "added": {
                "parent": "base",
                "fit": {"method": "task_arithmetic", "vectors": ["adapted", "whole"], "scale": 1.0},
            },
        },
        "analyses": {"alike": {"vector_similarity": ["adapted", "whole"]}},
    }
    stage = all_jobs(Experiment(loading.parse(raw)))
    for name in ("train", "analyze"):
        told = json.loads(stage[name].code(list(stage[name].jobs())[-1]))
        kinds = {file for file in told if "/artifacts/" in file and not file.endswith("__init__.py")}
        assert kinds == {f"workflow/scripts/imprint/artifacts/{kind}.py" for kind in ("full", "lora")}
    assert "composition/vectors.py" in {file.partition("imprint/")[2] for file in told}


def test_a_dataset_is_made_with_the_code_of_its_teacher_if_it_has_one() -> None:
    taught = files("tests/real.yaml", "synthesize", dataset="roles_by_base")
    assert {"engines/transformers.py", "policies/teacher.py", "synthesis/role_prompts.py"} <= taught
    alone = files("tests/real.yaml", "rearrange", dataset="dialogues_shuffled")
    assert "synthesis/shuffled_roles.py" in alone
    assert not below(alone, "engines/", "policies/", "models/", "training/", "scoring/")


def test_a_score_has_the_code_of_the_jail() -> None:
    raw = {
        "models": {"m1": {"hub": "a/b", "revision": "0" * 40}},
        "datasets": {"code": {"catalog": "humaneval_plus"}},
        "evals": {"code": {"dataset": "code", "score": "code"}},
        "arms": {"base": {"model": "m1"}},
    }
    stage = all_jobs(Experiment(loading.parse(raw)))
    (job,) = stage["score"].jobs()
    told = {file.partition("imprint/")[2] for file in json.loads(stage["score"].code(job))}
    assert {"scores/code.py", "scoring/jail.py", "scoring/isolation.py", "scoring/bounded.py"} <= told
    assert not told & ENGINES
    (asked,) = stage["generate"].jobs()
    told = {file.partition("imprint/")[2] for file in json.loads(stage["generate"].code(asked))}
    assert "engines/transformers.py" in told and not below(told, "scores/", "scoring/")


def test_the_contract_of_a_kind_is_code_of_what_runs_its_plug_ins() -> None:
    """It holds the defaults of what a plug-in leaves out."""
    for name, jobs in jobs_of("config/config.yaml").items():
        for job in jobs.jobs():
            told = json.loads(jobs.code(job))
            for kind, plugin in jobs.plugins(job):
                assert f"workflow/scripts/imprint/{kind}/{plugin}.py" in told, name
                assert f"workflow/scripts/imprint/{kind}/__init__.py" in told, name


def test_packages_are_code_of_what_is_imported_from_them() -> None:
    """Python runs a folder's __init__.py before any module in it."""
    for path in MODULES:
        told = code.imports(path)
        for file in told:
            inside = [folder for folder in file.parents if folder.is_relative_to(plugins.PACKAGE)]
            assert {folder / "__init__.py" for folder in inside if folder != plugins.PACKAGE} <= told


def test_every_import_of_the_package_is_one_that_is_followed() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not [alias.name for alias in node.names if alias.name.split(".")[0] == "imprint"], path
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, path


def test_no_running_code_reads_docstrings() -> None:
    """They count for nothing; the manual alone is made of them, and it is no job."""
    readers = [path for path in MODULES if "__doc__" in path.read_text(encoding="utf-8")]
    assert readers == [plugins.PACKAGE / "manual.py"]


# Tables


@pytest.mark.parametrize("table", schemas.SCHEMAS)
def test_an_edited_schema_reruns_what_writes_its_table_alone(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = jobs_of("config/config.yaml")

    def codes() -> dict[tuple[str, Any], str]:
        code.code.cache_clear()
        return {(name, job): jobs.code(job) for name, jobs in stage.items() for job in jobs.jobs()}

    before = codes()
    column = pa.field("added", pa.string())
    monkeypatch.setitem(schemas.SCHEMAS, table, schemas.SCHEMAS[table].append(column))
    after = codes()
    code.code.cache_clear()
    changed = {name for (name, job), told in after.items() if told != before[name, job]}
    there = {name for name, _ in before}
    writes = {name for name, each in stages.STAGES.items() if table in (*each.outputs, *each.beside)}
    assert writes and changed == writes & there


def test_a_job_stops_where_a_schema_is_not_the_one_it_was_planned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = code.code("score", (("scores", "ifeval"),), ("scores",))
    origin.begin(planned)
    column = pa.field("added", pa.string())
    monkeypatch.setitem(schemas.SCHEMAS, "scores", schemas.SCHEMAS["scores"].append(column))
    with pytest.raises(ImprintError, match="table scores: edited after this run was planned"):
        origin.check_code()
    origin.begin(None)


def test_a_job_that_is_planned_again_takes_the_schemas_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    code.plan()
    before = code.code("score", (), ("scores",))
    column = pa.field("added", pa.string())
    monkeypatch.setitem(schemas.SCHEMAS, "scores", schemas.SCHEMAS["scores"].append(column))
    code.code.cache_clear()
    origin.planned.cache_clear()
    assert code.code("score", (), ("scores",)) == before
    monkeypatch.delenv(origin.PLANNED)
    code.code.cache_clear()
    origin.planned.cache_clear()
    assert code.code("score", (), ("scores",)) != before
    code.code.cache_clear()
