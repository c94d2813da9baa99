"""Which documents are left out of a corpus, and why: too short, too long, too few letters, another script."""

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import DataError

# A script is the first word of its letters' Unicode names.
SCRIPTS = {
    "latin": ("LATIN",),
    "han": ("CJK",),
    "kana": ("HIRAGANA", "KATAKANA"),
    "hangul": ("HANGUL",),
    "cyrillic": ("CYRILLIC",),
    "greek": ("GREEK",),
    "arabic": ("ARABIC",),
    "hebrew": ("HEBREW",),
    "devanagari": ("DEVANAGARI",),
    "thai": ("THAI",),
}
# Letters of other scripts that a document may have: foreign names, formulas.
_FOREIGN_SHARE = 0.1
_NUM_CODES = 0x110000
# Classes of characters beside the scripts, which count from _FIRST_SCRIPT on.
_OTHER, _BLANK, _LETTER, _FIRST_SCRIPT = 0, 1, 2, 3

EMPTY = "empty"
TOO_SHORT = "too short"
TOO_LONG = "too long"
FEW_LETTERS = "few letters"
OTHER_SCRIPT = "other script"


@dataclass(frozen=True)
class Filters:
    """Conditions that a document must meet to be kept; by default every text is kept."""

    min_characters: int = 0
    max_characters: int | None = None
    min_letters: float = 0.0
    """Least share of letters (of any script) among the characters that are not blank."""
    scripts: tuple[str, ...] = ()
    """Names from SCRIPTS; up to a tenth of the letters may be of other scripts. Empty: any script."""

    def __post_init__(self) -> None:
        """Refuse values that no document can meet.

        Raises:
            DataError: the message says what to type.
        """
        unknown = [name for name in self.scripts if name not in SCRIPTS]
        if unknown:
            raise DataError(
                f'--scripts: "{unknown[0]}" is not known. Choose from {", ".join(SCRIPTS)}.'
            )
        if not 0 <= self.min_letters <= 1:
            raise DataError(
                f"--min-letters ({self.min_letters}) is a share between 0 and 1. Try --min-letters 0.5."
            )
        if self.max_characters is not None and self.max_characters < max(self.min_characters, 1):
            raise DataError(
                f"--max-characters ({self.max_characters:,}) must be at least --min-characters "
                f"({self.min_characters:,}) and 1. Leave it out for no limit."
            )

    def reason_against(self, texts: Sequence[str]) -> str | None:
        """Why a document is left out; None if it stays.

        Args:
            texts: of one document; its last one must not be blank.
        """
        if not texts[-1] or texts[-1].isspace():
            return EMPTY
        length = sum(map(len, texts))
        if length < self.min_characters:
            return TOO_SHORT
        if self.max_characters is not None and length > self.max_characters:
            return TOO_LONG
        if self.min_letters or self.scripts:
            return self._reason_against_letters("".join(texts))
        return None

    def _reason_against_letters(self, text: str) -> str | None:
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        counts = np.bincount(_classes()[codes], minlength=_FIRST_SCRIPT + len(SCRIPTS))
        num_letters = int(counts[_LETTER:].sum())
        if num_letters < self.min_letters * (len(codes) - int(counts[_BLANK])):
            return FEW_LETTERS
        names = list(SCRIPTS)
        known = sum(int(counts[_FIRST_SCRIPT + names.index(name)]) for name in self.scripts)
        if self.scripts and known < (1 - _FOREIGN_SHARE) * num_letters:
            return OTHER_SCRIPT
        return None


@functools.cache
def _classes() -> np.ndarray:
    """(0x110000,) uint8: the class of every code point; takes a second, once per process."""
    script_of = {word: number for number, words in enumerate(SCRIPTS.values()) for word in words}
    classes = np.full(_NUM_CODES, _OTHER, np.uint8)
    for code in range(_NUM_CODES):
        character = chr(code)
        if character.isspace():
            classes[code] = _BLANK
        elif character.isalpha():
            word = unicodedata.name(character, "").replace("-", " ").partition(" ")[0]
            number = script_of.get(word)
            classes[code] = _LETTER if number is None else _FIRST_SCRIPT + number
    return classes
