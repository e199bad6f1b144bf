"""What a file of code says: a hash of its parsed code, and what it imports of the package.

Layout, comments, docstrings and imports for type checking say nothing. Parsing the package takes a second, and each job
needs what a part of it says, so it is kept in a file by the sha256 of each file's bytes."""

from __future__ import annotations

import ast
import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from imprint.runtime.identity import file_sha256, fingerprint, write_json

KEPT = Path(".snakemake/imprint/parsed.json")


class Parsed(NamedTuple):
    """`sha256`: the first 12 of the 64 hex digits of that of the parsed code. `imports`: dotted names of modules, or of
    what stands in them."""

    sha256: str
    imports: list[str]


_read: dict[str, Parsed] = {}  # what this process has read, by the sha256 of the file's bytes


def read(file: Path) -> Parsed:
    """What a file says. A file that is not Python is hashed byte by byte, and imports nothing."""
    content = file_sha256(file)
    if content not in _read:
        _read[content] = Parsed(*kept) if (kept := _kept().get(content)) else _parse(file, content)
    return _read[content]


def save() -> None:
    """Keep what this process has read, for those after it."""
    write_json(KEPT, {"by": _this(), "files": _read})


@cache
def _kept() -> dict[str, Any]:
    """sha256 of a file's bytes -> what it says; empty where nothing is kept, or another version of this module kept
    it."""
    with suppress(Exception):  # it can be read anew
        kept = json.loads(KEPT.read_text(encoding="utf-8"))
        if kept["by"] == _this():
            return dict(kept["files"])
    return {}


@cache
def _this() -> str:
    return file_sha256(Path(__file__))


def _parse(file: Path, content: str) -> Parsed:
    try:
        tree = running(ast.parse(file.read_bytes()))
        return Parsed(of_tree(tree), list(_imports(tree)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply
        return Parsed(content[:12], [])


def of_tree(tree: ast.Module) -> str:
    """The hash of a syntax tree: 12 hex digits."""
    return fingerprint(_plain(tree))[:12]


def _imports(tree: ast.Module) -> dict[str, None]:
    """Dotted names that a module imports from the package, wherever it does so."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules = [(node.module or "", node.names) for node in nodes if (node.module or "").split(".")[0] == "imprint"]
    return dict.fromkeys(name for module, parts in modules for name in (module, *(f"{module}.{p.name}" for p in parts)))


def running(tree: ast.Module) -> ast.Module:
    """Remove from a syntax tree what never runs (docstrings, and blocks under `if TYPE_CHECKING`), in place; gives the
    tree."""
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.If():
                node.body = [part for part in node.body if not _never_runs(part)]
    return tree


def _never_runs(node: ast.stmt) -> bool:
    match node:
        case ast.Expr(ast.Constant(str())) | ast.If(ast.Name("TYPE_CHECKING"), orelse=[]):
            return True
    return False


def _plain(node: Any) -> Any:
    """A syntax tree as plain data. Empty fields are left out, so that a field that a later Python adds changes no
    hash."""
    if isinstance(node, ast.AST):
        fields = {
            name: _plain(value) for name, value in ast.iter_fields(node) if name != "ctx" and value not in (None, [])
        }
        return [type(node).__name__, fields]
    if isinstance(node, list):
        return [_plain(part) for part in node]
    # JSON has no bytes, complex numbers or `...`, and True == 1: so a constant is its type and its repr, unless a text.
    return node if isinstance(node, str) else [type(node).__name__, repr(node)]
