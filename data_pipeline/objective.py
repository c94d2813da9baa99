"""The training objectives of a row."""

from enum import IntEnum


class Objective(IntEnum):
    """What a row teaches. GLM-130B, section 2.2."""

    MASK = 0
    """Several short blanks inside a text."""
    GMASK = 1
    """One long blank at the end of a text."""
    MIP = 2
    """Multi-task instruction: a prompt and its answer."""
