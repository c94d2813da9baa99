"""The cluster itself is one: a job runs on several nodes at once, each with a name, an address and GPUs of its own."""

from pathlib import Path

from tests.slurm.cluster import Cluster


def submit(cluster: Cluster, folder: Path, body: str, *options: str) -> str:
    """Send a job of two nodes; returns its number."""
    script = folder / "job.sh"
    script.write_text(f"#!/bin/bash\n{body}\n")
    out = f"--output={folder}/out"
    return cluster.run(
        "sbatch", "--parsable", "--nodes=2", "--open-mode=append", out, *options, str(script)
    )


def test_a_job_runs_on_nodes_with_names_and_addresses_of_their_own(
    four_nodes: Cluster, tmp_path: Path
) -> None:
    body = "srun bash -c 'echo $SLURM_PROCID $(hostname) $(hostname -I)$CUDA_VISIBLE_DEVICES'"
    job = submit(four_nodes, tmp_path, body, "--gpus-per-node=2")
    assert four_nodes.wait_for_job(job, 60) == "COMPLETED"
    lines = [line.split() for line in sorted((tmp_path / "out").read_text().splitlines())]
    assert [line[0] for line in lines] == ["0", "1"]
    assert [line[3] for line in lines] == ["0,1", "0,1"]
    assert len({line[1] for line in lines}) == len({line[2] for line in lines}) == 2
