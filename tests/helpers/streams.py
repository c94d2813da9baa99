"""Token streams made of arithmetic, and how to read a sample back: shared by the data tests."""

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_pipeline.objective import Objective
from data_pipeline.packing import Sample
from tests.helpers.tiny import SPECIAL

FIRST_TOKEN = 100


@dataclass(frozen=True)
class CountingStream:
    """A stream of any length whose tokens are all different: token i is FIRST_TOKEN + i."""

    size: int

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start <= stop <= self.size
        return np.arange(FIRST_TOKEN + start, FIRST_TOKEN + stop)

    @property
    def fingerprint(self) -> str:
        return f"{zlib.crc32(str(self.size).encode()):08x}"


@dataclass(frozen=True)
class DocumentStream:
    """As CountingStream, but every `length`-th token is <eos>: documents of `length` tokens."""

    size: int
    length: int

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> np.ndarray:
        places = np.arange(start, stop)
        return np.where((places + 1) % self.length == 0, SPECIAL.eos, FIRST_TOKEN + places)

    def document_of(self, tokens: np.ndarray) -> np.ndarray:
        """Number of the document of ordinary tokens."""
        return (tokens - FIRST_TOKEN) // self.length

    @property
    def fingerprint(self) -> str:
        return f"{self.size} {self.length}"


class ReadSegment(NamedTuple):
    """A [MASK] segment as a reader understands it."""

    stored: list[int]
    """The stored tokens, blanks filled with their targets."""
    span_lengths: list[int]
    """In the order of prediction, without `<eop>`."""
    blank_order: list[int]
    """Number of each predicted blank in the order of the text, in the order of prediction."""
    is_whole: bool
    """Every blank has all its targets, the last one `<eop>`."""
    has_touching_blanks: bool


def read_mask_segments(sample: Sample) -> list[ReadSegment]:
    """Fill the blanks of every segment of a [MASK] sample with their targets."""
    segments = []
    for number in range(1, int(sample.segment_ids.max(initial=0)) + 1):
        inside = sample.segment_ids == number
        context = sample.tokens[inside & sample.is_context]
        hidden = inside & sample.loss_mask
        places = np.flatnonzero(hidden)
        starts = np.flatnonzero(sample.tokens[places] == SPECIAL.sop)
        targets = np.split(places, starts[1:]) if len(places) else []
        answers = {
            int(sample.position_ids[target[0]]): sample.targets[target].tolist()
            for target in targets
        }
        blanks = np.flatnonzero(context == SPECIAL.mask)
        is_whole = sorted(answers) == blanks.tolist() and all(
            answer[-1] == SPECIAL.eop for answer in answers.values()
        )
        stored: list[int] = []
        for position, token in enumerate(context.tolist()):
            stored += answers.get(position, [])[:-1] if token == SPECIAL.mask else [token]
        lengths = [len(answer) - 1 for answer in answers.values()]
        order = np.searchsorted(blanks, list(answers)).tolist()
        touching = bool((np.diff(blanks) == 1).any())
        segments.append(ReadSegment(stored, lengths, order, is_whole, touching))
    return segments


def read_gmask_segment(sample: Sample) -> list[int]:
    """Stored tokens of a [gMASK] sample: the prefix and what is predicted."""
    context = sample.tokens[sample.is_context]
    assert context[-1] == SPECIAL.gmask
    return context[:-1].tolist() + sample.targets[sample.loss_mask].tolist()


def read_isolated(sample: Sample) -> list[list[int]]:
    """Stored tokens of every segment of a sample with isolated documents."""
    if sample.objective is Objective.MASK:
        return [segment.stored for segment in read_mask_segments(sample)]
    stored: list[list[int]] = []
    for number in range(1, int(sample.segment_ids.max()) + 1):
        inside = sample.segment_ids == number
        context = sample.tokens[inside & sample.is_context].tolist()
        stored.append(
            [token for token in context if token != SPECIAL.gmask]
            + sample.targets[inside & sample.loss_mask].tolist()
        )
    return stored
