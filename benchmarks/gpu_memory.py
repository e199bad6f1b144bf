"""The memory that `imprint.runtime.gpu_memory` reckons for fits of a model, against the torch tensors of these fits.

    python benchmarks/gpu_memory.py MANIFEST [DTYPE]     (resources/models/smollm2-.../manifest.json; float32, bfloat16)

Each fit takes two steps on one CPU thread, on rows of full length, so that the optimiser's moments are there in the
second. What must be there in any case may not exceed the measured peak; what is reckoned to be enough may not be below
it, and not above LIMIT times it.

The last printed line is one JSON object with the figures in bytes, the limit and `holds`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "workflow/scripts"), str(ROOT / "tests")]

from imprint.runtime import frame  # noqa: E402

LIMIT = 1.5
TOKENS = 128
COMPLETION = 48
GRPO = {"reward": "ifeval.instruction_strict", "steps": 2, "prompts_per_step": 1, "group_size": 4}
FITS: list[tuple[str, dict[str, Any]]] = [
    ("sft", {"batch_size": 1, "max_length": TOKENS}),
    ("sft", {"batch_size": 1, "max_length": TOKENS, "lora": {"rank": 16}}),
    ("sft", {"batch_size": 1, "max_length": TOKENS, "gradient_checkpointing": True}),
    ("grpo", {**GRPO, "completion_tokens": COMPLETION}),
]


def measured(method: str, manifest: Path, dtype: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One fit: what was reckoned for it, and the peak of its tensors."""
    import fitting
    from imprint.datasets import ifeval_format
    from imprint.models import model_files
    from imprint.runtime import gpu_memory, model_sizes, plugins
    from live_tensors import live

    if method == "grpo":
        rows = list(ifeval_format.rows(ifeval_format.Settings(n=2, instructions="train", per_prompt=3), {}))
        tokenizer = model_files.load_tokenizer(manifest.parent)
        texts = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows]
        gpu_memory.PROMPT = 8 + max(len(tokenizer(text)["input_ids"]) for text in texts)
    else:
        said = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "one two three " * TOKENS}]
        rows = [{"messages": said, "fields": {"number": str(i)}, "strata": {}} for i in range(2)]
    plug = plugins.Plug(name=method, settings={"data": "d", **settings})
    need = gpu_memory.fit(model_sizes.model(manifest.parent), plug, dtype)
    assert need is not None
    with tempfile.TemporaryDirectory() as folder:
        job = fitting.job(method, [manifest], Path(folder), datasets={"d": fitting.named(rows)}, data="d", **settings)
        with live() as tensors:
            plugins.load("methods", method).fit(replace(job, dtype=dtype))
    terms = {term.name: term.size for term in need.terms if term.size}
    return {"method": method, **settings, "least": need.least, "peak": tensors.peak, "most": need.most, "terms": terms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("dtype", nargs="?", default="float32")
    options = parser.parse_args()
    frame.prepare(1)
    figures = []
    for method, settings in FITS:
        figures.append(measured(method, options.manifest, options.dtype, settings))
        print(json.dumps(figures[-1]), flush=True)
    holds = all(each["least"] <= each["peak"] <= each["most"] <= LIMIT * each["peak"] for each in figures)
    print(json.dumps({"dtype": options.dtype, "fits": figures, "limit": LIMIT, "holds": holds}))


if __name__ == "__main__":
    main()
