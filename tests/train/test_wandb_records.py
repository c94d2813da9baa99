"""wandb's files read back: records over the borders of blocks, torn and damaged ones, and what they lack of a history."""

import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from train.wandb_records import as_metrics, missing_lines, record_files, records_in

BLOCK = 32_768


def log_of(records: Iterable[bytes]) -> bytes:
    """LevelDB's log format behind wandb's header, written from its description."""
    content = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        is_first = True
        while True:
            left = BLOCK - len(content) % BLOCK
            if left < 7:
                content += bytes(left)
                left = BLOCK
            piece, record = record[: left - 7], record[left - 7 :]
            kind = {(1, 1): 1, (1, 0): 2, (0, 0): 3, (0, 1): 4}[is_first, not record]
            checksum = zlib.crc32(bytes([kind]) + piece)
            content += struct.pack("<IHB", checksum, len(piece), kind) + piece
            is_first = False
            if not record:
                break
    return bytes(content)


# Some end just before the end of a block, some go over one or several.
RECORDS = [b"a" * size for size in (0, 1, 100, 32_600, 30, 7, 70_000, 32_761, 5, 32_755, 3, 40_000)]


def test_records_are_read_over_the_borders_of_blocks(tmp_path: Path) -> None:
    path = tmp_path / "x.wandb"
    path.write_bytes(log_of(RECORDS))
    assert list(records_in(path)) == RECORDS


def test_a_file_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    path, whole = tmp_path / "x.wandb", log_of(RECORDS)
    sizes = [len(log_of(RECORDS[:count])) for count in range(len(RECORDS) + 1)]
    for size in (*range(7, 200), 32_000, BLOCK, 40_000, 120_000, len(whole) - 1):
        path.write_bytes(whole[:size])
        count = sum(end <= size for end in sizes) - 1
        assert list(records_in(path)) == RECORDS[:count], size
    damaged = bytearray(whole)
    damaged[sizes[3] - 10] ^= 1
    path.write_bytes(damaged)
    assert list(records_in(path)) == RECORDS[:2]
    path.write_bytes(b"")
    assert list(records_in(path)) == []


def line(step: int, **values: Any) -> dict[str, Any]:
    position = {"step": step, "samples_seen": 8 * step, "tokens_seen": 800 * step}
    return {**position, "train/loss": 0.1 * step, "valid/loss": None, **values}


def recorded(row: dict[str, Any]) -> bytes:
    """A row as the tests' records have it: wandb's spelling of numbers, its own columns, nothing for null."""
    values = {key: value for key, value in row.items() if value is not None}
    items = [[key, json.dumps(value)] for key, value in values.items()]
    return json.dumps([["_step", "7"], *items]).encode()


def logged(record: bytes) -> list[tuple[str, str]]:
    return [(name, value) for name, value in json.loads(record)]


def in_file(lines: list[dict[str, Any]]) -> list[bytes]:
    names = {float("inf"): "inf", float("-inf"): "-inf"}
    return [
        json.dumps(
            {
                key: "nan" if value != value else names.get(value, value)
                for key, value in each.items()
            }
        ).encode()
        for each in lines
    ]


HISTORY = [
    line(1),
    line(2, **{"train/loss": float("nan"), "optim/grad_norm": float("inf")}),
    line(3, **{"valid/loss": 2.5, "optim/grad_norm": float("-inf")}),
    line(4),
]


def missing(folder: Path, *attempts: list[dict[str, Any]]) -> list[int]:
    files = []
    for number, rows in enumerate(attempts):
        files.append(folder / f"{number}.wandb")
        files[-1].write_bytes(log_of(recorded(row) for row in rows))
    found = [as_metrics(each) for each in missing_lines(in_file(HISTORY), files, logged)]
    by_step = {row["step"]: row for row in HISTORY}
    for row in found:
        expected = by_step[row["step"]]
        assert row.keys() == expected.keys()
        assert all(row[key] == value or value != value for key, value in expected.items())
        assert all(isinstance(value, (int, float, type(None))) for value in row.values())
    return [row["step"] for row in found]


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([HISTORY], []),
        ([HISTORY[:2], HISTORY[2:]], []),
        ([], [1, 2, 3, 4]),
        ([HISTORY[:1], HISTORY[3:]], [2, 3]),
        # Trained again: the last row counts.
        ([[*HISTORY[:2], line(3), line(4)], HISTORY[2:]], []),
        ([HISTORY, [line(3, **{"train/loss": 9.0})]], [3]),
        # Steps ahead of the start, which are cut, are no matter; details and tables of a step are none of its metrics.
        ([[*HISTORY, line(5)]], []),
        ([[*HISTORY, {"step": 4, "samples_seen": 32, "samples/blanks": {"a": "table"}}]], []),
        # The last digit counts, and a value too many.
        ([[*HISTORY[:3], line(4, **{"train/loss": 0.4 + 2**-54})]], [4]),
        ([[*HISTORY[:3], line(4, **{"valid/loss": 1.0})]], [4]),
    ],
)
def test_what_is_missing_or_of_an_earlier_version_is_found(
    attempts: list[list[dict[str, Any]]], expected: list[int], tmp_path: Path
) -> None:
    assert missing(tmp_path, *attempts) == expected


def test_files_are_in_the_order_of_the_attempts_online_or_not(tmp_path: Path) -> None:
    names = ["offline-run-20260102_000000-a", "run-20260101_235959-a", "run-20260103_000000-a"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "run-a.wandb").write_bytes(b"")
    (tmp_path / "latest-run").symlink_to(names[2])
    assert [path.parent.name for path in record_files(tmp_path)] == [names[1], names[0], names[2]]
