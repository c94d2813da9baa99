"""What a trained model makes of given words: their logits, and how improbable it finds them.

    from glm.score import score
    scored = score(model, tokenizer, "Return a[MASK] of the list.", [" copy"])
    scored.loss, scored.logits

The row is the one of training: the text with its blanks, then each answer behind `<sop>`, in the order of the blanks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.errors import DataError
from data_pipeline.tokenizer import Tokenizer
from glm.layout import pack_layout
from glm.model import GLMModel

MASK, GMASK = "[MASK]", "[gMASK]"


@dataclass(frozen=True)
class Scored:
    """What was expected at each place of the answers."""

    tokens: Tensor
    """(answers' tokens,) ids, in order; each answer to a [MASK] ends with <eop>."""
    logits: Tensor
    """(answers' tokens, vocab) fp32: row i was computed before the model read token i."""

    @property
    def losses(self) -> Tensor:
        """(answers' tokens,) negative log-likelihoods, in nats."""
        return torch.nn.functional.cross_entropy(self.logits, self.tokens, reduction="none")

    @property
    def loss(self) -> float:
        """Their mean, as training and evaluation report it for a row."""
        return float(self.losses.mean())


@torch.no_grad()
def score(model: GLMModel, tokenizer: Tokenizer, text: str, answers: Sequence[str]) -> Scored:
    """Score the answers to the blanks of a text.

    Args:
        model: in evaluation mode.
        tokenizer: the one that it was trained with.
        text: with `[MASK]` blanks, or one `[gMASK]` at its end.
        answers: for each blank, with the white space that stands before it in the text.

    Raises:
        DataError: there is no blank, there are others than the answers, or the row is longer than the model's.
    """
    special = tokenizer.special
    marker, mask = (GMASK, special.gmask) if GMASK in text else (MASK, special.mask)
    pieces = text.split(marker)
    if len(pieces) != len(answers) + 1 or not answers:
        raise DataError(
            f"The text has {len(pieces) - 1} {marker} blanks and {len(answers)} answers. Give one answer for each."
        )
    if marker == GMASK and (len(answers) > 1 or pieces[1].strip() or MASK in text):
        raise DataError(f"{GMASK} continues a text, so it may stand only once, at the end.")
    context: list[int] = []
    blanks: list[int] = []
    for piece in pieces[:-1]:
        context += tokenizer.encode(piece)
        blanks.append(len(context))
        context.append(mask)
    context += tokenizer.encode(pieces[-1])
    row, positions, blocks = list(context), list(range(len(context))), [0] * len(context)
    targets: list[int] = []
    for blank, answer in zip(blanks, answers, strict=True):
        span = tokenizer.encode(answer)
        if marker == GMASK and not span:
            raise DataError("An empty continuation has no tokens to score.")
        ends = span + [special.eop] if marker == MASK else span
        start = len(row)
        row += [special.sop, *ends[:-1]]
        targets += ends
        positions += range(start, len(row)) if marker == GMASK else [blank] * len(ends)
        blocks += range(1, len(ends) + 1)
    if len(row) > model.config.seq_length:
        raise DataError(
            f"The text and its answers have {len(row)} tokens; the model was trained on rows of "
            f"{model.config.seq_length}. Give shorter ones."
        )
    size = len(row)
    is_context = torch.arange(size) < len(context)
    layout = pack_layout(
        torch.ones(1, size, dtype=torch.int64),
        is_context[None],
        torch.tensor([positions]),
        torch.tensor([blocks]),
        ~is_context[None],
        torch.zeros(1, dtype=torch.int64),
    )
    logits = model(torch.tensor([row]), layout).float()
    return Scored(torch.tensor(targets), logits)
