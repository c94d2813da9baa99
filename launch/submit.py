"""Write a job script into its run folder, and send it with sbatch.

The script's last line holds its checksum: only a script that is unchanged since it was written is ever replaced. Files
that were made for a job that SLURM refuses are removed.
"""

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from configs.errors import RecordError, RunFolderError, UserError
from configs.files import read_text
from configs.run_paths import RunPaths

_MARK = "# Written by python -m launch, which replaces this file while it is unchanged: "


def store(folder: Path, name: str, script: str) -> Path:
    """Write a script into a run folder, and make the folder of the job's logs, without which SLURM drops them.

    Raises:
        RunFolderError: the script cannot be written, or another file has its name.
    """
    return _Created().store(folder, name, script)


def submit(folders: Sequence[Path], name: str, script: str, links: int) -> tuple[Path, list[str]]:
    """Write a script into each folder, and send the first one `links` times; each job waits for the one before.

    Returns:
        The path of the script that was sent, and the job numbers.

    Raises:
        UserError: SLURM is not here, or refuses the job; the files made for it are removed.
    """
    created, jobs = _Created(), list[str]()
    try:
        path = [created.store(folder, name, script) for folder in dict.fromkeys(folders)][0]
        _sbatch(["--test-only", str(path)])
        for _ in range(links):
            after = [f"--dependency=afterany:{jobs[-1]}"] if jobs else []
            answer = _sbatch(["--parsable", *after, str(path)])
            jobs.append(answer.strip().partition(";")[0])
    except UserError:
        if not jobs:
            created.remove()
        raise
    return path, jobs


class _Created:
    """The files and folders that this command has created, so that they can be removed again."""

    def __init__(self) -> None:
        self._files: list[Path] = []
        self._folders: list[Path] = []

    def store(self, folder: Path, name: str, script: str) -> Path:
        path = folder / name
        is_new = not os.path.lexists(path)
        if not is_new and not _is_ours(path):
            raise RunFolderError(
                f"{path} was not written by this command, or was changed since: it is not replaced. "
                f"Move it away: mv {path} {path}.mine"
            )
        try:
            self._make(RunPaths(folder).slurm)
            _write(path, f"{script}{_MARK}{_digest(script)}\n")
        except OSError as error:
            raise RunFolderError(
                f"The script {path} cannot be written: {error.strerror}. Choose another run folder with run.dir=PATH."
            ) from error
        if is_new:
            self._files.append(path)
        return path

    def remove(self) -> None:
        """Remove the files that were created, and the folders that are empty; what cannot be removed stays."""
        for path in self._files:
            with contextlib.suppress(OSError):
                path.unlink()
        for path in reversed(self._folders):
            with contextlib.suppress(OSError):  # the folder has other files
                path.rmdir()

    def _make(self, folder: Path) -> None:
        for path in reversed((folder, *folder.parents)):
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                self._folders.append(path)
        if not folder.is_dir():
            folder.mkdir()  # raises an error that names what is in the way


def _write(path: Path, text: str) -> None:
    """Write a file atomically. Only its owner can read it: a script may hold private settings."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    try:
        script, found, digest = read_text(path).rpartition(_MARK)
    except (RecordError, OSError):
        return False
    return bool(found) and digest.strip() == _digest(script)


def _digest(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()[:16]


def _sbatch(words: list[str]) -> str:
    try:
        done = subprocess.run(["sbatch", *words], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            "sbatch is not on this machine. Run this on a login node of the cluster; without --submit the script is only "
            "written, so that you can copy it there."
        ) from None
    if done.returncode == 0:
        return done.stdout
    reason = " ".join(
        line.partition("error: ")[2] or line for line in done.stderr.strip().splitlines()
    )
    raise UserError(f"SLURM refuses {words[-1]}: {reason}. {_advice(reason)}")


def _advice(reason: str) -> str:
    """What to type for the most frequent error messages of sbatch."""
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
