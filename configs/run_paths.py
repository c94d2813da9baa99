"""The paths of a run's files; only this file spells their names. Imports the standard library only.

Everything else - training, report, sweeps, generation, job scripts - takes paths from `RunPaths`, and names for messages
from the constants. tests/test_run_folder_names.py checks this.
"""

import errno
import os
import re
import stat
from pathlib import Path

from configs.errors import RunFolderError

CONFIG = "config.yaml"
OVERRIDES = "overrides.txt"
SOURCE = "source.txt"
IDENTITY = "identity.json"
STATUS = "status.json"
SUMMARY = "summary.json"
METRICS = "metrics.jsonl"
DETAILS = "details.jsonl"
SAMPLES = "samples.jsonl"
INTERVENTIONS = "interventions.json"
EVENTS = "events.jsonl"
LOG = "log.txt"
REPORT = "report.html"
STOP = "stop"
COPY_MARK = "second_copy.json"
CHECKPOINTS = "checkpoints"
GENERATIONS = "generations"
STACKS = "stacks"
PROFILE = "profile"
ROLLED_BACK = "rolled_back"
TOKENIZER = "tokenizer"
TOKENIZER_SPEC = "spec.txt"
WANDB = "wandb"
WANDB_ID = "run_id.txt"
WANDB_SYNC = "sync.sh"
TENSORBOARD = "tensorboard"
SLURM = "slurm"
SLURM_SCRIPT = "submit.sbatch"
MANIFEST = "manifest.json"
"""Manifest of a checkpoint; a folder without one does not count as a checkpoint."""
LATEST = "latest"
"""A file beside the checkpoints that names the newest one, for people only."""

STEP = "step_"
PROFILE_TRACE = re.compile(rf"{STEP}(\d+)_to_(\d+)_rank_(\d+)\.json(?:\.gz)?")
"""Name of a trace of the profiler: its first and last step, and its rank."""
STEP_FOLDER = re.compile(rf"{STEP}(\d{{8,18}})")
"""Name of a checkpoint's folder."""
EXAMPLE_CHECKPOINT = f"{CHECKPOINTS}/{STEP}00000200"
"""Tokenizer file in a run folder, for messages that say what to type."""


class RunPaths:
    """The paths of a run's files.

    Args:
        path: the run folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = path / IDENTITY
        self.config = path / CONFIG
        self.overrides = path / OVERRIDES
        self.source = path / SOURCE
        self.status = path / STATUS
        self.summary = path / SUMMARY
        self.metrics = path / METRICS
        self.details = path / DETAILS
        self.samples = path / SAMPLES
        self.interventions = path / INTERVENTIONS
        self.events = path / EVENTS
        self.log = path / LOG
        self.report = path / REPORT
        self.stop_file = path / STOP
        self.copy_mark = path / COPY_MARK
        self.checkpoints = path / CHECKPOINTS
        self.generations = path / GENERATIONS
        self.tokenizer = path / TOKENIZER
        self.stacks = path / STACKS
        self.profile = path / PROFILE
        self.rolled_back = path / ROLLED_BACK
        self.wandb = path / WANDB
        self.wandb_id = self.wandb / WANDB_ID
        self.wandb_sync = self.wandb / WANDB_SYNC
        self.tensorboard = path / TENSORBOARD
        self.slurm = path / SLURM
        self.slurm_script = path / SLURM_SCRIPT

    @property
    def files(self) -> list[Path]:
        """The files that a start writes or replaces."""
        return [
            self.identity,
            self.config,
            self.overrides,
            self.source,
            self.status,
            self.summary,
            self.metrics,
            self.details,
            self.samples,
            self.interventions,
            self.events,
            self.log,
            self.stop_file,
        ]

    @property
    def folders(self) -> list[Path]:
        """The folders that a start makes and writes into."""
        return [
            self.checkpoints,
            self.generations,
            self.tokenizer,
            self.stacks,
            self.rolled_back,
        ]

    def profile_trace(self, first: int, last: int, rank: int) -> Path:
        """The profiler's trace of some steps on a rank."""
        return self.profile / f"{STEP}{first}_to_{last}_rank_{rank}.json.gz"

    def profile_memory(self, first: int, last: int, rank: int) -> Path:
        """The history of the device's memory in the same steps."""
        return self.profile / f"{STEP}{first}_to_{last}_rank_{rank}_memory.pickle"

    def check_kinds(self) -> None:
        """Check that the names of this program's files and folders are not taken by anything else.

        A link in place of a file is refused as well: its target may belong to something else. Folders may be links.

        Raises:
            RunFolderError: some names are taken; the message lists them.
            OSError: the file system failed.
        """
        wrong = [path for path in self.files if _kind_of(path, follow=False) not in (None, "file")]
        wrong += [
            path for path in self.folders if _kind_of(path, follow=True) not in (None, "folder")
        ]
        if wrong:
            named = ", ".join(f"{path} ({_kind_of(path, follow=False)})" for path in wrong)
            raise RunFolderError(
                f"In the run folder something else stands where this program keeps its own: {named}. Nothing was "
                "changed. Move it away, or start another run with run.name=NAME."
            )


def _kind_of(path: Path, *, follow: bool) -> str | None:
    """The kind of file at a path; None: there is none."""
    try:
        mode = os.stat(path, follow_symlinks=follow).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "a broken link" if path.is_symlink() else None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EACCES):
            raise
        return f"{error.strerror}"
    kinds = {
        stat.S_ISREG: "file",
        stat.S_ISDIR: "folder",
        stat.S_ISLNK: "a link",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISSOCK: "a socket",
    }
    return next((name for is_one, name in kinds.items() if is_one(mode)), "a device")
