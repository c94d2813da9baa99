"""Existing runs and token shards whose names are similar to a mistyped one. Imports the standard library only."""

import contextlib
import difflib
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from configs.errors import RunFolderError
from configs.run_paths import RunPaths

# A folder may hold millions of files, and its file system may be slow.
_LOOKED_AT = 300
_NUM_NAMED = 3
# Least similarity of two names, from 0 to 1.
_ALIKE = 0.6
_INDEX = ".idx"

_Found = Callable[[Path], Iterable[str]]


def runs_near(path: str | os.PathLike[str]) -> list[str]:
    """Run folders near a path that is not one: inside it, beside it or, for a bare name, in folders beside it.

    Returns:
        At most three, the most similar name first.
    """
    return _near(os.fspath(path), _runs_in)


def runs_and_shards_near(path: str | os.PathLike[str]) -> list[str]:
    """As `runs_near`, with prefixes of token shards."""
    return _near(os.fspath(path), lambda folder: [*_runs_in(folder), *_shards_in(folder)])


def did_you_mean(names: list[str]) -> str:
    """A question that names them; "" for none."""
    if not names:
        return ""
    *others, last = names
    return f"Did you mean {', '.join(others)} or {last}?" if others else f"Did you mean {last}?"


def without_lines(folder: Path, name: str, example: str) -> RunFolderError:
    """The error for a folder that is no run, or one without a record of it.

    Args:
        folder: as typed.
        name: the file that has no line.
        example: what to type, where no run is near.
    """
    advice = "" if RunPaths(folder).config.exists() else did_you_mean(runs_near(folder))
    found = (
        f"{folder} has no {name} with a line in it."
        if folder.exists()
        else f"There is no {folder}."
    )
    return RunFolderError(f"{found} {advice or f'Give a run folder: {example}'}")


def _near(path: str, found_in: _Found) -> list[str]:
    folder, name = os.path.split(path.rstrip("/"))
    names = [*found_in(Path(path))] or [*found_in(Path(folder or "."))]
    if not folder and not names:
        # Runs and shards mostly have folders of their own: the rest of this folder is not proposed.
        inside = (each for beside in _entries(Path()) for each in found_in(beside))
        names = [each for each in inside if _likeness(name, each) >= _ALIKE]
    unique = sorted(dict.fromkeys(names))
    same = [each for each in unique if os.path.basename(each) == name]
    return (same or sorted(unique, key=lambda each: -_likeness(name, each)))[:_NUM_NAMED]


def _likeness(name: str, path: str) -> float:
    return difflib.SequenceMatcher(None, name, os.path.basename(path)).ratio()


def _runs_in(folder: Path) -> Iterator[str]:
    for each in _entries(folder):
        run = RunPaths(each)
        if _is_there(run.config) and any(
            map(_is_there, (run.status, run.metrics, run.checkpoints))
        ):
            yield str(each)


def _shards_in(folder: Path) -> Iterator[str]:
    for each in _entries(folder):
        # Whoever means the held-out shard of a prefix names the prefix first.
        if each.name.endswith(_INDEX) and not each.name.endswith(f".valid{_INDEX}"):
            yield str(each).removesuffix(_INDEX)


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(islice(folder.iterdir(), _LOOKED_AT))
    return []


def _is_there(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.exists()
    return False
