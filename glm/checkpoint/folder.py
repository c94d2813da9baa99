"""The folder of a run's checkpoints: which of them count, and what is cleaned away.

    checkpoints/step_00000200/manifest.json                     the commit: written last, renamed into place
    checkpoints/step_00000200/rank00003-9f3c21aa.safetensors    one file a rank
    checkpoints/latest                                          a hint for people

Every save attempt has its own suffix, and the manifest names the files that belong to the checkpoint: files of a killed
save attempt are never taken for those of the next one, even of the same step on another number of ranks. The folder is
not written elsewhere and renamed, because a rename cannot replace a folder that has files: saving a step again would
leave a moment without either version, whereas replacing the manifest does not. A folder without a manifest is ignored,
and removed by the next save.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from configs.errors import CheckpointError
from configs.run_checkpoints import committed, newest_first, step_of, unfinished
from configs.run_paths import LATEST, MANIFEST
from glm.checkpoint.manifest import HIDDEN, DamagedCheckpointError, Manifest
from glm.checkpoint.ownership import own_files
from glm.checkpoint.reader import read_manifest, verify


def candidates(
    places: Iterable[Path],
    admits: Callable[[Path, Manifest], bool] = lambda folder, manifest: True,
) -> list[Path]:
    """List the committed checkpoints of all places, in the order in which to try them.

    Where two are equal, the one in the first place comes first.

    Args:
        places: folders that hold checkpoints.
        admits: returns whether a checkpoint belongs to the run and its history.
    """
    generations: dict[Path, int | None] = {}
    for place in places:
        for folder in committed(place):
            try:
                manifest = read_manifest(folder)
                if admits(folder, manifest):
                    generations[folder] = manifest.generation
            except CheckpointError:
                generations[folder] = None  # reported by name when it is tried
    return newest_first(generations)


def newest_good(
    places: Sequence[Path],
    report: Callable[[str], None],
    check: Callable[[Path], Manifest] = verify,
    tried: list[Path] | None = None,
) -> Path | None:
    """Find the newest checkpoint that is whole; unfinished and damaged ones are reported by name and passed over.

    Args:
        places: folders that hold checkpoints: the run's own, then that of second copies.
        report: called with a message for each checkpoint that cannot be used.
        check: verifies a checkpoint; raises DamagedCheckpointError if it is damaged.
        tried: what `candidates` found, if ranks have to agree on it; default: look now.

    Raises:
        CheckpointError: there are checkpoints, but none of them is whole; or the newest is of a newer version.
    """
    good, damage = None, []
    for folder in candidates(places) if tried is None else tried:
        try:
            check(folder)
            good = folder
            break
        except DamagedCheckpointError as error:
            damage.append(str(error))
            report(f"{error} Going back to the checkpoint before it.")
    for folder in (folder for place in places for folder in unfinished(place)):
        if good is None or step_of(folder) > step_of(good):
            report(f"{folder} has no {MANIFEST}: it was not finished, and is passed over.")
    if damage and good is None:
        where = " and ".join(map(str, places))
        raise CheckpointError(
            f"No checkpoint in {where} is whole: {' '.join(damage)} Restore one from a copy, or start another run with "
            "run.name=NAME."
        )
    return good


def write_hint(folder: Path) -> None:
    """Point `latest` at a checkpoint; nothing depends on it, so nothing fails with it."""
    with contextlib.suppress(OSError):
        partial = folder.parent / f".{LATEST}.part"
        partial.unlink(missing_ok=True)  # it may be a link
        partial.write_text(folder.name + "\n")
        os.replace(partial, folder.parent / LATEST)


def hide(folders: Iterable[Path]) -> None:
    """Make checkpoints invisible at once, newest first; their files stay until they are removed.

    Raises:
        OSError: the disk refuses.
    """
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            os.replace(folder / MANIFEST, folder / HIDDEN)


def remove(folder: Path, mark: str = "") -> None:
    """Delete a checkpoint: it disappears at once, then its files go.

    What the run did not write stays, and the folder with it.

    Args:
        folder: folder of the checkpoint; may be gone.
        mark: mark of the run that it belongs to (glm/checkpoint/ownership.py).

    Raises:
        OSError: the disk refuses.
    """
    # The manifest goes last: a removal that was interrupted and starts again still needs its list of files.
    hide([folder])
    for path in own_files(folder, mark):
        path.unlink(missing_ok=True)
    (folder / HIDDEN).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def strays(folder: Path, named: Iterable[str], mark: str = "") -> list[Path]:
    """List what killed save attempts left beside the files of a committed checkpoint.

    Args:
        folder: folder of the checkpoint.
        named: the files that its manifest names.
        mark: mark of the run that it belongs to.
    """
    belonging = set(named)
    return [path for path in own_files(folder, mark) if path.name not in belonging]
