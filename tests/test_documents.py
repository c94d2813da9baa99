"""README, CONTRIBUTING and docs name what exists: files of the repository, headings, and keys of the configuration."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.document import documented_keys
from configs.run_paths import LOG
from tests.helpers.places import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("configs", "data_pipeline", "glm", "train", "launch", "tests", "docs", "benchmarks")
KEYS = {key.name for key in documented_keys()}
GROUPS = {name.rpartition(".")[0] for name in KEYS} - {""}
# `train/` is also the first part of a metric's name.
_METRIC = re.compile(r"train/(\*|loss\w*)")
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w")
_KEY = re.compile(rf"(?<![\w/.-])(?:{'|'.join(sorted(GROUPS))})\.[a-z][a-z_0-9.]*\w(?![\w(/*])")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}


def broken_links(page: Path) -> Iterator[str]:
    """Relative links that lead to no file, or to no heading of it."""
    for link in _LINK.findall(page.read_text("utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not link.startswith("https://") and (
            not target.exists() or (anchor and anchor not in anchors(target))
        ):
            yield link


def absent_files(text: str) -> Iterator[str]:
    """Paths between backticks that are no file, module or folder of the repository."""
    for code in _CODE.findall(text):
        for path in _PATH.findall(_METRIC.sub("", code)):
            if not ((ROOT / path).exists() or (ROOT / f"{path}.py").exists()):
                yield path


def unknown_keys(text: str) -> Iterator[str]:
    """Words between backticks that look like keys and are neither a key nor a group."""
    for code in _CODE.findall(text):
        yield from (key for key in _KEY.findall(code) if key not in KEYS | GROUPS | {LOG})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_files_and_keys_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    assert [*broken_links(page), *absent_files(text), *unknown_keys(text)] == []


def test_what_does_not_exist_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Its title\n[a](gone.md) [b](#its-title) [c](page.md#another) [d](https://x.org)\n"
    )
    assert list(broken_links(page)) == ["gone.md", "page.md#another"]
    assert list(absent_files("`train/loop.py`, `glm/gone.py:3`, `train/loss_mask`")) == [
        "glm/gone.py"
    ]
    assert list(unknown_keys("`optim.lr=1 optim.rate=1`, `log.txt`, `model`")) == ["optim.rate"]
