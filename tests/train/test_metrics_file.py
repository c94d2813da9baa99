"""metrics.jsonl: whole lines, no gaps, and never another history than the one that the checkpoints vouch for."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import RunFolderError
from train.metrics import Metrics, metric_keys, metrics_line, to_json_value
from train.metrics_file import JsonlTracker, StoredMetrics, checksum_in

COUNTED = ("mask", "gmask", "mip", "smask")


def line(step: int, loss: float = 1.0 / 3) -> Metrics:
    return metrics_line(
        {
            "step": step,
            "samples_seen": 8 * step,
            "tokens_seen": 1024 * step,
            "train/loss": loss,
            "optim/grad_norm": float("inf"),
        },
        COUNTED,
    )


def written(path: Path, steps: int, loss: float = 1.0 / 3) -> list[int | None]:
    """Write a run's lines; returns the checksums that checkpoints after 0, 1, 2, ... steps keep."""
    tracker = JsonlTracker(path, 0)
    checksums = [checksum_in(tracker.keep_checksum())]
    for step in range(1, steps + 1):
        tracker.log_metrics(line(step, loss))
        checksums.append(checksum_in(tracker.keep_checksum()))
    tracker.close()
    return checksums


def test_every_line_has_the_same_keys_and_full_precision(tmp_path: Path) -> None:
    written(tmp_path / "metrics.jsonl", 1)
    stored = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert tuple(stored) == metric_keys(COUNTED)
    assert stored["train/loss"] == 1.0 / 3
    assert stored["optim/grad_norm"] == "inf"
    assert stored["valid/loss"] is None
    assert to_json_value(float("nan")) == "nan"


def test_a_start_keeps_the_lines_before_its_checkpoint_and_drops_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    previous = JsonlTracker(path, 0)
    for step in (1, 2, 3):
        previous.log_metrics(line(step))
    with path.open("a") as file:
        file.write('{"step": 4, "train/lo')
    again = JsonlTracker(path, 2)
    previous.log_metrics(line(4))  # a process that was cut off writes into a file that nobody reads
    again.log_metrics(line(3, float("nan")))
    again.close()
    found = [json.loads(text) for text in path.read_text().splitlines()]
    assert [values["step"] for values in found] == [1, 2, 3]
    assert found[2]["train/loss"] == "nan"
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_a_gap_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        JsonlTracker(tmp_path / "metrics.jsonl", 0).log_metrics(line(2))


