"""The node check as the job script starts it: ranks of two nodes that meet, and sum over the network between them."""

import subprocess
from pathlib import Path

from tests.slurm.cluster import Cluster
from tests.slurm.jobs import environment

CHECK = """
export MASTER_ADDR=$(scontrol show hostnames | head -n 1) MASTER_PORT=12345
srun --ntasks=4 --ntasks-per-node=2 --kill-on-bad-exit=0 python -m launch preflight device=cpu \
  cluster.nodes=2 cluster.gpus_per_node=2 data.paths=corpus.txt optim.global_batch_size=96
"""


def test_two_nodes_check_each_other_under_srun(four_nodes: Cluster, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("text")
    script = tmp_path / "check.sh"
    script.write_text(f"#!/bin/bash\n{CHECK}")
    sent = subprocess.run(
        ["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=2", "--output=out", str(script)],
        cwd=tmp_path,
        env=environment(four_nodes),
        capture_output=True,
        text=True,
        check=True,
    )
    four_nodes.wait_for_job(sent.stdout.strip(), 180)
    out = (tmp_path / "out").read_text()
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("node")}
    names = [name for name in rows if name != "node"]
    assert len(names) == 2 and set(names) < set(four_nodes.nodes), out
    # What a busy machine makes of the speeds is not looked at; but there must be some, within nodes and between.
    assert all(float(speed.replace(",", "")) > 0 for name in names for speed in rows[name][1:6]), (
        out
    )
    assert "failed" not in out and "did not answer" not in out, out
