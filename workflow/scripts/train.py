from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.training import launch

    launch.run(
        spec=launch.Spec.model_validate_json(snakemake.params.spec),
        manifests=[Path(path) for path in snakemake.input.manifests],
        datasets=[Path(path) for path in snakemake.input.datasets],
        runs=[Path(path) for path in snakemake.input.runs],
        code=snakemake.params.code,
        out=Path(snakemake.output.manifest),
        threads=snakemake.threads,
        device=snakemake.resources.device,
        gpus=snakemake.resources.get("gpu", 0),
        node_count=snakemake.resources.get("nodes", 1),
        track=snakemake.resources.track,
        gpu_memory_gb=snakemake.resources.get("gpu_memory_gb", 0),
    )
