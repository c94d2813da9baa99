"""What commands print fits a terminal of 80 columns: a longer line would be broken inside of a word."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from configs.document import documented_keys
from configs.folding import shown_width
from configs.help import answer
from configs.keys import GROUPS
from configs.terminal import tell
from data_pipeline.__main__ import cli as data
from data_pipeline.preparation.progress import Bar, line
from launch.usage import HELP

WIDTH = 80
HELPS = [
    ("launch.__main__", []),
    *(("launch.__main__", [name]) for name in HELP),
    ("train.dryrun.__main__", []),
    ("train.preflight.__main__", []),
    ("train.torchrun", []),
    ("train.report.__main__", []),
    ("train.history.__main__", []),
    ("train.profile.__main__", []),
    ("train.dashboard.__main__", []),
    ("train.evaluate", []),
    ("glm.generate", []),
    ("train.main", []),
    ("data_pipeline.__main__", []),
    *(
        ("data_pipeline.__main__", [name])
        for name in ("prepare", "merge", "train-tokenizer", "show", "stats", "verify")
    ),
]


@pytest.fixture(autouse=True)
def columns_of_a_new_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))


def too_long(text: str) -> list[str]:
    return [line for line in text.split("\n") if shown_width(line) > WIDTH]


@pytest.mark.parametrize(("module", "words"), HELPS)
def test_every_help_fits(module: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = import_module(module).cli([*words, "--help"])
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert len(out.splitlines()) > 3
    assert not too_long(out)


def test_every_group_and_key_fits() -> None:
    sections = {key.name.rpartition(".")[0] for key in documented_keys()} - {""}
    text = answer([*sections, *GROUPS, *(key.name for key in documented_keys())])
    assert "optim.lr" in text
    assert not too_long(text)


def _documents(*texts: str) -> str:
    """The texts many times, each document another one."""
    return "\n".join(f"{number} {text}" for number in range(60) for text in texts) + "\n"


def be_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let standard output and error be terminals; called by the test, for its streams are not those of fixtures."""
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)


def test_what_is_said_of_data_fits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    be_a_terminal(monkeypatch)
    monkeypatch.chdir(tmp_path)
    english = "An abstract base class for the many readers of a stream of lines, quickly. "
    chinese = "如果没有指定文件则从标准输入读取并且输出到标准输出。"
    (tmp_path / "corpus.txt").write_text(_documents(english * 4, chinese * 9), "utf-8")
    prefix = "shards/" + "a-long-name-of-a-corpus" * 2
    made = ["prepare", "corpus.txt", "--output", prefix, "--tokenizer", "bytes", "--workers", "1"]
    assert data(made) == 0
    capsys.readouterr()
    for words in (
        ["show", prefix, "--objective", "mask"],
        ["show", prefix, "--objective", "gmask"],
        ["stats", prefix, "--to", "20"],
        ["verify", prefix],
    ):
        assert data(words) == 0
        out, err = capsys.readouterr()
        assert (len(out.splitlines()) > 2, err) == (True, ""), words
        assert not too_long(out), words


def test_a_text_that_is_no_terminals_is_not_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus.txt").write_text(_documents("a long line of some words " * 20))
    prefix = str(tmp_path / "shards")
    assert data(["prepare", str(tmp_path / "corpus.txt"), "--output", prefix, "--tokenizer", "bytes"]) == 0  # fmt: skip
    capsys.readouterr()
    assert data(["show", prefix]) == 0
    assert too_long(capsys.readouterr().out)


def test_progress_of_a_preparation_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be_a_terminal(monkeypatch)
    assert not too_long(line(10**15, 10**14, 10**14, 1e6))
    bar = Bar()
    bar.start(10**9)
    bar.note("a/long/name/of/a/corpus.jsonl, line 7: there is no field text in this record " * 2)
    bar.stop()
    shown = capsys.readouterr().out
    notes = [each for each in shown.split("\n") if "corpus" in each or "record" in each]
    assert len(notes) > 1
    assert not too_long("\n".join(each[each.rfind("\x1b[2K") + 4 :] for each in notes))


def test_several_problems_are_told_in_lines_that_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be_a_terminal(monkeypatch)
    problem = (
        "parallel.tp (9) must divide model.num_heads (4), which it does not. Try parallel.tp=4."
    )
    tell(f"2 problems:\n  1. {problem}\n  2. {problem}")
    out = capsys.readouterr().out
    assert not too_long(out)
    assert [each[:5] for each in out.splitlines()] == ["2 pro", "  1. ", "     ", "  2. ", "     "]
