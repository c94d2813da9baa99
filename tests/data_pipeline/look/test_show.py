"""What a person sees of a sample, as text and as a page."""

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from configs.schema import ObjectiveConfig
from data_pipeline.blanks import gmask_segment
from data_pipeline.dataset import Source
from data_pipeline.look.explain import Explanation, explain
from data_pipeline.look.show import describe_pieces, render
from data_pipeline.look.show_html import pieces_of_text, render_page
from data_pipeline.objective import Objective
from data_pipeline.packing import Sample, pack_row
from data_pipeline.rows import Row
from data_pipeline.storage.document_index import DocumentSlice
from data_pipeline.tokenizer import ByteTokenizer
from tests.helpers.segments import mask_segment
from tests.helpers.streams import CountingStream
from tests.helpers.tiny import SPECIAL

WORDS = ["the", "cat", "sat", "on", "a", "mat", ".", "dogs", "bark"]
NAMES = {1: "[MASK]", 2: "[gMASK]", 3: "<sop>", 4: "<eop>", 5: "<eos>", 0: "<pad>"}


class Words:
    """A tokenizer of nine words."""

    special = SPECIAL
    smask = 9

    def decode(self, ids: list[int]) -> str:
        return " ".join(NAMES.get(number) or WORDS[number - 100] for number in ids)


class OneSample:
    """A data set of one sample, read from the beginning of a stream of nine tokens."""

    def __init__(self, sample: Sample, length: int) -> None:
        self.sample = sample
        row = Row(sample.objective, 0, length, epoch=3, number=1)
        self.place = (Source("words", CountingStream(9)), row)

    def __getitem__(self, index: int) -> Sample:
        return self.sample

    def locate(self, index: int) -> tuple[Source, Row]:
        return self.place


def mask_sample() -> Explanation:
    starts, ends, order = np.array([1, 5]), np.array([3, 6]), np.array([1, 0])
    first = mask_segment(np.arange(100, 107), starts, ends, order, SPECIAL)
    second = mask_segment(
        np.array([107, 108]), np.array([0]), np.array([1]), np.array([0]), SPECIAL
    )
    sample = pack_row([[first, second]], 32, 0, Objective.MASK, index=17, redraws=1)
    objective = ObjectiveConfig(windows_per_row=1)
    return explain(OneSample(sample, 9), 17, objective, Words())


def gmask_sample() -> Explanation:
    segment = gmask_segment(np.arange(100, 109), 3, SPECIAL)
    sample = pack_row([[segment]], 12, 0, Objective.GMASK, index=2)
    return explain(OneSample(sample, 9), 2, ObjectiveConfig(), Words())


def test_mask_sample_shows_each_target_beside_its_blank():
    assert render(mask_sample(), Words(), [("used", "as trained sample 17")]) == (
        "sample 17: [MASK], 32 tokens in 1 window, 2 segments, 7 targets, 17 padding, 1 plan redrawn\n"
        "\n"
        "source     words, epoch 3, row 1 of it\n"
        "tokens     0 to 9 of 9\n"
        "used       as trained sample 17\n"
        "\n"
        "segment 1 (window 1): tokens 0 to 10, 6 context, 5 target\n"
        "  context: the [MASK] on a [MASK] .\n"
        "  blank 2 of 2 (position 4): <sop> -> mat <eop>\n"
        "  blank 1 of 2 (position 1): <sop> -> cat sat <eop>\n"
        "\n"
        "segment 2 (window 1): tokens 11 to 14, 2 context, 2 target\n"
        "  context: [MASK] bark\n"
        "  blank 1 of 1 (position 0): <sop> -> dogs <eop>"
    )


def test_gmask_sample_shows_the_continuation():
    assert render(gmask_sample(), Words(), []) == (
        "sample 2: [gMASK], 12 tokens in 1 window, 1 segment, 6 targets, 2 padding, 0 plans redrawn\n"
        "\n"
        "source     words, epoch 3, row 1 of it\n"
        "tokens     0 to 9 of 9\n"
        "\n"
        "segment 1 (window 1): tokens 0 to 9, 4 context, 6 target\n"
        "  context: the cat sat [gMASK]\n"
        "  after the context (positions 4 to 9): <sop> -> on a mat . dogs bark"
    )


def test_documents_are_named_few_by_few():
    pieces = [DocumentSlice(7, 3, 9, 9), DocumentSlice(8, 0, 1, 1), DocumentSlice(9, 0, 2, 5)]
    assert describe_pieces(pieces) == (
        "document 7 (tokens 3 to 9 of 9); document 8 (whole, 1 token); document 9 (tokens 0 to 2 of 5)"
    )
    many = [
        DocumentSlice(7, 3, 9, 9),
        *(DocumentSlice(number, 0, 4, 4) for number in range(8, 20)),
        DocumentSlice(20, 0, 2, 5),
    ]
    assert describe_pieces(many) == (
        "document 7 (tokens 3 to 9 of 9); ... 12 documents ...; document 20 (tokens 0 to 2 of 5)"
    )


class Page(HTMLParser):
    """Reads a page strictly: tags are closed in order, links lead somewhere, text is kept by class."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.titles: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.ids |= {str(values["id"])} if "id" in values else set()
        self.links |= {str(values["href"])} if "href" in values else set()
        assert "src" not in values
        if title := values.get("title"):
            self.titles.append(title)
        if tag not in ("meta", "br", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("make", [mask_sample, gmask_sample])
def test_page_stands_alone_and_its_links_lead_somewhere(make):
    page = Page(render_page(make(), Words(), []))
    assert "script" not in page.tags
    assert page.links
    assert {link.removeprefix("#") for link in page.links} <= page.ids


def test_page_tells_every_token_with_its_numbers():
    page = Page(render_page(mask_sample(), Words(), []))
    text = re.sub(r"\s+", " ", " ".join(page.texts))
    assert "segment 1 (window 1): tokens 0 to 10, 6 context, 5 target" in text
    assert "predicts token 105; place 6, position 4" in page.titles
    assert "token 104; place 3, position 3" in page.titles


def test_text_is_escaped():
    class Angry(Words):
        def decode(self, ids: list[int]) -> str:
            return "".join('<b>&"' for _ in ids)

    page = render_page(mask_sample(), Angry(), [("used", "<i>")])
    Page(page)
    assert "<i>" not in page
    assert html.escape('<b>&"') in page


def test_tokens_of_one_character_stay_together_and_nothing_is_lost():
    tokenizer = ByteTokenizer()
    text = "a\u4e2d\u6587 b\U0001f600"
    ids = [*tokenizer.encode(text), tokenizer.special.eop, *tokenizer.encode("c")]
    pieces = pieces_of_text(tokenizer, ids)
    assert [piece for _, piece in pieces] == [*text, "<eop>", "c"]
    assert [place for group, _ in pieces for place in group] == list(range(len(ids)))
    broken = pieces_of_text(tokenizer, ids[:2])
    assert "".join(piece for _, piece in broken) == tokenizer.decode(ids[:2])
