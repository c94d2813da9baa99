"""Hundreds of shards are opened whatever the shell's soft limit, and a hard limit is named."""

import resource
from pathlib import Path

import pytest

from configs.errors import DataError
from data_pipeline.storage.shard_part import ShardPart
from data_pipeline.storage.shards import open_stream
from tests.helpers.killing import run_forked
from tests.helpers.open_files import limit_open_files
from tests.helpers.shards import write


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shard")
    write(folder / "a")
    return folder / "a"


def test_many_shards_raise_the_soft_limit_and_leave_room(prefix: Path):
    def work() -> None:
        limit_open_files(128, 1024)
        parts = [ShardPart(open_stream(prefix), 262) for _ in range(200)]
        assert all(part.read(0, 1).tolist() == [1] for part in parts)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1024, 1024)

    assert run_forked(work) == 0


def test_a_few_shards_change_no_limit(prefix: Path):
    def work() -> None:
        limit_open_files(512, 1024)
        kept = [ShardPart(open_stream(prefix), 262) for _ in range(3)]
        assert len(kept) == 3
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (512, 1024)

    assert run_forked(work) == 0


def test_a_hard_limit_is_named_with_what_to_type(prefix: Path):
    def work() -> None:
        limit_open_files(128, 128)
        with pytest.raises(DataError, match=r"may hold 128 files open.*ulimit -n"):
            _ = [ShardPart(open_stream(prefix), 262) for _ in range(200)]

    assert run_forked(work) == 0
