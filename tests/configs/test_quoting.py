"""Lists that a message or a page tells to type are quoted for the shell."""

from pathlib import Path

import pytest

from configs.quoting import quoted_lists
from configs.terminal import tell
from tests.helpers.places import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("Try data.paths=[a,b].", "Try 'data.paths=[a,b]'."),
        ("data.stages=[[0,1],[5,2]] seed=1", "'data.stages=[[0,1],[5,2]]' seed=1"),
        ("a=[1] b.c=[2]", "'a=[1]' 'b.c=[2]'"),
        ("Try cluster.sbatch_options=['--X'].", "Try \"cluster.sbatch_options=['--X']\"."),
    ],
)
def test_lists_are_quoted(text: str, quoted: str) -> None:
    assert quoted_lists(text) == quoted
    assert quoted_lists(quoted) == quoted


@pytest.mark.parametrize("text", ["data.paths ([]) must", "a=[open", "--option 'eos=[STOP]'", "x"])
def test_everything_else_stays(text: str) -> None:
    assert quoted_lists(text) == text


def test_messages_are_quoted_where_they_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    tell("Try data.skip_samples=[[1,2]].")
    assert capsys.readouterr().out == "Try 'data.skip_samples=[[1,2]]'.\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_quote_what_they_tell_to_type(page: Path) -> None:
    text = page.read_text("utf-8")
    assert quoted_lists(text) == text
