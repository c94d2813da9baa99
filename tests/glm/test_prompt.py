"""A text as people type it becomes the row that training lays out, and comes back with its blanks filled."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from configs.load import load_config
from data_pipeline.blanks import Segment, gmask_segment, mip_segment
from data_pipeline.tokenizer import load_tokenizer
from glm.prompt import Blanks, Objectives, Prompt, span_text
from tests.helpers.segments import mask_segment
from tests.helpers.texts import sentencepiece_model
from tests.helpers.tiny import SPECIAL

BYTES = load_tokenizer("bytes")


def filled(text: str, *spans: str) -> str:
    return "".join(part.text for part in Prompt.parse(text).filled(spans))


@pytest.mark.parametrize(
    ("text", "spans", "whole"),
    [
        ("Return a [MASK] of the list.", [" string"], "Return a string of the list."),
        ("Return a [MASK] of the list.", ["string"], "Return a string of the list."),
        ("Return a[MASK] of the list.", [" string"], "Return a string of the list."),
        ("Return a[MASK] of the list.", ["n item"], "Return an item of the list."),
        ("If the [MASK] is not, [MASK] is.", [" key", " it "], "If the key is not, it is."),
        ("[MASK] is raised.", [" ValueError"], "ValueError is raised."),
        (
            "\u5982\u679c\u6ca1\u6709[MASK]\uff0c",
            ["\u6307\u5b9a"],
            "\u5982\u679c\u6ca1\u6709\u6307\u5b9a\uff0c",
        ),
        ("f([MASK], [MASK])", ["x", " y"], "f(x, y)"),
        ("Once upon a time [gMASK]\n", [" there was"], "Once upon a time there was"),
        ("A line [gMASK]", ["\nAnother"], "A line\nAnother"),
        ("Nothing [MASK] here, nor [MASK].", ["", ""], "Nothing here, nor."),
        ("Nothing [gMASK]", [""], "Nothing"),
        (":param [MASK]: shown", [":\n   "], ":param :\n: shown"),
        ("a [MASK]list", [" long "], "a long list"),
        ("a  b   c  [MASK]   d    e", [" x"], "a  b   c  x   d    e"),
    ],
)
def test_a_blank_before_a_marker_is_there_once(text: str, spans: list[str], whole: str) -> None:
    assert filled(text, *spans) == whole


def test_what_was_filled_in_is_known_from_what_was_typed() -> None:
    parts = Prompt.parse("a [MASK] of [MASK]").filled([" b", " c"])
    assert [part.text for part in parts if part.is_filled] == ["b", "c"]
    assert [part.text for part in parts if not part.is_filled] == ["a ", " of ", ""]


def test_the_context_is_the_same_with_and_without_the_blank() -> None:
    typed, joined = (
        Prompt.parse(text).blanks(BYTES, Objectives())
        for text in ("a [MASK] of [MASK], too", "a[MASK] of[MASK], too")
    )
    assert typed == joined
    mask = BYTES.special.mask
    assert typed.context == [*b"a", mask, *b" of", mask, *b", too"]
    assert typed.blank_positions == [1, 5]


@pytest.mark.parametrize(
    "text", ["no marker", "[MASK] and [gMASK]", "[gMASK] first", "[gMASK] twice [gMASK]"]
)
def test_markers_that_make_no_row_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"\[gMASK\]"):
        Prompt.parse(text)


def test_sentences_are_filled_by_who_was_trained_to() -> None:
    prompt = Prompt.parse("One. [sMASK] Three.")
    with pytest.raises(DataError, match="smask_share=0"):
        prompt.blanks(BYTES, Objectives())
    row = prompt.blanks(BYTES, Objectives(hides_sentences=True))
    assert row.context[row.blank_positions[0]] == BYTES.smask and not row.goes_on


def test_answers_stand_where_the_run_was_taught_to_put_them() -> None:
    told = Objectives(answers_go_on=True)
    assert Prompt.parse("Two and two? [MASK]").blanks(BYTES, told).goes_on
    # A blank inside a text is a short blank, whatever else the run was taught.
    assert not Prompt.parse("Two [MASK] two").blanks(BYTES, told).goes_on
    assert not Prompt.parse("[MASK] or [MASK]").blanks(BYTES, told).goes_on
    assert not Prompt.parse("Two and two? [MASK]").blanks(BYTES, Objectives()).goes_on


def test_what_a_run_was_taught_stands_in_its_configuration() -> None:
    plain = Objectives.of(load_config([], 1))
    assert plain == Objectives()
    words = ["data.instructions=[q.jsonl]", "objective.smask_share=0.1"]
    assert Objectives.of(load_config(words, 1)) == Objectives(True, True)
    words = ["data.instructions=[q.jsonl]", "objective.mip_positions=blank"]
    assert Objectives.of(load_config(words, 1)) == Objectives()


def check_same_row(row: Blanks, segment: Segment) -> None:
    """The row holds what is known once all targets are; the last span's end is only ever predicted."""
    found = row.segment(SPECIAL)
    for name in ("tokens", "position_ids", "block_position_ids", "is_context", "loss_mask"):
        assert getattr(found, name).tolist() == getattr(segment, name).tolist(), name
    # A long blank is cut off and does not end.
    assert found.targets[:-1].tolist() == segment.targets[:-1].tolist()
    assert found.targets[-1] == SPECIAL.eop


