import json
from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    import torch

    from imprint import analyses

    torch.set_num_threads(snakemake.threads)
    analyses.run(json.loads(snakemake.params.spec), Path(snakemake.output[0]))
