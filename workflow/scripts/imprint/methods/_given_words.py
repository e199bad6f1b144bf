"""Whether a folder of given weights speaks as its root model does: the same tokens under the same ids, and the same
chat template. A folder without these files speaks as its root model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, read_object

TOKENIZER, CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
OTHER_FORMS = ("tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")
"""Files of tokenizers that have no tokenizer.json."""


def read(file: Path) -> dict[str, Any]:
    """The JSON object in a file of the user's. Raises ImprintError if there is none."""
    try:
        return read_object(file)
    except ImprintError as error:
        raise ImprintError(f"{file} holds no JSON object; mend it, or save the folder again") from error


def check_tokens(folder: Path, root: Path) -> None:
    """Raise ImprintError where a folder's tokenizer has other tokens than that of the root model."""
    if (folder / TOKENIZER).is_file() and (root / TOKENIZER).is_file():
        differences = _differences(_vocabulary(folder), _vocabulary(root))
    else:
        both = [name for name in OTHER_FORMS if (folder / name).is_file() and (root / name).is_file()]
        differences = [f"another {name}" for name in both if file_sha256(folder / name) != file_sha256(root / name)]
        if not both and (folder / TOKENIZER).is_file():
            print(f"{folder} has {TOKENIZER} and {root} has none, so their tokens were not compared", flush=True)
    if differences:
        raise ImprintError(
            f"{folder} has another tokenizer than its root model {root}: {'; '.join(differences)}. Write the model "
            "that it was trained on as the root of the arm. If it was not trained on these tokens, take the "
            "tokenizer's files out of the folder"
        )


def _vocabulary(folder: Path) -> dict[str, int]:
    """Token -> id, as tokenizer.json and tokenizer_config.json say."""
    content = read(folder / TOKENIZER)
    config = read(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    try:
        vocabulary = content["model"]["vocab"]
        tokens = vocabulary if isinstance(vocabulary, dict) else {piece: i for i, (piece, *_) in enumerate(vocabulary)}
        added = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
        decoder = config.get("added_tokens_decoder", {})
        return {**tokens, **added, **{token["content"]: int(number) for number, token in decoder.items()}}
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ImprintError(f"{folder / TOKENIZER} is no tokenizer that can be read; save the folder again") from error


def _differences(theirs: dict[str, int], ours: dict[str, int]) -> list[str]:
    """How one vocabulary differs from another, in words; empty where it does not."""
    kinds = {
        "more": [token for token in theirs if token not in ours],
        "fewer": [token for token in ours if token not in theirs],
        "under other ids": [token for token in theirs if token in ours and theirs[token] != ours[token]],
    }
    return [f"{len(tokens)} tokens {kind} ({_first(tokens)})" for kind, tokens in kinds.items() if tokens]


def _first(tokens: list[str]) -> str:
    return ", ".join(f"{token!r:.40}" for token in tokens[:3])


def check_template(folder: Path, expected: str) -> None:
    """Raise ImprintError where a folder has a chat template whose sha256 is not the expected one: all arms of a model
    are asked in one template."""
    if (folder / TEMPLATE).is_file():
        template: Any = (folder / TEMPLATE).read_text(encoding="utf-8")
    else:
        template = read(folder / CONFIG).get("chat_template") if (folder / CONFIG).is_file() else None
    if template is not None and hashlib.sha256(str(template).encode()).hexdigest() != expected:
        raise ImprintError(
            f"{folder} has another chat template than its root model, so it was trained on other prompts than it would "
            f"see; write `chat_template: FILE` at the model, with the template of {folder}. If the two say the same, "
            "take the template out of the folder"
        )