def test_blanks_behind_the_one_that_is_filled_stay_blanks_and_spans_may_be_empty() -> None:
    mask, sop = SPECIAL.mask, SPECIAL.sop
    row = Blanks([7, mask, 8, mask, mask], [1, 3, 4], False, [[], [50, 51]])
    found = row.segment(SPECIAL)
    assert found.tokens.tolist() == [7, mask, 8, mask, mask, sop, sop, 50, 51]
    assert found.position_ids.tolist() == [0, 1, 2, 3, 4, 1, 3, 3, 3]
    assert found.block_position_ids.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 3]
    assert found.targets[5:].tolist() == [SPECIAL.eop, 50, 51, SPECIAL.eop]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_short_blanks_are_laid_out_as_in_training(pieces: list[tuple[int, int]], end: int) -> None:
    """Pieces: visible tokens before a span, at least one between two, and its length."""
    stored, context, starts, ends, spans, places = [], [], [], [], [], []
    for number, (visible, hidden) in enumerate(pieces):
        shown = list(range(100, 100 + visible + (number > 0)))
        span = list(range(200, 200 + hidden))
        context += shown
        places.append(len(context))
        context.append(SPECIAL.mask)
        stored += shown
        starts.append(len(stored))
        stored += span
        ends.append(len(stored))
        spans.append(span)
    tail = list(range(300, 300 + end))
    row = Blanks([*context, *tail], places, False, spans)
    order = np.arange(len(starts))
    segment = mask_segment(
        np.array([*stored, *tail]), np.array(starts), np.array(ends), order, SPECIAL
    )
    check_same_row(row, segment)


@given(st.integers(0, 6), st.integers(1, 6))
def test_long_blanks_are_laid_out_as_in_training(visible: int, hidden: int) -> None:
    tokens = np.arange(100, 100 + visible + hidden)
    segment = gmask_segment(tokens, visible, SPECIAL)
    context = [*tokens[:visible].tolist(), SPECIAL.gmask]
    # The last token of a long blank is predicted, and nothing behind it.
    check_same_row(Blanks(context, [visible], True, [tokens[visible:-1].tolist()]), segment)


@given(st.integers(0, 6), st.integers(1, 6), st.booleans())
def test_answers_are_laid_out_as_in_training(asked: int, answered: int, goes_on: bool) -> None:
    prompt, target = np.arange(100, 100 + asked), np.arange(200, 200 + answered)
    segment = mip_segment(prompt, target, SPECIAL, is_consecutive=goes_on)
    row = Blanks([*prompt.tolist(), SPECIAL.mask], [asked], goes_on, [target.tolist()])
    check_same_row(row, segment)


def test_text_behind_a_blank_has_the_tokens_of_training(tmp_path: Path) -> None:
    path = tmp_path / "prefix.model"
    path.write_bytes(sentencepiece_model(remove_extra_whitespaces=False))
    tokenizer = load_tokenizer(f"sp:{path}")
    blanks = Prompt.parse("the cat [MASK] on a[MASK] mat").blanks(tokenizer, Objectives())
    whole, mask = tokenizer.encode("the cat sat on a red mat"), tokenizer.special.mask
    hidden = [tokenizer.encode(word, is_continuation=True) for word in (" sat", " red")]
    first, second = blanks.blank_positions
    between = blanks.context[first + 1 : second]
    joined = [*blanks.context[:first], *hidden[0], *between, *hidden[1]]
    assert [*joined, *blanks.context[second + 1 :]] == whole
    assert blanks.context[first] == blanks.context[second] == mask
    assert tokenizer.decode(blanks.context) == "the cat[MASK] on a[MASK] mat"
    spans = [span_text(tokenizer, span) for span in hidden]
    assert spans == [" sat", " red"] and filled("the cat [MASK] on", spans[0]) == "the cat sat on"
