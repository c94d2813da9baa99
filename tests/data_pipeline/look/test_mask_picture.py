"""The drawn areas are the attention mask, token by token; a long row stays a small picture."""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from configs.schema import Documents, ObjectiveConfig
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.look.explain import explain
from data_pipeline.look.mask_picture import OWN_SPAN, areas, draw
from data_pipeline.packing import attention_mask
from data_pipeline.tokenizer import Tokenizer
from tests.helpers.streams import DocumentStream
from tests.helpers.tiny import SPECIAL

TOKENIZER = cast(Tokenizer, SimpleNamespace(special=SPECIAL, smask=9))
OBJECTIVE = ObjectiveConfig(short_segment_probability=0.3)


ISOLATED = replace(OBJECTIVE, documents=Documents.isolated)


def explained(seq_length: int, index: int, objective: ObjectiveConfig = OBJECTIVE):
    source = Source("text", DocumentStream(50_000, 23))
    dataset = GLMDataset([source], SPECIAL, objective, seq_length, 7)
    return explain(dataset, index, objective, TOKENIZER)


@pytest.mark.parametrize("objective", [OBJECTIVE, ISOLATED])
@pytest.mark.parametrize("index", range(20))
def test_areas_are_the_attention_mask(index: int, objective: ObjectiveConfig):
    found = explained(128, index, objective)
    seen = np.zeros((128, 128), dtype=int)
    for segment in found.segments:
        for area in areas(segment):
            for row in area.rows:
                columns = [c for c in area.columns if not area.is_stairs or c <= row]
                if area.kind == OWN_SPAN:
                    assert seen[row, columns].all(), "a blank's own area lies inside its targets'"
                else:
                    seen[row, columns] += 1
    assert (seen == attention_mask(found.sample)).all()


def test_drawn_shapes_are_the_areas():
    found = explained(64, 0)
    picture = draw(found.segments, 64, found.window_length)
    seen = np.zeros((64, 64), dtype=bool)
    for x, y, width, height in re.findall(
        r'x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', picture
    ):
        seen[int(y) : int(y) + int(height), int(x) : int(x) + int(width)] = True
    for x, y, stairs, back in re.findall(r'd="M(\d+),(\d+)((?:h1v1)+)H(\d+)z"', picture):
        assert x == back
        for step in range(len(stairs) // 4):
            seen[int(y) + step, int(x) : int(x) + step + 1] = True
    assert (seen == attention_mask(found.sample)).all()


def test_a_row_of_2048_stays_small():
    sizes = [len(draw(explained(2048, index).segments, 2048, 512)) for index in range(10)]
    assert max(sizes) < 20_000
