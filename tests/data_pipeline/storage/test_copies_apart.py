"""In one folder of local copies every shard has its own, and what this program did not make stays as it is."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipeline.corpus import Corpora, CorpusShard
from data_pipeline.storage.local_copy import copied
from tests.helpers.shards import write, write_with_megatron

DOCUMENTS = [[number % 256] * 40 for number in range(100)]


def copy(prefix: Path, folder: Path) -> Path:
    corpora = Corpora([CorpusShard("text", str(prefix), None)], [], "bytes")
    return Path(copied(corpora, str(folder), lambda _: None).train[0].prefix)


def is_copy(made: Path, prefix: Path) -> bool:
    endings = [end for end in ("bin", "idx", "json") if Path(f"{prefix}.{end}").exists()]
    return all(
        Path(f"{made}.{end}").read_bytes() == Path(f"{prefix}.{end}").read_bytes()
        and Path(f"{made}.{end}").stat().st_mtime_ns == Path(f"{prefix}.{end}").stat().st_mtime_ns
        for end in endings
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain corpus of which the fingerprint sees only samples."""
    prefix = tmp_path_factory.mktemp("large") / "text"
    write_with_megatron(prefix, [[[7] * 2_000_000], [[8] * 500_000]], cast(Any, np.uint16))
    return prefix


@given(st.lists(st.sampled_from([None, 1_050_000, 2_500_001]), min_size=2, max_size=3))
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_corpora_of_one_name_never_meet_in_one_folder(
    large: Path, tmp_path: Path, changed: list[int | None]
):
    sources: list[Path] = []
    for number, offset in enumerate(changed):
        prefix = tmp_path / f"shared{number}" / "text"
        prefix.parent.mkdir(exist_ok=True)
        for ending in ("bin", "idx"):
            shutil.copy2(f"{large}.{ending}", f"{prefix}.{ending}")
        if offset is not None:
            with open(f"{prefix}.bin", "r+b") as file:
                os.pwrite(file.fileno(), bytes([number + 1]), offset)
        sources.append(prefix)
    made = [copy(prefix, tmp_path / "disk") for prefix in sources]
    assert all(is_copy(*pair) for pair in zip(made, sources, strict=True))


def test_two_runs_share_the_copy_of_one_shard(tmp_path: Path):
    write(tmp_path / "a[1].b", DOCUMENTS)
    made = [copy(tmp_path / "a[1].b", tmp_path / "disk") for _ in range(2)]
    assert made[0] == made[1]
    assert is_copy(made[0], tmp_path / "a[1].b")


def half_of(prefix: Path, disk: Path) -> Path:
    """Where a copy is kept while it is made."""
    made = copy(prefix, disk).parent
    shutil.rmtree(made)
    return disk / f"{made.name}.half"


def test_a_folder_that_is_in_the_way_is_left_alone(tmp_path: Path):
    write(tmp_path / "text", DOCUMENTS)
    half = half_of(tmp_path / "text", tmp_path / "disk")
    half.mkdir()
    (half / "tokens.bin").write_bytes(b"half")
    (half / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match=r"half is in the way of data\.local_copy.*Move it away"):
        copy(tmp_path / "text", tmp_path / "disk")
    assert (half / "thesis.tex").read_text() == "mine"
    (half / "thesis.tex").unlink()
    assert is_copy(copy(tmp_path / "text", tmp_path / "disk"), tmp_path / "text")


def test_a_copy_with_a_missing_file_is_named_with_what_to_do(tmp_path: Path):
    write(tmp_path / "text", DOCUMENTS)
    Path(f"{copy(tmp_path / 'text', tmp_path / 'disk')}.idx").unlink()
    with pytest.raises(DataError, match=r"tokens\.idx is missing .*Move the folder away"):
        copy(tmp_path / "text", tmp_path / "disk")


def _text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


@pytest.mark.parametrize(
    "spoil",
    [
        _text("-5 3"),
        _text('{"done": -5, "crc32": 3}'),
        _text('{"done": 10}'),
        _text('{"done": 1e99, "crc32": 3}'),
        _text('{"done": 10, "crc32": 99999999999}'),
        _text("[" * 9000),
        _text(""),
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to(path),
    ],
)
@pytest.mark.parametrize("name", ["tokens.bin.note", "tokens.bin"])
def test_a_damaged_note_or_half_is_copied_anew(
    spoil: Callable[[Path], object], name: str, tmp_path: Path
):
    write(tmp_path / "text", DOCUMENTS)
    half = half_of(tmp_path / "text", tmp_path / "disk")
    half.mkdir()
    (half / "tokens.bin").write_bytes(b"x" * 50)
    (half / name).unlink(missing_ok=True)
    spoil(half / name)
    assert is_copy(copy(tmp_path / "text", tmp_path / "disk"), tmp_path / "text")
    assert not half.exists()
