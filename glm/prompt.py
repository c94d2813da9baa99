"""From a text with blanks, as people type it, to the row that training would build from it, and back to a filled text.

`Return a [MASK] of the list.`: training hides tokens, and the first token of a hidden word includes the blank before it
(" string"). So a blank before a marker belongs to the span: it is left out of the context, and the filled text has one
there whether or not the model generates it. GLM (Du et al. 2022) section 2.1; GLM-130B section 2.2.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import DataError
from configs.schema import Config, MipPositions
from data_pipeline.blanks import Segment, filled_segment
from data_pipeline.special_tokens import GMASK_TEXT, MASK_TEXT, SMASK_TEXT, SpecialTokens
from data_pipeline.tokenizer import Tokenizer

_MARKERS = (MASK_TEXT, SMASK_TEXT, GMASK_TEXT)
# Likely mistypings of a marker: [mask], [SMASK], <mask>, [M].
_LIKE_A_MARKER = re.compile(r"\[\s*(?:\w*mask\w*|m|blank)\s*\]|<\s*\w*mask\w*\s*>", re.IGNORECASE)
_BLANK = " "


@dataclass(frozen=True)
class Objectives:
    """What a model was trained on, as far as a row depends on it."""

    answers_go_on: bool = False
    """The model was trained on instructions whose answers' positions go on after [MASK]."""
    hides_sentences: bool = False
    """The model was trained to fill [sMASK]."""

    @classmethod
    def of(cls, config: Config) -> "Objectives":
        """What a run trains its model on."""
        return cls(
            answers_go_on=bool(config.data.instructions)
            and config.objective.mip_positions is MipPositions.consecutive,
            hides_sentences=config.objective.smask_share > 0,
        )


@dataclass
class Blanks:
    """Token ids of a text with blanks, and what was generated so far.

    The context comes first, then `<sop> + span` for every blank in order: the row that training builds, without the
    targets that are not known yet.
    """

    context: list[int]
    blank_positions: list[int]
    """Places of the mask tokens in the context."""
    goes_on: bool
    """Positions go on after the context ([gMASK], most instructions); otherwise targets have those of their blanks."""
    spans: list[list[int]]
    """Spans generated so far; the last one may be unfinished."""

    def segment(self, special: SpecialTokens) -> Segment:
        """Build the row with the code that builds training rows; its last token is the last one known."""
        return filled_segment(
            self.context,
            self.blank_positions,
            self.spans,
            special,
            is_consecutive=self.goes_on,
        )


@dataclass(frozen=True)
class TextPart:
    """A piece of a filled text."""

    text: str
    is_filled: bool
    """True for text from the model, False for the user's."""


@dataclass(frozen=True)
class Prompt:
    """A text cut at its markers."""

    marker: str
    """The marker of all blanks: [MASK], [sMASK] or [gMASK]."""
    pieces: list[str]
    """The text around the markers, one piece more than markers; a blank before a marker is removed."""
    has_blank: list[bool]
    """For each marker, whether a blank was typed before it."""

    @classmethod
    def parse(cls, text: str) -> "Prompt":
        """Find the markers of a text.

        Raises:
            DataError: no marker, several kinds, or a `[gMASK]` that is not the end.
        """
        found = [marker for marker in _MARKERS if marker in text]
        if len(found) > 1:
            raise DataError(
                f"The text has {' and '.join(found)}: one kind of marker at a time. Type {MASK_TEXT} blanks, or one "
                f"{GMASK_TEXT} at its end."
            )
        if not found and (unknown := _LIKE_A_MARKER.search(text)):
            raise DataError(
                f"{unknown[0]} is not a marker. Type {MASK_TEXT} for some words, {GMASK_TEXT} for all that follows at "
                f"the end of a text, or {SMASK_TEXT} for a sentence (only models that were trained to)."
            )
        if not found:
            raise DataError(
                f'The text ("{text}") must have either {MASK_TEXT} blanks or one {GMASK_TEXT} at its end. '
                f'For example --text "Paris is the {MASK_TEXT} of France" or --text "Once upon a time {GMASK_TEXT}".'
            )
        (marker,) = found
        text = text.rstrip()
        if marker == GMASK_TEXT and not (text.endswith(marker) and text.count(marker) == 1):
            raise DataError(
                f"{GMASK_TEXT} continues a text, so it may stand only once, at the end."
            )
        pieces = text.split(marker)
        has_blank = [piece.endswith(_BLANK) for piece in pieces[:-1]]
        return cls(
            marker,
            [piece.removesuffix(_BLANK) for piece in pieces[:-1]] + pieces[-1:],
            has_blank,
        )

    def blanks(self, tokenizer: Tokenizer, objectives: Objectives) -> Blanks:
        """Build the row to be filled.

        Args:
            tokenizer: the one that the model was trained with.
            objectives: what the model was trained on.

        Raises:
            DataError: the model was not trained to fill such blanks.
        """
        if self.marker == SMASK_TEXT and not objectives.hides_sentences:
            raise DataError(
                f"This model was not trained to fill {SMASK_TEXT} (objective.smask_share=0). Type {MASK_TEXT}."
            )
        special = tokenizer.special
        token = {MASK_TEXT: special.mask, SMASK_TEXT: tokenizer.smask, GMASK_TEXT: special.gmask}
        context: list[int] = []
        positions: list[int] = []
        for index, piece in enumerate(self.pieces):
            if index:
                positions.append(len(context))
                context.append(token[self.marker])
            context += tokenizer.encode(piece, is_continuation=index > 0)
        # An instruction is a text with one [MASK] at its end.
        is_question = self.marker == MASK_TEXT and len(positions) == 1 and not self.pieces[-1]
        goes_on = self.marker == GMASK_TEXT or (is_question and objectives.answers_go_on)
        return Blanks(context, positions, goes_on, [])

    def filled(self, spans: Sequence[str]) -> list[TextPart]:
        """Put spans into the blanks of the text.

        Args:
            spans: the model's words for each blank.

        Returns:
            Pieces and spans in turn. Where a blank was typed before a marker there is one blank, in the piece before
            the span.
        """
        parts: list[TextPart] = []
        for index, (piece, has_blank, span) in enumerate(
            zip(self.pieces, self.has_blank, spans, strict=False)
        ):
            after = self.pieces[index + 1]
            begins = index == 0 and not piece
            span = span.lstrip(_BLANK) if has_blank or begins else span
            # Trailing blanks are kept only before a word, not before a blank, a mark or the end.
            span = span if after[:1].isalnum() else span.rstrip(_BLANK)
            # An empty span between two blanks, or between a blank and a full stop, needs no blank of its own.
            is_wanted = not span[:1].isspace() if span else after[:1].isalnum()
            parts += [
                TextPart(piece + _BLANK * (has_blank and is_wanted), False),
                TextPart(span, True),
            ]
        return [*parts, TextPart(self.pieces[len(spans)], False)]


def span_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Decode ids from the middle of a text: a blank at the beginning is kept."""
    return tokenizer.decode_span(ids, follows=True)
