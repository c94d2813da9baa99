"""Two trees of this program side by side: this one, and that of an earlier commit."""

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPARED = "7f75a97"
"""The last commit before this program was made fast."""


@contextmanager
def checked_out(commit: str, folder: str) -> Iterator[Path]:
    """The files of a commit, in a folder below `folder`."""
    tree = Path(folder) / "tree"
    git("worktree", "add", "--detach", str(tree), commit)
    try:
        yield tree
    finally:
        git("worktree", "remove", "--force", str(tree))


def python(tree: Path, *words: str) -> str:
    """What a Python that finds the packages of a tree prints."""
    command = [sys.executable, *words]
    return subprocess.check_output(command, cwd="/", env=environment(tree), text=True)


def environment(tree: Path) -> dict[str, str]:
    """This process's, with the packages of a tree, and with compiled files kept, as by default."""
    kept = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(tree)}


def summary(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):8.3f}  ({min(values):.3f} .. {max(values):.3f})"


def machine() -> str:
    """Processor, cores and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model}, Python {platform.python_version()}, PyTorch {metadata.version('torch')}"


def git(*words: str) -> str:
    """What git says of this repository."""
    return subprocess.check_output(["git", "-C", str(ROOT), *words], text=True).strip()
