"""Copies on a node's own disk: made once, equal, found again, never half."""

import errno
import os
import shutil
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from configs.errors import DataError, StorageError
from data_pipeline.corpus import Corpora, CorpusShard
from data_pipeline.storage import local_copy
from data_pipeline.storage.local_copy import copied
from data_pipeline.storage.shards import open_stream
from tests.helpers.killing import KilledAtCall, run_forked
from tests.helpers.shards import write, write_with_megatron

DOCUMENTS = [[number % 256] * 40 for number in range(200)]


@pytest.fixture
def corpora(tmp_path: Path) -> Corpora:
    (tmp_path / "shared").mkdir()
    write(tmp_path / "shared" / "text", DOCUMENTS)
    write(tmp_path / "shared" / "text.valid", DOCUMENTS[:20])
    prefix = str(tmp_path / "shared" / "text")
    return Corpora(
        [CorpusShard("text", prefix, 2.0)], [CorpusShard("text", f"{prefix}.valid", None)], "bytes"
    )


def copy(corpora: Corpora, folder: Path, told: list[str] | None = None) -> Corpora:
    lines: Callable[[str], Any] = [].append if told is None else told.append
    return copied(corpora, str(folder), lines)


def test_copy_is_equal_and_read_instead(corpora: Corpora, tmp_path: Path):
    told: list[str] = []
    local = copy(corpora, tmp_path / "disk", told)
    assert len(told) == 2 and told[0].startswith(f"Copying {corpora.train[0].prefix} (")
    shutil.rmtree(tmp_path / "shared")
    for shard, name in ((local.train[0], "text"), (local.valid[0], "text")):
        assert shard.prefix.startswith(str(tmp_path / "disk"))
        assert shard.name == name
    assert open_stream(local.train[0].prefix).read(38, 43).tolist() == [0, 0, 260, 1, 1]
    assert local.train[0].weight == 2.0


def test_copy_has_the_fingerprint_of_its_shard(corpora: Corpora, tmp_path: Path):
    local = copy(corpora, tmp_path / "disk")
    prints = [open_stream(each.train[0].prefix).fingerprint for each in (corpora, local)]
    assert prints[0] == prints[1]


def test_copy_is_found_again_until_the_shard_changes(corpora: Corpora, tmp_path: Path):
    first = copy(corpora, tmp_path / "disk")
    told: list[str] = []
    assert copy(corpora, tmp_path / "disk", told) == first and told == []
    write(tmp_path / "shared" / "text", DOCUMENTS[1:])
    second = copy(corpora, tmp_path / "disk", told)
    assert len(told) == 1
    assert second.train[0].prefix != first.train[0].prefix
    assert second.valid == first.valid


def test_plain_megatron_corpus_is_copied_once_for_its_two_parts(tmp_path: Path):
    write_with_megatron(tmp_path / "m", [[[1, 2], [3]], [[4]], [[5, 6]]])
    prefix = str(tmp_path / "m")
    parts = [CorpusShard("m", prefix, None, (0, 2))], [CorpusShard("m", prefix, None, (2, 3))]
    told: list[str] = []
    local = copy(Corpora(*parts, "bytes"), tmp_path / "disk", told)
    assert len(told) == 1
    assert local.train[0].prefix == local.valid[0].prefix != prefix
    assert local.valid[0].documents == (2, 3)
    assert open_stream(local.train[0].prefix).read(0, 6).tolist() == [1, 2, 3, 4, 5, 6]


def test_damage_of_the_shard_is_found_while_copying(corpora: Corpora, tmp_path: Path):
    data = tmp_path / "shared" / "text.bin"
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    with pytest.raises(DataError, match=r"text is damaged: .* python -m data_pipeline verify"):
        copy(corpora, tmp_path / "disk")
    assert [path.suffix for path in (tmp_path / "disk").iterdir()] == [".lock"]


def test_disk_without_room_is_named_before_anything_is_copied(
    corpora: Corpora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"has 0.0 GiB free, .* data.local_copy=null"):
        copy(corpora, tmp_path / "disk")


def test_disk_that_fills_up_leaves_nothing_behind(
    corpora: Corpora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local_copy, "_copy_file", full)
    with pytest.raises(DataError, match=r"No space left on device.*data.local_copy=PATH"):
        copy(corpora, tmp_path / "disk")
    assert [path.suffix for path in (tmp_path / "disk").iterdir()] == [".lock"]


