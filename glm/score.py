"""Score given answers with a trained model: the logits of their tokens, and their negative log-likelihoods.

    from glm.filling import Trained
    from glm.score import score
    scored = score(Trained.load("runs/default"), "Return a [MASK] of the list.", ["copy"])
    scored.loss, scored.logits

The row is the one of training: the text with its blanks, then each answer behind `<sop>`, in the order of the blanks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.errors import DataError
from data_pipeline.special_tokens import GMASK_TEXT
from glm.filling import Trained, layout_of
from glm.prompt import Prompt
from glm.row_fields import TARGET


@dataclass(frozen=True)
class Scored:
    """What the model predicted at each token of the answers."""

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
        """Mean of the losses, as training and evaluation report it for a row."""
        return float(self.losses.mean())


@torch.no_grad()
def score(trained: Trained, text: str, answers: Sequence[str]) -> Scored:
    """Score the answers to the blanks of a text.

    Args:
        trained: model and tokenizer.
        text: with `[MASK]` blanks, or one `[gMASK]` at its end.
        answers: one for each blank; a space typed before a marker belongs to its answer.

    Raises:
        DataError: there is no blank, there are others than the answers, or the row is longer than the model's.
    """
    tokenizer, seq_length = trained.tokenizer, trained.model.config.seq_length
    prompt = Prompt.parse(text)
    row = prompt.blanks(tokenizer, trained.objectives)
    if len(answers) != len(row.blank_positions):
        raise DataError(
            f"The text has {len(row.blank_positions)} {prompt.marker} blanks and {len(answers)} answers. Give one answer "
            "for each."
        )
    targets: list[int] = []
    for answer, has_blank in zip(answers, prompt.has_blank, strict=True):
        words = f" {answer}" if has_blank and not answer.startswith(" ") else answer
        span = tokenizer.encode(words, is_continuation=True)
        if prompt.marker == GMASK_TEXT:  # a continuation is cut off: it has no <eop>
            if not span:
                raise DataError("An empty continuation has no tokens to score.")
            targets += span
            row.spans.append(span[:-1])
        else:
            targets += [*span, tokenizer.special.eop]
            row.spans.append(span)
    tokens, fields = layout_of([row], tokenizer.special)
    if tokens.shape[1] > seq_length:
        raise DataError(
            f"The text and its answers have {tokens.shape[1]:,} tokens; the model was trained on rows of {seq_length:,}. Give "
            "shorter ones."
        )
    # Logits are wanted at every place after the context, not only at the last one.
    fields[:, TARGET, len(row.context) :] = 1
    logits = trained.model(tokens, fields).float()
    return Scored(torch.tensor(targets), logits)
