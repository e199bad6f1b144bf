"""What mergekit makes of two task vectors by the rules that are baselines here: writes `mergekit.safetensors` beside
this file, for `test_merging.py`. Needs mergekit, which nothing else does:

pip install mergekit==0.1.5 && python tests/mergekit_results.py
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch
from mergekit.merge_methods.generalized_task_arithmetic import (
    ConsensusMethod,
    GeneralizedTaskArithmeticMerge,
    SparsificationMethod,
)
from safetensors.torch import save_file

SHAPE = (16, 16)
DENSITY = {"task_arithmetic": 1.0, "ties": 0.25, "breadcrumbs": 0.125}
GAMMA = 1 / 64  # breadcrumbs: the share of the largest that is dropped


def main() -> None:
    draw = torch.Generator().manual_seed(0)
    made = {name: torch.randn(SHAPE, generator=draw) for name in ("base", "a", "b")}
    entries = [SimpleNamespace(tensor=made[name], id=name) for name in ("a", "b")]
    group = SimpleNamespace(base=SimpleNamespace(tensor=made["base"]), non_base=entries)
    rules = {
        "task_arithmetic": (None, None),
        "ties": (ConsensusMethod.sum, SparsificationMethod.magnitude),
        "breadcrumbs": (None, SparsificationMethod.magnitude_outliers),
    }
    results = {}
    for name, (consensus, sparsification) in rules.items():
        rule = SimpleNamespace(consensus_method=consensus, sparsification_method=sparsification)
        parameters = {
            "density": dict.fromkeys("ab", DENSITY[name]),
            "weight": dict.fromkeys("ab", 1.0),
            "rescale": False,
            "normalize": name == "ties",
            "int8_mask": False,
            "lambda": 1.0,
        }
        if name == "breadcrumbs":
            parameters["gamma"] = dict.fromkeys("ab", GAMMA)
        results[name] = GeneralizedTaskArithmeticMerge.merge_group(rule, group, **parameters)
    file = Path(__file__).with_name("mergekit.safetensors")
    save_file({**made, **results}, file, metadata={"mergekit": version("mergekit")})


if __name__ == "__main__":
    main()
