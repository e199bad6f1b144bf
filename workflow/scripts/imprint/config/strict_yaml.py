"""YAML for experiments: duplicate keys are errors, `1e-5` is a number, and nested aliases cannot exhaust the memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from imprint.runtime.errors import ImprintError

MAX_BYTES = 2**20
MAX_NODES = 100_000
"""The most nodes of a file, where an alias counts as often as it is used. A larger file is a mistake or an attack."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the float syntax of YAML 1.2, since YAML 1.1 reads `1e-5` as a string. It raises ImprintError at
    too many nodes, since reading millions takes minutes."""

    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _too_many("")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


def _too_many(where: str) -> ImprintError:
    counted = f"over {MAX_NODES:,} values, an alias counted as what it stands for"
    return ImprintError(f"{where or 'the file'}: holds {counted}; write a smaller experiment")


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"),
    list("-+.0123456789"),
)


def _check(node: yaml.Node, path: str, sizes: dict[int, int], above: frozenset[int]) -> int:
    """The number of nodes under `node`, with aliases expanded. `path` is the node's place in the YAML, `sizes` holds
    the counts of finished nodes by their id, `above` the ids of the enclosing nodes. Raises ImprintError for too many
    nodes, for duplicate keys, and for an alias to an enclosing node."""
    if id(node) in above:
        raise ImprintError(f"{path or 'the file'}: an alias refers to what encloses it; write the value out")
    if id(node) in sizes:
        return sizes[id(node)]
    above = above | {id(node)}
    size = 1
    if isinstance(node, yaml.MappingNode):
        lines: dict[Any, int] = {}
        for key, value in node.value:
            name = str(key.value)
            where = f"{path}.{name}" if path else name
            line = key.start_mark.line + 1
            if name in lines and name != "<<":
                raise ImprintError(f"{where}: the key is written twice, in lines {lines[name]} and {line}; keep one")
            lines[name] = line
            size += 1 + _check(value, where, sizes, above)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            size += _check(value, f"{path}[{index}]", sizes, above)
    if size > MAX_NODES:
        raise _too_many(path)
    sizes[id(node)] = size
    return size


def load(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ImprintError that names the file, and the line or the path inside it."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ImprintError(f"is larger than {MAX_BYTES // 2**20} MiB, which no config is; write the path of one")
        text = content.decode("utf-8")
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            raise ImprintError("the file is empty; copy config/config.yaml and change it")
        if not isinstance(node, yaml.MappingNode):
            raise ImprintError("the file holds no mapping; its top level must read `key: value`")
        _check(node, "", {}, frozenset())
        loader = _Loader(text)
        try:
            value: dict[str, Any] = loader.get_single_data()
        finally:
            loader.dispose()
    except ImprintError as error:
        raise ImprintError(f"{path}: {error}") from None
    except OSError as error:
        raise ImprintError(f"{path}: cannot be read ({error.strerror}); write the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise ImprintError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except RecursionError:
        raise ImprintError(f"{path}: is nested too deeply for a config; check brackets and indentation") from None
    except yaml.reader.ReaderError as error:
        finding = f"character {error.position} is {chr(error.character)!r}, which YAML does not allow"
        raise ImprintError(f"{path}: {finding}; write a text file") from None
    except yaml.YAMLError as error:
        mark, problem = (error.problem_mark, error.problem) if isinstance(error, yaml.MarkedYAMLError) else (None, None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = problem or type(error).__name__
        raise ImprintError(
            f"{path}{where}: not YAML ({problem}); check brackets and indentation, and quote texts that have : ? # or ,"
        ) from None
    except (ValueError, LookupError) as error:  # LookupError: a tag such as !!bool on a text that is not a boolean
        raise ImprintError(f"{path}: holds a value that cannot be read ({error}); quote it if it is text") from None
    return value
