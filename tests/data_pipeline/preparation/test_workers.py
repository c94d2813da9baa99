"""Worker processes that fail."""

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import DataError
from data_pipeline.preparation import inputs, workers
from data_pipeline.preparation.prepare import prepare
from data_pipeline.storage.shards import is_shard
from data_pipeline.tokenizer import ByteTokenizer
from tests.helpers.killing import run_forked
from tests.helpers.open_files import limit_open_files
from tests.helpers.texts import sentences, shard_bytes, write_jsonl


@pytest.fixture
def jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(inputs, "PART_BYTES", 500)
    return write_jsonl(tmp_path / "here.jsonl", sentences(60))


def test_worker_that_is_killed_is_told_of_and_the_next_run_goes_on(
    jsonl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = workers._Worker.give
    given: list[int] = []

    def give(self: workers._Worker, number: int, task: workers.Task) -> None:
        original(self, number, task)
        given.append(number)
        if len(given) == 5:
            os.kill(self._process.pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(workers._Worker, "give", give)
        # It may have answered before the signal came; then it dies with the next task.
        with pytest.raises(DataError, match=r"worker was killed \(SIGKILL\).*--workers N"):
            prepare([str(jsonl)], tmp_path / "a", ByteTokenizer(), 0.2, workers=2)
    assert not is_shard(str(tmp_path / "a"))
    prepare([str(jsonl)], tmp_path / "a", ByteTokenizer(), 0.2, workers=2)
    prepare([str(jsonl)], tmp_path / "b", ByteTokenizer(), 0.2)
    for ending in ("bin", "idx"):
        one, other = (tmp_path / f"{name}.{ending}" for name in "ab")
        assert one.read_bytes() == other.read_bytes()


def test_workers_import_what_their_parent_does_wherever_it_was_started(
    jsonl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Not what lies in the working folder, and nothing within data_pipeline as if it were a library."""
    for name in ("configs", "data_pipeline", "cache", "tokenizer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not this one')")
    started: list[list[str]] = []
    original = subprocess.Popen

    def start(command: list[str], **options: object) -> object:
        started.append(command)
        return original(command, **options)

    monkeypatch.setattr(workers.subprocess, "Popen", start)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    prepare([str(jsonl)], tmp_path / "a", ByteTokenizer(), 0.2, workers=2)
    assert is_shard(str(tmp_path / "a"))
    assert len(started) == 2
    assert all(command[3:] == sys.path for command in started)


def test_more_inputs_than_files_may_be_open(tmp_path: Path):
    texts = sentences(80)
    paths = [str(write_jsonl(tmp_path / f"{n:03}.jsonl", [text])) for n, text in enumerate(texts)]

    def work() -> None:
        limit_open_files(64, 64)
        done = prepare(paths, tmp_path / "a", ByteTokenizer(), 0.2)
        assert done.valid is not None
        assert done.train.num_documents + done.valid.num_documents == 80

    assert run_forked(work) == 0


def test_worker_with_a_bug_is_no_mistake_of_the_user(
    jsonl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tokenizer = ByteTokenizer()
    monkeypatch.setattr(tokenizer, "spec", "no such tokenizer", raising=False)
    with pytest.raises(RuntimeError, match="a worker ended with exit code 1"):
        prepare([str(jsonl)], tmp_path / "a", tokenizer, 0.2, workers=2)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_file_size_limit_is_a_message_and_leaves_nothing_half_made(
    num_workers: int, jsonl: Path, tmp_path: Path
):
    (tmp_path / "out").mkdir()

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
        with pytest.raises(DataError, match=r"out/a cannot be written \(File too large\)"):
            prepare([str(jsonl)], tmp_path / "out" / "a", ByteTokenizer(), 0.2, workers=num_workers)

    assert run_forked(work) == 0
    assert shard_bytes(tmp_path / "out" / "a") == {}


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 160 KiB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("num_documents", [300, 900])
def test_full_disk_keeps_the_old_shard_and_the_finished_parts(
    num_documents: int, num_workers: int, small_disk: Path, tmp_path: Path, monkeypatch
):
    """900 documents do not fit as parts; 300 fit as parts and not as parts and shards."""
    monkeypatch.setattr(inputs, "PART_BYTES", 5000)
    old = write_jsonl(tmp_path / "old.jsonl", sentences(20, seed=1))
    prepare([str(old)], small_disk / "a", ByteTokenizer(), 0.2)
    before = shard_bytes(small_disk / "a")
    new = write_jsonl(tmp_path / "new.jsonl", sentences(num_documents))
    with pytest.raises(DataError, match=r"a cannot be written \(No space left on device\)"):
        prepare([str(new)], small_disk / "a", ByteTokenizer(), 0.2, workers=num_workers)
    left = shard_bytes(small_disk / "a")
    assert {name: left[name] for name in before} == before
    extra = [name for name in left if name not in before]
    assert any(name.endswith(".part") for name in extra)
    allowed = re.compile(r"a.parts/(\d{4}-\d{7}.part|0000-end.json|lock)")
    assert [name for name in extra if not allowed.fullmatch(name)] == []
