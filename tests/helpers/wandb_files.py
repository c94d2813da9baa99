"""What wandb has written into its record files, read with its own messages and nothing of the program; and its process."""

import importlib
import json
import os
import struct
import subprocess
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK_BYTES = 32_768


@dataclass
class Recorded:
    """The content of a file."""

    run_ids: set[str] = field(default_factory=set)
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """All that was logged, in order; wandb's own columns, whose names begin with _, are left out."""
    alerts: list[tuple[str, str]] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    exit_code: int | None = None
    """That the attempt has ended with; None: it has not ended by itself."""

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows with the metrics of a step."""
        return [row for row in self.rows if "train/loss" in row]

    @property
    def has_ended(self) -> bool:
        """True if the attempt has ended by itself."""
        return "exit" in self.kinds


def read(path: Path) -> Recorded:
    """Read a file, as far as it is whole."""
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    found = Recorded()
    for content in records_in(path.read_bytes()):
        record = messages.Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        found.kinds.append(kind)
        if kind == "run":
            found.run_ids.add(record.run.run_id)
            found.config.update(_values(record.run.config.update))
        elif kind == "config":
            found.config.update(_values(record.config.update))
        elif kind == "history":
            values = _values(record.history.item)
            found.rows.append({k: v for k, v in values.items() if not k.startswith("_")})
        elif kind == "alert":
            found.alerts.append((record.alert.title, record.alert.text))
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "files":
            found.files += [each.path for each in record.files.files]
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def attempts(run: Path) -> list[Recorded]:
    """What each attempt of a run has recorded, in their order."""
    return [read(path) for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb"))]


def service_processes() -> list[int]:
    """The processes that wandb has started for this one."""
    words = ["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="]
    lines = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if line.split()[1] == "wandb-core"]


def as_sent(line: dict[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl as wandb's record has it: without what is null, and its own words for what is no number."""
    words = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    return {
        key: words.get(value, value) if isinstance(value, str) else value
        for key, value in line.items()
        if value is not None
    }


def records_in(content: bytes) -> list[bytes]:
    """The records of a file in LevelDB's log format, which wandb writes behind a header of 7 bytes."""
    records, pieces, place = [], b"", 7
    while place + 7 <= len(content):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < 7:  # the rest of a block is padding
            place += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, place)
        piece = content[place + 7 : place + 7 + length]
        if len(piece) < length:
            break  # cut off
        assert zlib.crc32(bytes([kind]) + piece) == checksum
        pieces = piece if kind in (1, 2) else pieces + piece
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            records.append(pieces)
    return records


def _values(items: Any) -> dict[str, Any]:
    return {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json, parse_constant=str)
        for item in items
    }
