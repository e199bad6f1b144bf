"""GSM8K (arXiv 2110.14168): word problems, lines of {"question", "answer"} whose answer ends in "#### 18"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.datasets.jsonl import lines
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict

CALCULATOR = re.compile(r"<<[^<>]*>>")  # "<<2*9=18>>" drove a calculator in the paper; it is no part of the text


class Settings(Strict):
    """Nothing to set."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """The question as it is; reference {"answer": "18"}; fields {"solution": the answer without calculator marks}."""
    for _, path in sorted(paths.items()):
        for where, row in lines(path):
            question, answer = row.get("question"), row.get("answer")
            if not isinstance(question, str) or not isinstance(answer, str) or not question.strip():
                raise ImprintError(f"{where}: found the keys {sorted(row)}; write texts for `question` and `answer`")
            _, mark, final = answer.rpartition("####")
            final = final.strip().replace(",", "")
            if not mark or not re.fullmatch(r"-?\d+(\.\d+)?", final):
                raise ImprintError(f'{where}, answer: found {answer[-60:]!r}; end it with "#### " and a number')
            yield {
                "messages": [{"role": "user", "content": question}],
                "reference": {"answer": final},
                "fields": {"solution": CALCULATOR.sub("", answer)},
                "strata": {},
            }
