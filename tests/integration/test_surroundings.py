"""Training where the machine gives less than usual: few open files, no user of this name, a run folder that is read-only."""

import ctypes
import json
import os
import pwd
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.preparation.prepare import prepare
from data_pipeline.tokenizer import ByteTokenizer
from tests.helpers.distributed import run_distributed
from tests.helpers.texts import sentences, write_jsonl
from tests.helpers.tiny import TEXT_RUN
from tests.helpers.whole_runs import command, compared, quietly, resumed_at, run_attempt

SMALL = (*TEXT_RUN, "optim.total_samples=32")
_STRANGER = 54_321
_KEEP_CAPABILITIES, _MAY_READ = 8, 2  # PR_SET_KEEPCAPS, CAP_DAC_READ_SEARCH
_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """220 prefixes, each with a held-out one: 880 files that training reads."""
    folder = tmp_path_factory.mktemp("shards")
    first = folder / "000"
    corpus = write_jsonl(folder / "corpus.jsonl", sentences(40))
    prepare([str(corpus)], first, ByteTokenizer(), 0.2)
    for number in range(1, 220):
        for path in [path for path in folder.glob("000.*") if path.is_file()]:
            shutil.copy(path, folder / path.name.replace("000", f"{number:03}", 1))
    return [str(folder / f"{number:03}") for number in range(220)]


def train_with_few_files(
    rank: int, world_size: int, limits: tuple[int, int], words: list[str], errors: Path
) -> int:
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return quietly(words, errors)


