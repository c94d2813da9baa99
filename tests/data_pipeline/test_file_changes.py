"""Bytes of shards that become others are noticed by the times of the files; other times alone are not complained about."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from configs.errors import DataChangedError
from configs.load import load_config
from configs.schema import ObjectiveConfig
from data_pipeline import file_changes
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.file_changes import FileWatch, changes_since
from data_pipeline.storage import shard_writer
from data_pipeline.storage.shard_part import ShardPart
from data_pipeline.storage.shards import open_stream
from data_pipeline.tokenizer import load_tokenizer
from tests.helpers.shards import write, write_with_megatron
from train.start import check_data

DOCUMENTS = [[number % 256] * 40 for number in range(200)]


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shard of ours and a plain one."""
    monkeypatch.setattr(shard_writer, "BLOCK_BYTES", 1000)
    folder = tmp_path / "shards"
    folder.mkdir()
    write(folder / "ours", DOCUMENTS)
    write_with_megatron(folder / "plain", [[ids] for ids in DOCUMENTS], cast(Any, np.uint16))
    return folder


def opened(folder: Path, *names: str) -> GLMDataset:
    parts = [ShardPart(open_stream(folder / name), 262) for name in names]
    sources = [Source(name, part) for name, part in zip(names, parts, strict=True)]
    special = load_tokenizer("bytes").special
    return GLMDataset(sources, special, ObjectiveConfig(), 128, 1)


def flip(path: Path, offset: int) -> None:
    """Change a byte in place, as a failing disk or a careless program does."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    touch(path)


def touch(path: Path) -> None:
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9))


@pytest.mark.parametrize(
    ("file", "offset", "said"),
    [("ours.bin", 2500, "bytes 2,000 to 3,000"), ("ours.idx", 50, "ours.idx no longer has")],
)
def test_a_byte_changed_between_two_starts_is_named(
    file: str, offset: int, said: str, shards: Path
):
    before = opened(shards, "ours").describe()
    flip(shards / file, offset)
    now = opened(shards, "ours")
    assert now.fingerprint == before["fingerprint"]
    (damage,) = changes_since(before, now).damage
    assert said in damage
    manifest: Any = SimpleNamespace(
        step=1, data_state={"dataset": before}, progress={"samples_drawn": 8}
    )
    with pytest.raises(DataChangedError, match=r"no longer has .*data_pipeline verify"):
        check_data(manifest, now, load_config([]), [])
    (word,) = check_data(manifest, now, load_config(["data.accept_changed=true"]), [])
    assert word.startswith("data accepted: ") and said in word


def test_a_copied_corpus_goes_on_without_a_word(shards: Path, tmp_path: Path):
    before = opened(shards, "ours").describe()
    shutil.copytree(shards, tmp_path / "copy", copy_function=shutil.copyfile)
    for path in (tmp_path / "copy").iterdir():
        touch(path)
    now = opened(tmp_path / "copy", "ours")
    assert now.describe() != before
    assert changes_since(before, now) == file_changes.Findings()


def test_a_checkpoint_that_names_no_files_is_compared_by_fingerprints_alone(shards: Path):
    before = opened(shards, "ours").describe()
    for source in before["sources"]:
        del source["files"]
    flip(shards / "ours.bin", 10)
    assert changes_since(before, opened(shards, "ours")) == file_changes.Findings()


def test_of_large_shards_blocks_all_over_are_read_and_that_is_said(
    shards: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(file_changes, "_LOOKED_AT_BYTES", 5000)
    before = opened(shards, "ours").describe()
    touch(shards / "ours.bin")
    (note,) = changes_since(before, opened(shards, "ours")).notes
    assert "5 of 17 blocks" in note and "data_pipeline verify PREFIX reads all" in note
    size = (shards / "ours.bin").stat().st_size
    (shards / "ours.bin").write_bytes(
        bytes(size // 2) + (shards / "ours.bin").read_bytes()[size // 2 :]
    )
    assert changes_since(before, opened(shards, "ours")).damage


def test_of_a_plain_corpus_only_samples_can_be_compared_and_that_is_said(shards: Path):
    before = opened(shards, "plain")
    described, watch = before.describe(), FileWatch([before])
    touch(shards / "plain.bin")
    for notes in (changes_since(described, opened(shards, "plain")).notes, watch.check()):
        assert len(notes) == 1 and "has no checksums" in notes[0]
    flip(shards / "plain.bin", 100)
    with pytest.raises(DataChangedError, match=r"plain\.bin or \.idx has other bytes"):
        watch.check()


def test_a_byte_changed_while_it_is_read_ends_the_run(shards: Path):
    watch = FileWatch([opened(shards, "ours", "plain"), opened(shards, "ours")])
    assert watch.check() == []
    touch(shards / "ours.bin")
    assert watch.check() == []
    flip(shards / "ours.bin", 2500)
    for _ in range(2):
        with pytest.raises(DataChangedError, match=r"ours\.bin no longer .* bytes 2,000 to 3,000"):
            watch.check()


def test_a_shard_that_is_replaced_is_read_on_as_it_was(shards: Path):
    dataset = opened(shards, "ours")
    watch = FileWatch([dataset])
    sample = dataset[3].tokens.tolist()
    (shards / "new").write_bytes(bytes((shards / "ours.bin").stat().st_size))
    (shards / "new").replace(shards / "ours.bin")
    assert watch.check() == []
    assert dataset[3].tokens.tolist() == sample
