"""What wandb has of a run, read back from the files in which it records each attempt (`*.wandb`, online and offline alike).

A kill at any moment may cost the last seconds before it: wandb writes these files in blocks, from a process of its own,
and no checkpoint waits for it. So a start compares what the files hold with metrics.jsonl, and reports again what is
missing or was changed by steps that were trained again. Afterwards the last row of each step is that of metrics.jsonl.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from configs.run_files import metrics_line

# LevelDB's log: blocks of this size behind wandb's header, with pieces of records, each behind its CRC, length and kind.
_BLOCK_BYTES, _HEADER_BYTES = 32_768, 7
_PIECE = struct.Struct("<IHB")
_WHOLE, _FIRST, _LAST = 1, 2, 4

Items = Iterable[tuple[str, str]]


def records_in(path: Path) -> Iterator[bytes]:
    """The records of a file, as far as it is whole: one that is still written, or was cut off, ends in the middle of one.

    Raises:
        OSError: the file cannot be read.
    """
    record = b""
    with path.open("rb") as file:
        block = file.read(_BLOCK_BYTES)
        place = _HEADER_BYTES
        while block:
            while place + _PIECE.size <= len(block):
                checksum, length, kind = _PIECE.unpack_from(block, place)
                content = block[place + _PIECE.size : place + _PIECE.size + length]
                if (
                    len(content) < length
                    or zlib.crc32(content, zlib.crc32(bytes([kind]))) != checksum
                ):
                    return
                place += _PIECE.size + length
                record = content if kind in (_WHOLE, _FIRST) else record + content
                if kind in (_WHOLE, _LAST):
                    yield record
            block, place = file.read(_BLOCK_BYTES), 0


def record_files(folder: Path) -> list[Path]:
    """The files of all attempts, oldest first.

    Args:
        folder: wandb's folder within a run's.
    """
    return sorted(
        folder.glob("*run-*/run-*.wandb"),
        key=lambda path: path.parent.name.removeprefix("offline-"),
    )


def missing_lines(
    lines: Iterable[bytes], files: Iterable[Path], logged: Callable[[bytes], Items]
) -> Iterator[bytes]:
    """The lines of metrics.jsonl that wandb lacks, or of which it has an earlier version.

    Args:
        lines: of metrics.jsonl, up to where a start continues.
        files: that wandb has recorded, oldest first.
        logged: the names and JSON values that a record has logged; none: it has logged nothing.

    Raises:
        RecordError: a line of metrics.jsonl is damaged.
        OSError: a file cannot be read.
    """
    # A run of months has hundreds of thousands of rows: of each step one number is kept.
    recorded: dict[float | str, int] = {}
    for path in files:
        for record in records_in(path):
            texts = dict(logged(record))
            if "tokens_seen" in texts:  # neither the details of a step nor a table
                row = {name: _value(text) for name, text in texts.items() if name[:1] != "_"}
                recorded[row["step"]] = _fingerprint(row)
    for number, line in enumerate(lines, start=1):
        values = metrics_line(line, f"line {number:,}")
        row = {name: _value(value) for name, value in values.items() if value is not None}
        if recorded.get(row["step"]) != _fingerprint(row):
            yield line


def as_metrics(line: bytes) -> dict[str, float | None]:
    """A line of metrics.jsonl as `Tracker.log_metrics` takes it."""
    return {
        name: float(value) if isinstance(value, str) else value
        for name, value in metrics_line(line, "a line of the history").items()
    }


def _value(value: str | float) -> float | str:
    """A number, of whatever spelling; NaN as text, which equals itself."""
    found = float(value)
    return found if found == found else "nan"


def _fingerprint(row: dict[str, float | str]) -> int:
    return hash(frozenset(row.items()))
