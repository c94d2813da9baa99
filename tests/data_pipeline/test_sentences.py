"""Whole sentences behind [sMASK]: which tokens end one, which sentences are hidden, and how often.

Token ids of the golden table: 1 [MASK], 6 [sMASK], 3 <sop>, 4 <eop>, 5 <eos>, 0 <pad>, 9 a full stop.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import ObjectiveConfig, SliceRule
from data_pipeline.corpus import Corpora
from data_pipeline.objective import Objective
from data_pipeline.opening import open_dataset
from data_pipeline.packing import pack_row
from data_pipeline.rng import rng_for
from data_pipeline.sentences import SentenceBlanks, choose_sentences, sentence_ends
from data_pipeline.tokenizer import load_tokenizer
from data_pipeline.windows import mask_windows
from tests.helpers.rows import assert_row
from tests.helpers.segments import mask_segment
from tests.helpers.tiny import SPECIAL

SM, SOP, EOP, EOS, STOP = 6, 3, 4, 5, 9
BLANKS = SentenceBlanks(replace(SPECIAL, mask=SM), np.isin(np.arange(200), [STOP, EOS]))

# Four sentences: (11 12 .), (13 . .), (14 . <eos>), (15 16), of which the second and the third are hidden, last first.
TEXT = np.array([11, 12, STOP, 13, STOP, STOP, 14, STOP, EOS, 15, 16])
ROW = {
    #         the text, two blanks        | the third sentence | the second     | padding
    "tokens": [11, 12, STOP, SM, SM, 15, 16, SOP, 14, STOP, EOS, SOP, 13, STOP, STOP, 0],
    "targets": [0, 0, 0, 0, 0, 0, 0, 14, STOP, EOS, EOP, 13, STOP, STOP, EOP, 0],
    "loss_mask": [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0],
    "position_ids": [0, 1, 2, 3, 4, 5, 6, 4, 4, 4, 4, 3, 3, 3, 3, 0],
    "block_position_ids": [0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 1, 2, 3, 4, 0],
    "segment_ids": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0],
    "is_context": [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
}
ATTENTION = """
    xxxxxxx.........
    xxxxxxx.........
    xxxxxxx.........
    xxxxxxx.........
    xxxxxxx.........
    xxxxxxx.........
    xxxxxxx.........
    xxxxxxxx........
    xxxxxxxxx.......
    xxxxxxxxxx......
    xxxxxxxxxxx.....
    xxxxxxxxxxxx....
    xxxxxxxxxxxxx...
    xxxxxxxxxxxxxx..
    xxxxxxxxxxxxxxx.
    ................
