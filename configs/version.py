"""Versions of this program and its libraries, for `--version` of every command and for a run's source.txt."""

import argparse
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import configs

DISTRIBUTION = "glm-pretraining"
VERSION = "--version"


def version_text() -> str:
    """Versions of this program, Python and PyTorch, one per line; imports none of the libraries."""
    revision = commit()
    suffix = f" (commit {revision}{', changed since' if differences() else ''})" if revision else ""
    return "\n".join(
        [
            f"{DISTRIBUTION} {version(DISTRIBUTION)}{suffix}",
            f"python {platform.python_version()}",
            f"torch {version('torch')}",
        ]
    )


class ShowVersion(argparse.Action):
    """`--version` of a command that argparse reads."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(
            option_strings, dest, nargs=0, help="versions of this program, Python and PyTorch"
        )

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print the versions and exit."""
        sys.stdout.write(version_text() + "\n")
        parser.exit()


def asks_version(words: Sequence[str]) -> bool:
    """True if a command line asks for the versions."""
    return VERSION in words


def version(distribution: str) -> str:
    """The installed version of a distribution."""
    # Imported late: this import takes longer than most commands need to report a mistake.
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        return installed_version(distribution)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit of the checkout that this program runs from; "" if there is no checkout."""
    return _git("rev-parse", "HEAD") if _is_checkout() else ""


def differences() -> str:
    """What has changed since that commit, as a patch; "" if nothing has, or there is no checkout."""
    return _git("diff", "HEAD") if _is_checkout() else ""


def _is_checkout() -> bool:
    """True if git tracks this file: site-packages may be inside another repository."""
    return bool(_git("ls-files", "configs/version.py"))


def _git(*arguments: str) -> str:
    folder = str(Path(configs.__path__[0]).parent)
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