def test_hundreds_of_shards_are_trained_on_under_a_low_limit_of_open_files(
    many_shards: list[str], tmp_path: Path
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    words = [*SMALL, f"data.paths=[{','.join(many_shards)}]", f"run.dir={tmp_path / 'run'}"]
    errors = tmp_path / "errors.txt"
    limits = (256, hard)
    assert run_distributed(train_with_few_files, 1, limits, words, errors) == [0], (
        errors.read_text()
    )
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"


def test_a_limit_that_may_not_be_raised_is_one_message(
    many_shards: list[str], tmp_path: Path
) -> None:
    words = [*SMALL, f"data.paths=[{','.join(many_shards)}]", f"run.dir={tmp_path / 'run'}"]
    errors = tmp_path / "errors.txt"
    assert run_distributed(train_with_few_files, 1, (256, 256), words, errors) == [2]
    said = errors.read_text()
    assert "may hold 256 files open" in said and "ulimit -n" in said
    assert "Traceback" not in said


def become(user: int) -> None:
    """Give up all of root's rights but one: to read, for the libraries may lie in root's home."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0) == 0
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    version_and_pid = (ctypes.c_uint32 * 2)(0x20080522, 0)
    effective_and_permitted = (ctypes.c_uint32 * 6)(1 << _MAY_READ, 1 << _MAY_READ)
    assert libc.capset(version_and_pid, effective_and_permitted) == 0, ctypes.get_errno()


def train_as_a_stranger(rank: int, world_size: int, folder: Path, words: list[str]) -> int:
    os.chdir(folder)
    become(_STRANGER)
    with pytest.raises(KeyError):
        pwd.getpwuid(os.getuid())
    with pytest.raises(PermissionError):
        (folder.parent / "mine").mkdir()
    for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "WANDB_API_KEY"):
        os.environ.pop(name, None)
    return quietly(words, folder / "errors.txt")


@pytest.fixture
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that belongs to a user without an entry in passwd, and that this user reaches."""
    if os.geteuid() != 0:
        pytest.skip("only root can become a user that does not exist")
    folder = tmp_path_factory.mktemp("strangers")
    for path in (folder, *folder.parents):
        if not os.stat(path).st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    command(folder)  # makes the corpus
    os.chown(folder, _STRANGER, _STRANGER)
    return folder


def test_a_user_without_entry_and_home_trains_and_continues(strangers: Path) -> None:
    words = [*command(strangers, "optim.total_samples=32"), "run.name=e", "log.wandb=offline"]
    for more, code in (("run.stop_after_samples=16", 75), ("run.stop_after_samples=null", 0)):
        ended = run_distributed(train_as_a_stranger, 1, strangers, [*words, more])
        assert ended == [code], (strangers / "errors.txt").read_text()
    said = (strangers / "errors.txt").read_text()
    assert "Traceback" not in said
    assert len(compared(strangers / "runs" / "e")) == 4


def mounts_of_its_own() -> str:
    """Give this process mounts that no other sees; what is against it, or ""."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS) != 0:
        return os.strerror(ctypes.get_errno())
    return mount("--make-rprivate", "/")


def mount(*words: str) -> str:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


def make_read_only(folder: Path) -> str:
    refusal = mount("--bind", str(folder), str(folder))
    if refusal:
        return refusal
    # A checkpoint that is written in the background has files open for writing: the kernel waits for none of them.
    for _ in range(100):
        refusal = mount("-o", "remount,bind,ro", str(folder))
        if "busy" not in refusal:
            break
        time.sleep(0.1)
    return refusal


def commands_on_a_read_only_run(
    rank: int, world_size: int, run: Path, words: list[str]
) -> dict[str, tuple[int, str]] | str:
    """Exit code of each command and what it said, or why nothing can be read-only here."""
    if refusal := mounts_of_its_own() or make_read_only(run):
        return refusal
    from data_pipeline.__main__ import cli as data
    from glm.generate import cli as generate
    from launch.__main__ import cli as launch
    from train.evaluate import cli as evaluate
    from train.history.__main__ import cli as history
    from train.main import cli as train
    from train.report.__main__ import cli as report

    page, errors = str(run.parent / "page.html"), run.parent / "errors.txt"
    with open(os.devnull, "w") as quiet:
        os.dup2(quiet.fileno(), 1)
    commands: dict[str, Callable[[], int]] = {
        "train": lambda: train([*words, "optim.total_samples=64"]),
        "report": lambda: report([str(run)]),
        "history": lambda: history([str(run)]),
        "report elsewhere": lambda: report([str(run), "--output", page]),
        "evaluate": lambda: evaluate([str(run)]),
        "generate": lambda: generate([str(run), "--text", "3 times [MASK] is 12."]),
        "show": lambda: data(["show", str(run)]),
        "status": lambda: launch(["status", str(run)]),
    }
    ended = dict[str, tuple[int, str]]()
    for name, start in commands.items():
        with errors.open("w") as file:
            os.dup2(file.fileno(), 2)
        code = start()
        ended[name] = (code, errors.read_text())
    return ended


def test_a_run_on_a_read_only_disk_is_read_and_whoever_writes_says_where_else(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    words = [*command(tmp_path, "optim.total_samples=32"), f"run.dir={run}"]
    assert run_attempt(1, tuple(words)) == [0]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (ended,) = run_distributed(commands_on_a_read_only_run, 1, run, words)
    if isinstance(ended, str):
        pytest.skip(f"cannot make a folder read-only here: {ended}")
    codes = {name: code for name, (code, _) in ended.items()}
    assert codes == dict.fromkeys(ended, 0) | {"train": 2, "report": 2}, ended
    assert "Read-only file system" in ended["train"][1] and "run.dir" in ended["train"][1]
    assert "Read-only file system" in ended["report"][1] and "--output" in ended["report"][1]
    assert not any("Traceback" in said for _, said in ended.values())
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def train_until_it_is_read_only(
    rank: int, world_size: int, run: Path, words: list[str]
) -> int | str:
    from train.metrics_file import JsonlTracker

    if refusal := mounts_of_its_own():
        return refusal
    log, lines = JsonlTracker.log_metrics, list[int]()

    def log_and_lose(self: JsonlTracker, line: Any) -> None:
        log(self, line)
        lines.append(1)
        if len(lines) == 5:
            saved = run / "checkpoints" / "step_00000004" / "manifest.json"
            while not saved.is_file():  # a thread writes it; the test's own limit ends this
                time.sleep(0.05)
            assert make_read_only(run) == ""

    JsonlTracker.log_metrics = log_and_lose
    return quietly(words, run.parent / "errors.txt")


def test_a_disk_that_becomes_read_only_is_a_failure_that_launchers_start_again_after(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    words = [*command(tmp_path, "checkpoint.save_every_samples=16"), f"run.dir={run}"]
    assert run_attempt(1, (*words[:-1], f"run.dir={tmp_path / 'whole'}")) == [0]
    (code,) = run_distributed(train_until_it_is_read_only, 1, run, words)
    if isinstance(code, str):
        pytest.skip(f"cannot make a folder read-only here: {code}")
    said = (tmp_path / "errors.txt").read_text()
    assert code == 3, said
    assert "Read-only file system" in said
    # On a disk that can be written again, the same command completes the run.
    assert run_attempt(1, tuple(words)) == [0]
    assert resumed_at(run) == [32]
    assert compared(run) == compared(tmp_path / "whole")
