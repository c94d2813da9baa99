"""How spans are completed token by token, whatever computes the logits: one process, or the ranks of a run in training."""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch

from data_pipeline.special_tokens import SpecialTokens
from data_pipeline.tokenizer import Tokenizer
from glm.prompt import Blanks, span_text
from glm.words import begins_word, is_part_of_word


class SpanTokens:
    """What the tokens of a vocabulary may do in a span.

    Args:
        tokenizer: of the model.
        num_rows: rows of its embedding, padding included.
    """

    def __init__(self, tokenizer: Tokenizer, num_rows: int) -> None:
        self._tokenizer = tokenizer
        self._num_rows = num_rows

    @cached_property
    def impossible(self) -> list[int]:
        """Ids that no span contains: markers, padding, and rows of the embedding above the tokenizer's ids."""
        special = self._tokenizer.special
        padding = range(self._tokenizer.vocab_size, self._num_rows)
        return sorted({special.mask, special.gmask, special.sop, special.pad, *padding})

    @cached_property
    def starts_something(self) -> torch.Tensor:
        """(vocab,) bool, True for a token that does not continue the word before it; also for the ends of a span."""
        return torch.tensor([not is_part_of_word(text) for text in self._texts])

    @cached_property
    def is_white_space(self) -> torch.Tensor:
        """(vocab,) bool, True for line breaks, tabs and runs of blanks, but not for the single blank before a word."""
        texts = self._texts
        return torch.tensor([text != " " and text.isspace() for text in texts])

    @cached_property
    def begins_no_word(self) -> torch.Tensor:
        """(vocab,) bool, True for a token that begins with a mark or with white space other than a blank."""
        return torch.tensor([not begins_word(text) for text in self._texts])

    def leave_out_impossible(self, scores: torch.Tensor) -> None:
        """Set the scores (rows, vocab) of what no span contains to -inf."""
        scores[:, self.impossible] = float("-inf")

    def leave_out_white_space(self, scores: torch.Tensor, rows: Sequence[Blanks]) -> None:
        """Set scores (rows, vocab) so that no short blank begins with a line break: it is not meant to be filled so."""
        begins = [not row.spans[-1] and not row.goes_on for row in rows]
        scores[torch.tensor(begins)[:, None] & self.is_white_space] = float("-inf")

    @cached_property
    def _texts(self) -> list[str]:
        """Text of the token of each row of the embedding."""
        rows, known = self._num_rows, self._tokenizer.vocab_size
        texts = [span_text(self._tokenizer, [token]) for token in range(min(known, rows))]
        special = {*self.impossible, self._tokenizer.special.eop, self._tokenizer.special.eos}
        return [
            "" if token in special else text
            for token, text in enumerate([*texts, *[""] * (rows - len(texts))])
        ]


def complete_spans(
    rows: Sequence[Blanks],
    max_new_tokens: Sequence[int],
    seq_length: int,
    special: SpecialTokens,
    following: Callable[[Sequence[Blanks]], list[int]],
) -> list[list[int]]:
    """Generate the tokens of each row's last blank, whose span is still empty.

    Args:
        rows: texts with blanks.
        max_new_tokens: longest span of each.
        seq_length: longest row that the model was trained on; a span ends with it.
        special: ids of the special tokens.
        following: chooses the token that follows each row that is not complete yet.

    Returns:
        The tokens of each span, without its end.
    """
    room = [seq_length - len(row.segment(special)) + 1 for row in rows]
    limits = [min(most, left) for most, left in zip(max_new_tokens, room, strict=True)]
    spans: list[list[int]] = [[] for _ in rows]
    growing = [place for place, limit in enumerate(limits) if limit > 0]
    while growing:
        now = [_with_span(rows[place], spans[place]) for place in growing]
        still: list[int] = []
        for place, token in zip(growing, following(now), strict=True):
            if token in (special.eop, special.eos):
                continue
            spans[place].append(token)
            if len(spans[place]) < limits[place]:
                still.append(place)
        growing = still
    return spans


def _with_span(row: Blanks, span: list[int]) -> Blanks:
    return Blanks(row.context, row.blank_positions, row.goes_on, [*row.spans[:-1], span])