def test_a_checkpoint_vouches_for_the_same_lines_after_a_start_as_before(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    checksums = written(path, 4)
    again = JsonlTracker(path, 2, checksums[2])
    again.log_metrics(line(3))
    assert checksum_in(again.keep_checksum()) == checksums[3]


def test_missing_lines_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    written(path, 1)
    content = path.read_bytes()
    with pytest.raises(RunFolderError, match=r"lines for 1 of the 5 steps.*run\.name=NAME"):
        JsonlTracker(path, 5)
    assert path.read_bytes() == content
    path.unlink()
    with pytest.raises(RunFolderError, match="lines for 0 of the 5 steps"):
        JsonlTracker(path, 5)


Damage = Callable[[list[bytes]], object]


def changed(number: int, **values: object) -> Damage:
    """Other values in a line."""

    def change(lines: list[bytes]) -> None:
        text = json.dumps({**json.loads(lines[number]), **values})
        lines[number] = text.encode() + b"\n"

    return change


def put(number: int, content: bytes) -> Damage:
    """Another line in the place of one."""

    def change(lines: list[bytes]) -> None:
        lines[number] = content

    return change


# Each damages line 3 of 6, or what follows on line 2.
DAMAGES: dict[str, Damage] = {
    "doubled": lambda lines: lines.insert(2, lines[1]),
    "missing": lambda lines: lines.pop(2),
    "empty": put(2, b"\n"),
    "torn": lambda lines: lines.insert(2, lines.pop(2)[:20] + b"\n"),
    "foreign": put(2, b'{"step": 3, "event": "start"}\n'),
    "of a list": put(2, b"[3]\n"),
    "of a number": put(2, b"3\n"),
    "deep": put(2, b"[" * 100_000 + b"\n"),
    "in Latin-1": put(2, '{"step": 3, "\xe9": 1}\n'.encode("latin-1")),
    "with a line separator": put(2, '\u2028{"step": 3}\n'.encode()),
    "binary": put(2, b"\0\0\0\xff\n"),
    "of a NaN": put(
        2, b'{"step": 3, "samples_seen": 24, "tokens_seen": 3072, "train/loss": NaN}\n'
    ),
    "a list for a loss": changed(2, **{"train/loss": [1.0]}),
    "words for a loss": changed(2, **{"train/loss": "low"}),
    "a true step": changed(2, step=True),
    "a step in words": changed(2, step="3"),
    "a huge number": changed(2, samples_seen=10**400),
    "fewer samples": changed(2, samples_seen=8),
    "fewer tokens": changed(2, tokens_seen=8),
    "no position": changed(2, samples_seen=None),
}


@pytest.mark.parametrize("has_checksum", [True, False])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_line_ends_what_a_start_may_use(
    tmp_path: Path, damage: Damage, has_checksum: bool
) -> None:
    path = tmp_path / "metrics.jsonl"
    checksums = written(path, 6)
    lines = path.read_bytes().splitlines(keepends=True)
    damage(lines)
    path.write_bytes(b"".join(lines))
    stored = StoredMetrics(path)
    for step in (1, 2):
        assert stored.up_to(step, checksums[step] if has_checksum else None) == lines[:step]
    for step in (3, 5, 6):
        fault = stored.fault_before(step, checksums[step] if has_checksum else None)
        assert fault is not None and f"{path}, line 3," in fault
        with pytest.raises(RunFolderError, match=f"lines for 2 of the {step} steps"):
            stored.up_to(step, checksums[step] if has_checksum else None)
    assert not stored.is_short_of(6)


def test_lines_of_another_run_are_not_taken_where_a_checkpoint_vouches(tmp_path: Path) -> None:
    path, other = tmp_path / "metrics.jsonl", tmp_path / "other.jsonl"
    checksums = written(path, 4)
    written(other, 4, loss=2.0)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = other.read_bytes().splitlines(keepends=True)[2]
    path.write_bytes(b"".join(lines))
    stored = StoredMetrics(path)
    assert stored.fault_before(2, checksums[2]) is None
    assert "are not those that were there" in str(stored.fault_before(3, checksums[3]))
    with pytest.raises(RunFolderError, match="are not those that were there"):
        JsonlTracker(path, 4, checksums[4])
    aside = stored.keep_aside()
    assert aside.read_bytes() == path.read_bytes() and stored.keep_aside() != aside


@pytest.mark.parametrize(
    "end", [b'{"step": 3', b'{"step": 3, "samples_seen": 24, "tokens_seen": 3072}', b"\0" * 40]
)
def test_a_torn_end_is_no_damage(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    checksums = written(path, 2)
    with path.open("ab") as file:
        file.write(end)
    stored = StoredMetrics(path)
    assert len(stored.up_to(2, checksums[2])) == 2
    assert stored.is_short_of(3) and "ends with step 2" in str(stored.fault_before(3, 1))


@pytest.mark.parametrize("found", [None, "1", 1.5, True, [1]])
def test_a_checkpoint_without_a_checksum_vouches_for_nothing(found: object) -> None:
    assert checksum_in({"metrics_crc32": found}) is None


def test_what_a_start_trains_again_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = JsonlTracker(path, 0)
    for step in range(1, 7):
        tracker.log_metrics({**line(step), "speed/seconds_per_step": 0.5 * step})
    tracker.close()
    with path.open("ab") as file:
        file.write(b"{}\n")
        file.write(b'{"step": 7, "sam')  # the process was killed while it wrote
    assert StoredMetrics(path).repeated_after(6) == {}
    assert StoredMetrics(path).repeated_after(4) == {
        "repeated_steps": [5, 6],
        "repeated_samples": [32, 48],
        "repeated_seconds": 2.5 + 3.0,
    }
    assert StoredMetrics(path).repeated_after(0)["repeated_samples"] == [0, 48]
