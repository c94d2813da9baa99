"""Keeping a job script in its run folder, and handing it to sbatch."""

import subprocess
from pathlib import Path

from configs.errors import RunFolderError, UserError


def store(folder: Path, name: str, script: str) -> Path:
    """Write a script into a run folder, and make the folder for the job's logs, without which SLURM drops them.

    Raises:
        RunFolderError: it cannot be written.
    """
    path = folder / name
    try:
        (folder / "slurm").mkdir(parents=True, exist_ok=True)
        path.write_text(script, encoding="utf-8")
    except OSError as error:
        raise RunFolderError(
            f"The script {path} cannot be written: {error.strerror}. Choose another run folder with run.dir=PATH."
        ) from error
    return path


def submit(path: Path, links: int) -> list[str]:
    """Send a script `links` times, each job waiting for the end of the one before.

    Returns:
        The job numbers.

    Raises:
        UserError: SLURM is not here, or refuses the job.
    """
    _sbatch(["--test-only", str(path)])
    jobs: list[str] = []
    for _ in range(links):
        after = [f"--dependency=afterany:{jobs[-1]}"] if jobs else []
        answer = _sbatch(["--parsable", *after, str(path)])
        jobs.append(answer.strip().partition(";")[0])
    return jobs


def _sbatch(words: list[str]) -> str:
    try:
        done = subprocess.run(["sbatch", *words], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            "sbatch is not on this machine. Run this on a login node of the cluster, or copy the script there."
        ) from None
    if done.returncode == 0:
        return done.stdout
    reason = " ".join(
        line.partition("error: ")[2] or line for line in done.stderr.strip().splitlines()
    )
    raise UserError(f"SLURM refuses {words[-1]}: {reason}. {_advice(reason)}")


def _advice(reason: str) -> str:
    """What to type for the reasons that sbatch gives most often."""
    lowered = reason.lower()
    for word, text in (
        (
            "account",
            "Name yours with cluster.account=NAME: sacctmgr show associations user=$USER lists them.",
        ),
        ("qos", "Choose one with cluster.qos=NAME: sacctmgr show qos lists them."),
        ("partition", "Choose one with cluster.partition=NAME: sinfo lists them."),
        ("time limit", "Ask for less with cluster.time=HH:MM:SS: sinfo shows the limits."),
        (
            "node",
            "Ask for less with cluster.nodes=N or cluster.gpus_per_node=N: sinfo shows what is there.",
        ),
    ):
        if word in lowered:
            return text
    return (
        "Change the configuration, or add an option with \"cluster.sbatch_options=['--OPTION']\"."
    )
