"""The run folder: what was run, what happened, and whether somebody is running it now.

runs/NAME holds config.yaml, overrides.txt, source.txt, status.json, metrics.jsonl, events.jsonl, log.txt, tokenizer/,
generations/ and checkpoints/. It contains no absolute path of its own: it can be copied elsewhere and continued. Only
rank 0 writes, and only while its life is the latest (train/generations.py): each start puts new files in the place of
those that grow, so that a former life which has them open writes into files that nobody reads.
"""

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from configs.errors import DistributedError, RunFolderError
from configs.version import DISTRIBUTION, commit, differences, version
from glm.checkpoint.disk import sync_to_disk
from train import generations
from train.failures import may_pass
from train.full_disk import LineFile, said_if_full
from train.generations import Generation
from train.world import Launch

FORMAT_VERSION = 1
# How much later than another rank rank 0 may find the same mistake, and how much the clocks of two nodes may differ.
_SHARED_MISTAKE_SECONDS, _CLOCK_SECONDS = 10.0, 5.0
_POLL_SECONDS = 0.1
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
        self.stacks = path / "stacks"
        self.events = path / "events.jsonl"
        self._event_file: LineFile | None = None
        self._generation: Generation | None = None

    def create(self) -> None:
        """Make the folder.

        Raises:
            RunFolderError: it cannot be made.
            OSError: the file system failed.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if may_pass(error):
                raise
            raise RunFolderError(
                f"The run folder {self.path} cannot be made: {error.strerror}. Choose another with run.dir=PATH."
            ) from error

    @contextlib.contextmanager
    def held(
        self, launch: Launch, say: Callable[[str], None] = lambda _: None
    ) -> Iterator[Generation]:
        """Hold the run for this process; the kernel lets go of it however the process ends.

        Args:
            launch: who started this process.
            say: told if it has to wait for the former life.

        Raises:
            RunFolderError: a live process holds it; the message names host and pid.
        """
        generation = self._generation = generations.begin(self.path, launch, say)
        ending = "failed"
        try:
            if generation.former is None or not launch.shares_launcher(generation.former.launch):
                # An old request; but one that was made while a launcher starts the run again holds.
                self.stop_file.unlink(missing_ok=True)
            self._event_file = LineFile(renewed(self.events))
            renewed(self.log).close()
            yield generation
            ending = str((self.read_status() or {}).get("state"))
        finally:
            generation.end(ending)
            self._generation = None

    def write_status(self, state: str, samples_seen: int, message: str) -> None:
        """Replace status.json: state is running, done, stopped or failed.

        Raises:
            DistributedError: a later life has begun.
        """
        if self._generation is not None:
            self._generation.fence()
        status = {
            "format_version": FORMAT_VERSION,
            "generation": 0 if self._generation is None else self._generation.number,
            "state": state,
            "samples_seen": samples_seen,
            "message": message,
            "time": time.time(),
        }
        path = self.path / "status.json"
        with said_if_full(path):
            replace_file(path, json.dumps(status, indent=1) + "\n")

    def read_status(self) -> dict[str, Any] | None:
        """The last status; None if there is none, or it is unreadable."""
        try:
            return json.loads((self.path / "status.json").read_text())
        except (OSError, ValueError):
            return None

    def event(self, kind: str, **details: Any) -> None:
        """Append to events.jsonl: start, resume, checkpoint, signal, config_change, error, ..."""
        line = json.dumps({"time": time.time(), "event": kind, **details})
        if self._event_file is None:
            self._event_file = LineFile(self.events.open("a"))
        self._event_file.write(line)

    def fail(self, message: str, kind: str = "error") -> None:
        """Leave the reason of an error behind, unless a later life owns the folder by now, or its disk is gone."""
        seen = int((self.read_status() or {}).get("samples_seen", 0))
        with contextlib.suppress(DistributedError, OSError):
            self.write_status("failed", seen, message)
        with contextlib.suppress(OSError):
            self.event(kind, message=message)

    def hears_from_rank_0(self, message: str, since: float) -> bool:
        """True if rank 0 leaves the same reason behind soon: most mistakes all ranks find, each at its own pace.

        Args:
            message: what this rank would say.
            since: the start of this life, in seconds since the epoch: an older word does not count.
        """
        deadline = time.monotonic() + _SHARED_MISTAKE_SECONDS
        while time.monotonic() < deadline:
            status = self.read_status() or {}
            is_new = float(status.get("time", 0)) > since - _CLOCK_SECONDS
            if status.get("state") == "failed" and status.get("message") == message and is_new:
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def write_source(self, overrides: list[str], config_yaml: str, threads: int) -> None:
        """Record what is being run."""
        replace_file(self.config, config_yaml)
        replace_file(self.path / "overrides.txt", "".join(f"{word}\n" for word in overrides))
        replace_file(self.path / "source.txt", _source(threads))


def replace_file(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    # The watchdog's thread may write the same file at the same moment.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.part")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def renewed(path: Path, content: bytes | None = None) -> TextIO:
    """Put a new file in a file's place, and keep it open to write on.

    Whoever had the old one open writes into a file that has no name any more.

    Args:
        path: the file; need not exist.
        content: of the new one; default: the old one's, without a last line that was torn.
    """
    if content is None:
        old = path.read_bytes() if path.exists() else b""
        content = old[: old.rfind(b"\n") + 1]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    # Opened before it has its name, for afterwards that may be a later life's file; messages shall use the name.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_APPEND)
    renewed_file = open(path, "a", opener=lambda *_: descriptor)  # noqa: SIM115  (the caller closes it)
    os.replace(temporary, path)
    # After a power failure the name must stand for the new file: what is written from now on goes there.
    sync_to_disk(path.parent)
    return renewed_file


def _source(threads: int) -> str:
    lines = [
        f"{DISTRIBUTION} {version(DISTRIBUTION)}",
        f"python {platform.python_version()} on {platform.platform()}",
        f"cpu threads {threads}",
        *(f"{name} {version(name)}" for name in _PACKAGES),
        f"commit {commit() or 'unknown (not a git checkout)'}",
    ]
    difference = differences()
    return (
        "\n".join(lines) + "\n" + (f"\nuncommitted changes:\n{difference}\n" if difference else "")
    )
