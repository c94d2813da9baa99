"""The run folder: what was run, what happened, and whether it is running now.

runs/NAME holds config.yaml, overrides.txt, source.txt, status.json, metrics.jsonl, events.jsonl, log.txt, tokenizer/,
generations/ and checkpoints/. It contains no absolute path of its own: it can be copied elsewhere and continued. Only
rank 0 writes, and only while its attempt is the latest (train/generations.py): each start puts new files in the place of
those that grow, so that an earlier attempt that has them open writes into files that nobody reads.
"""

import contextlib
import errno
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from configs.errors import (
    ConfigError,
    DistributedError,
    RecordError,
    RunFolderError,
    UserError,
)
from configs.load import from_yaml
from configs.objectives import installed
from configs.records import read_text
from configs.run_paths import RunPaths
from configs.run_status import FORMAT_VERSION, Status, read_status
from configs.schema import Config
from configs.version import DISTRIBUTION, commit, differences, version
from train import generations
from train.failures import may_pass
from train.full_disk import LineFile, said_if_full
from train.generations import Generation
from train.small_files import renewed, replace_file, sweep
from train.world import Launch

# How much later than another rank, rank 0 may find the same mistake; and how much the clocks of two nodes may differ.
_SHARED_MISTAKE_SECONDS, _CLOCK_SECONDS = 10.0, 5.0
_POLL_SECONDS = 0.1
STARTING = "starting"
"""The message of status.json until the first step is due."""
_PACKAGES = ("torch", "deepspeed", "megatron-core", "numpy", "tokenizers", "hydra-core")


