"""The run folder: what was run, what happened, and whether somebody is running it now.

runs/NAME holds config.yaml, overrides.txt, source.txt, status.json, metrics.jsonl, events.jsonl, log.txt, tokenizer/
and checkpoints/. It contains no absolute path of its own: it can be copied elsewhere and continued. Only rank 0 writes.
"""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.errors import RunFolderError
from train.world import host

FORMAT_VERSION = 1
_PACKAGES = ("torch", "deepspeed", "megatron-core", "numpy", "tokenizers", "hydra-core")


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "log.txt"
        self.config = path / "config.yaml"
        self.stop_file = path / "stop"
        self.tokenizer = path / "tokenizer"

    def create(self) -> None:
        """Make the folder.

        Raises:
            RunFolderError: it cannot be made.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(
                f"The run folder {self.path} cannot be made: {error.strerror}. Choose another with run.dir=PATH."
            ) from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the kernel lets go of it however the process ends.

        Raises:
            RunFolderError: a live process holds it; the message names host and pid.
        """
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise RunFolderError(
                    f"The run {self.path} is in use by {holder}. Wait for it, stop it with: touch {self.stop_file}, "
                    "or start another run with run.name=NAME."
                ) from None
            file.truncate(0)
            file.write(f"host {host()}, pid {os.getpid()}\n")
            file.flush()
            yield

    def write_status(self, state: str, samples_seen: int, message: str) -> None:
        """Replace status.json: state is running, done, stopped or failed."""
        status = {
            "format_version": FORMAT_VERSION,
            "state": state,
            "samples_seen": samples_seen,
            "message": message,
            "time": time.time(),
        }
        replace_file(self.path / "status.json", json.dumps(status, indent=1) + "\n")

    def read_status(self) -> dict[str, Any] | None:
        """The last status; None if there is none, or it is unreadable."""
        try:
            return json.loads((self.path / "status.json").read_text())
        except (OSError, ValueError):
            return None

    def event(self, kind: str, **details: Any) -> None:
        """Append to events.jsonl: start, resume, checkpoint, signal, config_change, error, ..."""
        line = json.dumps({"time": time.time(), "event": kind, **details})
        with (self.path / "events.jsonl").open("a") as file:
            file.write(line + "\n")

    def write_source(self, overrides: list[str], config_yaml: str, threads: int) -> None:
        """Record what is being run."""
        replace_file(self.config, config_yaml)
        replace_file(self.path / "overrides.txt", "".join(f"{word}\n" for word in overrides))
        replace_file(self.path / "source.txt", _source(threads))


def replace_file(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _source(threads: int) -> str:
    lines = [
        f"python {platform.python_version()} on {platform.platform()}",
        f"cpu threads {threads}",
        *(f"{name} {_version(name)}" for name in _PACKAGES),
        f"commit {_git('rev-parse', 'HEAD') or 'unknown (not a git checkout)'}",
    ]
    difference = _git("diff", "HEAD")
    return (
        "\n".join(lines) + "\n" + (f"\nuncommitted changes:\n{difference}\n" if difference else "")
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    folder = Path(sys.modules["configs"].__path__[0]).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
