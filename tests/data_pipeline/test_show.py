"""What a person sees of a sample."""

import numpy as np

from data_pipeline.blanks import gmask_segment, mask_segment
from data_pipeline.objective import Objective
from data_pipeline.packing import pack_row
from data_pipeline.show import render
from tests.helpers.streams import SPECIAL

WORDS = ["the", "cat", "sat", "on", "a", "mat", "."]
NAMES = {1: "[MASK]", 2: "[gMASK]", 3: "<sop>", 4: "<eop>", 5: "<eos>", 0: "<pad>"}


class Words:
    """A tokenizer of seven words."""

    special = SPECIAL

    def decode(self, ids: list[int]) -> str:
        return " ".join(NAMES.get(number) or WORDS[number - 100] for number in ids)


def test_mask_sample_shows_each_target_beside_its_blank():
    starts, ends, order = np.array([1, 5]), np.array([3, 6]), np.array([1, 0])
    first = mask_segment(np.arange(100, 107), starts, ends, order, SPECIAL)
    second = mask_segment(
        np.array([104, 105]), np.array([0]), np.array([1]), np.array([0]), SPECIAL
    )
    sample = pack_row([[first], [second]], 32, 0, Objective.MASK, index=17, redraws=1)
    assert render(sample, Words()) == (  # type: ignore[arg-type]
        "sample 17: [MASK], 32 tokens, 7 targets, 17 padding, 1 plans redrawn\n"
        "\n"
        "segment 1: tokens 0 to 10, 6 context, 5 target\n"
        "  context: the [MASK] on a [MASK] .\n"
        "  blank 2 of 2 (position 4): <sop> -> mat <eop>\n"
        "  blank 1 of 2 (position 1): <sop> -> cat sat <eop>\n"
        "\n"
        "segment 2: tokens 16 to 19, 2 context, 2 target\n"
        "  context: [MASK] mat\n"
        "  blank 1 of 1 (position 0): <sop> -> a <eop>"
    )


def test_gmask_sample_shows_the_continuation():
    sample = pack_row(
        [[gmask_segment(np.arange(100, 107), 3, SPECIAL)]], 8, 0, Objective.GMASK, index=2
    )
    assert render(sample, Words()) == (  # type: ignore[arg-type]
        "sample 2: [gMASK], 8 tokens, 4 targets, 0 padding, 0 plans redrawn\n"
        "\n"
        "segment 1: tokens 0 to 7, 4 context, 4 target\n"
        "  context: the cat sat [gMASK]\n"
        "  after the context (positions 4 to 7): <sop> -> on a mat ."
    )