class RunFolder(RunPaths):
    """Paths and small files of one run, as its rank 0 writes them.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._event_file: LineFile | None = None
        self._generation: Generation | None = None
        self._made = list[Path]()
        self._previous_status: str | None = None

    def create(self) -> None:
        """Make the folder.

        Raises:
            RunFolderError: it cannot be made.
            OSError: the file system failed.
        """
        try:
            innermost_first = (self.checkpoints, *self.checkpoints.parents)
            self._made = [path for path in innermost_first if not path.exists()]
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if may_pass(error) and error.errno != errno.EROFS:
                raise
            raise RunFolderError(
                f"The run folder {self.path} cannot be made: {error.strerror}. Choose another with run.dir=PATH."
            ) from error

    @contextlib.contextmanager
    def held(
        self,
        launch: Launch,
        log: Callable[[str], None] = lambda _: None,
        *,
        leaves_nothing: bool = False,
    ) -> Iterator[Generation]:
        """Hold the run for this process; the kernel releases it however the process ends.

        Args:
            launch: who started this process.
            log: gets a line if it has to wait for the previous attempt.
            leaves_nothing: remove the folder if this start has made it, and fails for a mistake, or is interrupted,
                before it has recorded what it runs.

        Raises:
            RunFolderError: a running process holds it; the message names host and pid.
        """
        self.check_kinds()
        generation = self._generation = generations.begin(self.path, launch, log)
        self._previous_status = self._status_text()
        ending = "failed"
        try:
            sweep(self.path)
            if generation.previous is None or not launch.shares_launcher(
                generation.previous.launch
            ):
                # Remove an old request; one that was made while a launcher restarts the run still counts.
                self.stop_file.unlink(missing_ok=True)
            self._event_file = LineFile(renewed(self.events))
            renewed(self.log).close()
            yield generation
            status = self.status_or_none()
            ending = "unknown" if status is None else status.state
        except (UserError, KeyboardInterrupt):
            if leaves_nothing and generation.number == 1:
                self._remove_unused()
            raise
        finally:
            generation.end(ending)
            self._generation = None

    def _remove_unused(self) -> None:
        """Remove what a first start has made, while it still holds the run; other files stay, and their folders."""
        if self.path not in self._made or self.config.exists():
            return
        with contextlib.suppress(OSError):
            for path in (self.status, self.events, self.log, self.identity):
                path.unlink(missing_ok=True)
            (self.generations / "000001").unlink(missing_ok=True)
            self.generations.rmdir()
            for path in self._made:
                path.rmdir()

    def write_status(self, state: str, samples_seen: int, message: str) -> None:
        """Replace status.json: state is running, done, stopped or failed.

        Raises:
            DistributedError: a later attempt has begun.
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
        with said_if_full(self.status):
            try:
                replace_file(self.status, json.dumps(status, indent=1) + "\n")
            except FileNotFoundError:
                if self._generation is not None:
                    self._generation.fence()  # a later start removes half-written files
                raise

    def read_config(self) -> Config | None:
        """The configuration of the previous start; None if there was none.

        Raises:
            RunFolderError: it cannot be read.
        """
        try:
            return from_yaml(read_text(self.config))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (RecordError, ConfigError) as error:
            raise RunFolderError(
                f"{self.config} is invalid: {error} Move it away: the checkpoints hold the configuration, too."
            ) from error

    def status_or_none(self) -> Status | None:
        """The last status; None if there is none, or it is unreadable."""
        try:
            return read_status(self.path)
        except (RecordError, OSError):
            return None

    def event(self, kind: str, **details: Any) -> None:
        """Append to events.jsonl: start, resume, checkpoint, signal, config_change, error, ..."""
        line = json.dumps({"time": time.time(), "event": kind, **details})
        if self._event_file is None:
            self._event_file = LineFile(self.events.open("a"))
        self._event_file.write(line)

    def fail(self, message: str, kind: str = "error") -> None:
        """Record the reason of an error, unless a later attempt owns the folder by now, or its disk has failed."""
        status = self.status_or_none()
        seen = 0 if status is None else status.samples_seen
        with contextlib.suppress(DistributedError, OSError):
            self.write_status("failed", seen, message)
        with contextlib.suppress(OSError):
            self.event(kind, message=message)

    def take_back_start(self) -> bool:
        """Put back the status.json that this start found, unless it has trained; True if the run is as it was.

        Its time is restored, too, so that a job script does not take it for this start's.
        """
        status = self.status_or_none()
        has_begun = status is not None and (status.state, status.message) == ("running", STARTING)
        if has_begun and self._previous_status is not None:
            with contextlib.suppress(DistributedError, OSError):
                if self._generation is not None:
                    self._generation.fence()
                replace_file(self.status, self._previous_status)
        return has_begun or self._status_text() == self._previous_status

    def _status_text(self) -> str | None:
        with contextlib.suppress(RecordError, OSError):
            return read_text(self.status)
        return None

    def is_reported_by_rank_0(self, message: str, since: float) -> bool:
        """True if rank 0 soon records the same reason: all ranks find most mistakes, but not at the same time.

        Args:
            message: what this rank would report.
            since: the start of this attempt, in seconds since the epoch: an older record does not count.
        """
        deadline = time.monotonic() + _SHARED_MISTAKE_SECONDS
        while time.monotonic() < deadline:
            status = self.status_or_none()
            if (
                status is not None
                and (status.state, status.message) == ("failed", message)
                and status.time > since - _CLOCK_SECONDS
            ):
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def write_source(self, overrides: list[str], config_yaml: str, threads: int) -> None:
        """Record what is being run."""
        replace_file(self.config, config_yaml)
        replace_file(self.overrides, "".join(f"{word}\n" for word in overrides))
        replace_file(self.source, _source(threads))


def _source(threads: int) -> str:
    lines = [
        f"{DISTRIBUTION} {version(DISTRIBUTION)}",
        f"python {platform.python_version()} on {platform.platform()}",
        f"cpu threads {threads}",
        *(f"{name} {version(name)}" for name in _PACKAGES),
        *(f"objective {each}" for each in installed()),
        f"commit {commit() or 'unknown (not a git checkout)'}",
    ]
    difference = differences()
    return (
        "\n".join(lines) + "\n" + (f"\nuncommitted changes:\n{difference}\n" if difference else "")
    )
