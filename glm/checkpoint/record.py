"""A rank's record: it reports to the committing rank, through the folder itself, what the rank has written.

    checkpoints/step_00000200/rank00003-9f3c21aa.json    beside the file that it describes; gone after the commit

The writer threads use no collective, because training is using the ranks' communication meanwhile. A record appears by
a rename after its file is on the disk, so whoever sees the record can rely on the file.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.errors import CheckpointError
from glm.checkpoint.manifest import Fragment, StoredFile
from glm.checkpoint.writer import write_small_file


@dataclass(frozen=True)
class RankRecord:
    """One rank's part of a checkpoint."""

    name: str
    """Name of the rank's file."""
    file: StoredFile
    fragments: list[Fragment]
    shapes: dict[str, list[int]]
    """Whole shapes of the parameters of the rank's pipeline stage."""
    slots: dict[str, list[str]]
    """Slots that are stored of each of these parameters."""


def record_path(folder: Path, file_name: str) -> Path:
    """Path of the record of a rank's file."""
    return (folder / file_name).with_suffix(".json")


def write_record(folder: Path, record: RankRecord) -> None:
    """Report to the committing rank that a file is complete.

    Raises:
        OSError: the disk refused; nothing is left behind.
    """
    body = {
        "file": asdict(record.file),
        "fragments": [part.to_list() for part in record.fragments],
        "shapes": record.shapes,
        "slots": record.slots,
    }
    write_small_file(record_path(folder, record.name), json.dumps(body))


def read_record(folder: Path, file_name: str) -> RankRecord | None:
    """Read the record of a rank's file; None as long as there is none.

    Raises:
        CheckpointError: it cannot be understood.
        OSError: it cannot be read.
    """
    path = record_path(folder, file_name)
    try:
        body = json.loads(path.read_text())
        return RankRecord(
            file_name,
            StoredFile(**body["file"]),
            [Fragment.from_list(part) for part in body["fragments"]],
            body["shapes"],
            body["slots"],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be understood: {error!r}.") from error