def test_disk_that_writes_something_else_is_found(
    corpora: Corpora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(local_copy, "checksum", lambda _: 1)
    with pytest.raises(DataError, match="the disk of data.local_copy fails"):
        copy(corpora, tmp_path / "disk")


def copy_killed(corpora: Corpora, folder: Path, number: int) -> int:
    """Copy in a process that kills itself before the `number`-th step that keeps what was copied."""

    def work() -> None:
        killed = KilledAtCall(number)
        killed.wrap(os, "fsync")
        killed.wrap(Path, "replace")
        copied(corpora, str(folder), lambda _: None)

    return run_forked(work)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_copy, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(local_copy, "_NOTED_BYTES", 2000)


@pytest.mark.usefixtures("small_steps")
def test_start_after_a_kill_copies_only_the_rest(corpora: Corpora, tmp_path: Path):
    data = tmp_path / "shared" / "text.bin"
    content = data.read_bytes()
    assert len(content) > 10_000
    assert (
        copy_killed(corpora, tmp_path / "disk", 9) == -9
    )  # four notes are written, and 2000 bytes more
    # What is there must not be read again: it is not what it was any more.
    data.write_bytes(bytes(8000) + content[8000:])
    told: list[str] = []
    local = copy(corpora, tmp_path / "disk", told)
    assert "GiB are there" in told[0]
    assert Path(f"{local.train[0].prefix}.bin").read_bytes() == content
    assert sorted(path.name for path in Path(local.train[0].prefix).parent.iterdir()) == [
        "tokens.bin",
        "tokens.idx",
        "tokens.json",
    ]


@pytest.mark.usefixtures("small_steps")
def test_starts_that_are_all_killed_early_come_to_the_end(corpora: Corpora, tmp_path: Path):
    starts = 1
    while copy_killed(corpora, tmp_path / "disk", 4):
        starts += 1
        assert starts < 50, "progress is lost"
    assert starts > 5
    local = copy(corpora, tmp_path / "disk")
    for ending in ("bin", "idx", "json"):
        copies = [
            Path(f"{each.train[0].prefix}.{ending}").read_bytes() for each in (corpora, local)
        ]
        assert copies[0] == copies[1]


@pytest.mark.usefixtures("small_steps")
def test_half_copy_that_the_disk_has_changed_is_found_and_thrown_away(tmp_path: Path):
    write_with_megatron(tmp_path / "m", [[[number] * 40] for number in range(200)])
    corpora = Corpora([CorpusShard("m", str(tmp_path / "m"), None)], [], "bytes")
    assert copy_killed(corpora, tmp_path / "disk", 9) == -9
    (half,) = (tmp_path / "disk").glob("*.half")
    with (half / "tokens.bin").open("r+b") as file:
        file.write(b"?")
    with pytest.raises(DataError, match="the disk of data.local_copy fails"):
        copy(corpora, tmp_path / "disk")
    local = copy(corpora, tmp_path / "disk")
    assert Path(f"{local.train[0].prefix}.bin").read_bytes() == (tmp_path / "m.bin").read_bytes()


def test_ranks_of_a_node_copy_once(corpora: Corpora, tmp_path: Path):
    with get_context("fork").Pool(4) as pool:
        results = pool.starmap(_copy_and_count, [(corpora, str(tmp_path / "disk"))] * 4)
    assert sum(copies for copies, _ in results) == 2
    assert len({prefix for _, prefix in results}) == 1


def _copy_and_count(corpora: Corpora, folder: str) -> tuple[int, str]:
    told: list[str] = []
    local = copied(corpora, folder, told.append)
    return sum(line.startswith("Copying") for line in told), local.train[0].prefix


def test_a_source_that_fails_is_named_and_what_was_copied_is_kept(
    corpora: Corpora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fails)
        with pytest.raises(StorageError, match=r"shared/text\.(bin|idx|json) cannot be read"):
            copy(corpora, tmp_path / "disk")
    assert list((tmp_path / "disk").glob("*.half"))
    assert open_stream(copy(corpora, tmp_path / "disk").train[0].prefix)
