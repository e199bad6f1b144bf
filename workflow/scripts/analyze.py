from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    import torch

    from imprint.analyses import _job as analysis

    torch.set_num_threads(snakemake.threads)
    analysis.run(
        spec=analysis.Spec.model_validate_json(snakemake.params.spec),
        datasets=[Path(path) for path in snakemake.input.datasets],
        runs=[Path(path) for path in snakemake.input.runs],
        out=Path(snakemake.output.analyses),
    )
