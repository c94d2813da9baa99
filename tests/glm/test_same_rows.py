"""A typed question is the row that training makes of it: the same fields and the same logits, for both position styles."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from configs.load import load_config
from data_pipeline.batch import collate
from data_pipeline.instructions import Record
from data_pipeline.mip_windows import mip_windows
from data_pipeline.objective import Objective
from data_pipeline.packing import pack_row
from data_pipeline.tokenizer import load_tokenizer
from glm.filling import layout_of, next_token_logits
from glm.model import GLMModel
from glm.prompt import Objectives, Prompt
from glm.row_fields import BLOCK_POSITION, CONTEXT, POSITION
from glm.score import score
from glm.tensor_parallel import whole_layers
from tests.helpers.tiny import TEXT_RUN
from train.batches import to_micro_batch

BYTES = load_tokenizer("bytes")
QUESTION, ANSWER = "2 or 3?", "yes"


@pytest.mark.parametrize("style", ["consecutive", "blank"])
@torch.no_grad()
def test_a_question_is_laid_out_as_it_was_trained(style: str) -> None:
    words = ["model.seq_length=128", "data.instructions=[q.jsonl]"]
    config = load_config(
        [*TEXT_RUN, *words, f"objective.mip_positions={style}", "objective.windows_per_row=4"]
    )
    prompt, target = (np.array(BYTES.encode(text)) for text in (QUESTION, f" {ANSWER}"))
    windows = mip_windows([Record(prompt, target)] * 4, 32, config.objective, BYTES.special)
    trained_row = pack_row(windows, 128, BYTES.special.pad, Objective.MIP, 0)
    (tokens, fields), _ = to_micro_batch(collate([trained_row]), np.ones(1, np.float32))

    objectives = Objectives.of(config)
    row = Prompt.parse(f"{QUESTION} [MASK]").blanks(BYTES, objectives)
    row.spans.append(target.tolist())
    asked, asked_layout = layout_of([row], BYTES.special)
    length = asked.shape[1]
    assert asked[0].tolist() == tokens[0, :length].tolist()
    for field in (POSITION, BLOCK_POSITION, CONTEXT):
        assert asked_layout[0, field].tolist() == fields[0, field, :length].tolist()
    positions = asked_layout[0, POSITION, len(row.context) :].tolist()
    first = len(row.context)
    expected = range(first, first + len(target) + 1)
    assert positions == (list(expected) if style == "consecutive" else [first - 1] * len(expected))

    with whole_layers():
        model = GLMModel(config.model, 1).eval()
    model_of: Any = SimpleNamespace(model=model, tokenizer=BYTES, objectives=objectives)
    in_training = model(tokens, fields)[: len(target) + 1]
    scored = score(model_of, f"{QUESTION} [MASK]", [ANSWER])
    assert scored.tokens.tolist() == [*target, BYTES.special.eop]
    torch.testing.assert_close(scored.logits, in_training, rtol=0, atol=2e-6)
    # The next token of an unfinished answer is scored by the same numbers.
    row.spans[-1] = target[:2].tolist()
    (following,) = next_token_logits(model, [row], BYTES.special)
    torch.testing.assert_close(following, in_training[2], rtol=0, atol=2e-6)