"""


def test_row_of_hidden_sentences_equals_the_hand_written_table():
    starts, ends = np.array([3, 6]), np.array([6, 9])
    segment = mask_segment(TEXT, starts, ends, np.array([1, 0]), BLANKS.special)
    assert_row(pack_row([[segment]], 16, 0, Objective.MASK, 0), ROW, ATTENTION)


def test_sentences_are_chosen_whole_and_each_as_often():
    chosen = [choose_sentences(rng_for(s), TEXT, BLANKS.is_end, 1, 9) for s in range(2000)]
    spans = [(int(starts[0]), int(ends[0])) for starts, ends in filter(None, chosen)]
    counts = [spans.count(span) for span in ((0, 3), (3, 6), (6, 9), (9, 11))]
    assert sum(counts) == 2000
    assert stats.chisquare(counts).pvalue > 0.001


@given(
    st.integers(0, 2**32),
    st.lists(st.sampled_from([11, 12, STOP, EOS]), min_size=1, max_size=60),
    st.integers(1, 30),
    st.integers(0, 9),
)
def test_enough_is_hidden_unless_there_is_no_room_and_one_sentence_stays(
    seed: int, text: list[int], budget: int, most: int
):
    tokens = np.array(text)
    chosen = choose_sentences(rng_for(seed), tokens, BLANKS.is_end, budget, most)
    num_ends = sum(
        token in (STOP, EOS) and following not in (STOP, EOS)
        for token, following in zip(text, [*text[1:], 11], strict=True)
    )
    num_sentences = num_ends + (text[-1] not in (STOP, EOS))
    if num_sentences == 1 or most == 0:
        assert chosen is None
        return
    assert chosen is not None
    starts, ends = chosen
    limit = min(most, num_sentences - 1)
    assert len(starts) <= limit
    assert (ends - starts).sum() >= budget or len(starts) == limit
    assert (ends[:-1] <= starts[1:]).all()
    for start, end in zip(starts, ends, strict=True):
        assert start == 0 or text[start - 1] in (STOP, EOS)
        assert end == len(text) or text[end - 1] in (STOP, EOS)


def sentences_of(length: int, size: int) -> np.ndarray:
    return np.where(np.arange(size) % length == length - 1, STOP, 20 + np.arange(size) % 100)


@pytest.mark.parametrize("rule", SliceRule)
def test_the_share_of_windows_is_the_asked_one_and_the_others_hide_spans(rule: SliceRule):
    objective = ObjectiveConfig(smask_share=0.3, slice_rule=rule, short_segment_probability=0)
    tokens, hidden, sentence_windows = sentences_of(12, 1824), [], 0
    for seed in range(300):
        windows, _ = mask_windows(rng_for(seed), tokens, 512, objective, SPECIAL, BLANKS)
        for segments in windows:
            marks = {int(token) for segment in segments for token in segment.tokens} & {1, SM}
            assert len(marks) == 1, "a window hides either spans or sentences"
            if marks == {SM}:
                sentence_windows += 1
                hidden.append(int(segments[0].loss_mask.sum()))
            assert sum(map(len, segments)) <= 512
    assert stats.binomtest(sentence_windows, 1200, 0.3).pvalue > 0.001
    # 15 % of 456 are 68 tokens: six sentences of 12 (or the shorter ones at the ends), and an <eop> each.
    assert 68 <= min(hidden) <= max(hidden) <= 6 * 13 + 13


def test_a_slice_of_one_sentence_hides_spans():
    objective = ObjectiveConfig(smask_share=1.0)
    windows, _ = mask_windows(rng_for(1), np.full(1824, 30), 512, objective, SPECIAL, BLANKS)
    assert all((segment.tokens != SM).all() for segments in windows for segment in segments)


def test_marks_of_both_languages_end_sentences_and_others_do_not():
    texts = ["a", ".", "end.", '."', "。", "什么？", "！」", "3.5", ",", "…\n", " ", "", "<eos>"]
    special = replace(SPECIAL, eos=12)
    ends = sentence_ends(lambda ids: texts[ids[0]], len(texts), special)
    assert [texts[token] for token in np.flatnonzero(ends)] == [
        ".",
        "end.",
        '."',
        "。",
        "什么？",
        "！」",
        "…\n",
        "<eos>",
    ]


def test_bytes_know_their_marks_and_write_smask():
    tokenizer = load_tokenizer("bytes")
    ends = sentence_ends(tokenizer.decode, tokenizer.vocab_size, tokenizer.special)
    assert np.flatnonzero(ends).tolist() == [ord("!"), ord("."), ord("?"), tokenizer.special.eos]
    assert tokenizer.decode([104, tokenizer.smask, 105]) == "h[sMASK]i"


def test_an_embedding_without_a_row_for_smask_is_refused_with_what_to_type():
    config = load_config(["model=tiny", "objective.smask_share=0.5", "model.vocab_size=264"])
    tokenizer = load_tokenizer("bytes")
    config.model.vocab_size = tokenizer.smask
    with pytest.raises(ConfigError, match=f"Try model.vocab_size={tokenizer.smask + 1};"):
        open_dataset(config, Corpora([], [], "bytes"), tokenizer, is_validation=False)
