"""A folder in the cache is made once and completely, whichever process asks and whichever is killed."""

import errno
import fcntl
import os
import signal
import tempfile
import threading
from pathlib import Path

import pytest

from configs.errors import DataError
from data_pipeline.cache import cache_folder, make_once
from data_pipeline.preparation.prepare import prepare
from data_pipeline.tokenizer import load_tokenizer
from tests.helpers.killing import run_forked


def silent(_: str) -> None:
    pass


def silent_make(_: Path) -> None:
    pass


def test_folder_is_the_configured_one_or_the_users(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder(None, silent) == Path("/home/ada/.cache/glm-pretraining")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert cache_folder(None, silent) == Path("/fast/glm-pretraining")
    assert cache_folder("/mine", silent) == Path("/mine")


def test_what_is_there_is_not_made_again(tmp_path: Path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "content").write_text("whole")

    for _ in range(2):
        assert make_once(tmp_path / "deep" / "thing", make, silent) == tmp_path / "deep" / "thing"
    assert (tmp_path / "deep" / "thing" / "content").read_text() == "whole"
    assert len(made) == 1


def test_failure_leaves_nothing_and_is_tried_again(tmp_path: Path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise DataError("no text")

    with pytest.raises(DataError, match="no text"):
        make_once(tmp_path / "thing", fail, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["thing.lock"]
    make_once(tmp_path / "thing", lambda folder: (folder / "whole").touch(), silent)
    assert [path.name for path in (tmp_path / "thing").iterdir()] == ["whole"]


def test_killed_maker_leaves_nothing_half_made(tmp_path: Path):
    def die(folder: Path) -> None:
        (folder / "half").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    assert run_forked(lambda: make_once(tmp_path / "thing", die, silent) and None) == -9
    assert not (tmp_path / "thing").exists()
    make_once(tmp_path / "thing", lambda folder: (folder / "whole").touch(), silent)
    assert [path.name for path in (tmp_path / "thing").iterdir()] == ["whole"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thing", "thing.lock"]


def test_second_process_waits_says_so_and_finds_it_made(tmp_path: Path):
    """The first process is let finish only after the second one has reported that it is waiting."""
    is_making, may_finish = os.pipe(), os.pipe()

    def slowly(folder: Path) -> None:
        os.write(is_making[1], b"x")
        os.read(may_finish[0], 1)
        (folder / "by-first").touch()

    first = os.fork()
    if first == 0:
        make_once(tmp_path / "thing", slowly, silent)
        os._exit(0)
    os.read(is_making[0], 1)
    said: list[str] = []
    is_waiting = threading.Event()

    def report(line: str) -> None:
        said.append(line)
        is_waiting.set()

    def never(_: Path) -> None:
        raise AssertionError("made twice")

    second = threading.Thread(target=make_once, args=(tmp_path / "thing", never, report))
    second.start()
    assert is_waiting.wait(60)
    assert not (tmp_path / "thing").exists()
    os.write(may_finish[1], b"x")
    second.join(60)
    assert not second.is_alive()
    assert os.waitpid(first, 0)[1] == 0
    assert [path.name for path in (tmp_path / "thing").iterdir()] == ["by-first"]
    assert said == [f"Waiting for another process that is making {tmp_path / 'thing'}"]


def test_unwritable_cache_says_how_to_choose_another(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="data.cache_dir=PATH"):
        make_once(tmp_path / "file" / "thing", silent, silent)


def test_user_without_a_home_gets_a_temporary_cache_and_a_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said: list[str] = []
    folder = cache_folder(None, said.append)
    assert folder == tmp_path / f"glm-pretraining-{os.getuid()}"
    assert folder.stat().st_mode & 0o077 == 0
    assert len(said) == 1 and "data.cache_dir=PATH" in said[0]
    folder.rmdir()
    folder.symlink_to(tmp_path)  # somebody else's idea
    with pytest.raises(DataError, match="data.cache_dir=PATH"):
        cache_folder(None, silent)


def test_what_others_put_into_the_cache_stays(tmp_path: Path):
    others = ["thing.making-notes", "thing.making-0123abcd", "thing.damaged", "thing.lock.txt"]
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    (tmp_path / "thing.lock").write_text("mine too")
    make_once(tmp_path / "thing", silent_make, silent)
    assert all((tmp_path / name / "mine").exists() for name in others)
    assert (tmp_path / "thing.lock").read_text() == "mine too"


def test_what_is_damaged_is_moved_aside_and_made_again(tmp_path: Path):
    def is_whole(made: Path) -> bool:
        return (made / "content").exists()

    def make(folder: Path) -> None:
        (folder / "content").touch()

    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "half").touch()
    said: list[str] = []
    assert is_whole(make_once(tmp_path / "thing", make, said.append, is_whole))
    (aside,) = tmp_path.glob("thing.damaged-*")
    assert (aside / "half").exists()
    assert len(said) == 1 and str(aside) in said[0]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_told_with_what_to_do(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def flock(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(DataError, match=r"no file locks .* data\.cache_dir=PATH"):
        make_once(tmp_path / "thing", silent_make, silent)
    (tmp_path / "c.txt").write_text("a text")
    with pytest.raises(DataError, match="no file locks .* Choose a folder on a disk of this"):
        prepare([str(tmp_path / "c.txt")], tmp_path / "p", load_tokenizer("bytes"), 0.0)
