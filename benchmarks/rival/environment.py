"""A Python environment of its own for SwissArmyTransformer: nothing of it is installed beside this program."""

import subprocess
import sys
import venv
from pathlib import Path

from data_pipeline.cache import cache_folder, make_once

REQUIREMENT = "SwissArmyTransformer==0.2.12"


def library_python() -> Path:
    """The environment's Python; made in the user's cache folder at the first call.

    Raises:
        SystemExit: it cannot be installed; the message says what to type.
    """
    return make_once(folder(), _make, print, is_whole=_has_python) / "bin" / "python"


def folder() -> Path:
    """Where the environment lies."""
    return (
        cache_folder(None, print) / f"swissarmy-py{sys.version_info.major}{sys.version_info.minor}"
    )


def _has_python(place: Path) -> bool:
    return (place / "bin" / "python").exists()


def _make(place: Path) -> None:
    print(f"Installing {REQUIREMENT} into {folder()}", flush=True)
    venv.create(place, with_pip=True)
    # PyTorch and DeepSpeed are those that this program uses: nothing large is installed, and both sides have the same.
    (packages,) = (place / "lib").glob("python*/site-packages")
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "shared.pth").write_text("".join(f"{path}\n" for path in shared))
    command = [str(place / "bin" / "python"), "-m", "pip", "install", REQUIREMENT]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        reason = next(iter(ended.stderr.strip().splitlines()[-1:]), "pip gave no reason")
        raise SystemExit(
            f"{REQUIREMENT} was not installed: {reason}\nWith access to a package index type the same command again."
        )
