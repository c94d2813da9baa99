"""Texts with markup, quotes and terminal escapes stay text: in show, show --html and the history of a run."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from data_pipeline.__main__ import cli as data
from tests.helpers.report_runs import make_run
from train.history.__main__ import cli as history

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> \"'` \x1b[31m\x1b]0;title\x07\u202e\x9b2J end"


class Parsed(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of a hostile corpus, in a file of a hostile name."""
    folder = tmp_path_factory.mktemp("hostile")
    corpus = folder / "corpus.jsonl"
    lines = [json.dumps({"text": f"{number} {HOSTILE} " * 12}) for number in range(60)]
    corpus.write_text("\n".join(lines) + "\n")
    prefix = str(folder / "<b>shards\x1b[31m")
    assert data(["prepare", str(corpus), "--output", prefix, "--tokenizer", "bytes"]) == 0
    return prefix


@pytest.mark.parametrize("objective", ["mask", "gmask"])
def test_a_sample_is_shown_without_its_escapes(
    prefix: str, objective: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert data(["show", prefix, "--objective", objective]) == 0
    shown, said = capsys.readouterr()
    for text in (shown, said):
        assert not set("\x1b\x07\u202e\x9b") & set(text)
    assert "<script>" in shown or "onerror" in shown
    assert r"\x1b" in shown


def test_the_page_of_a_sample_has_no_element_of_the_data(
    prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    for objective in ("mask", "gmask"):
        assert data(["show", prefix, "--objective", objective, "--html", str(page)]) == 0
        text = page.read_text("utf-8")
        parsed = Parsed(text)
        assert not parsed.tags & {"script", "img"}
        assert not [name for name in parsed.attributes if name.startswith("on")]
        assert "onerror=alert(1)" in parsed.text
        assert not set("\x1b\x07\u202e\x9b") & set(text)
    capsys.readouterr()


def test_the_history_of_a_run_is_told_without_escapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run\x1b[31m", 100, HOSTILE)
    assert history([str(run)]) == 0
    shown, said = capsys.readouterr()
    assert said == ""
    assert not set("\x1b\x07\u202e\x9b") & set(shown)
    assert shown.count("onerror=alert(1)") >= 5 and r"\x1b[31m" in shown
