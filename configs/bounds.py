"""Bounds of single numbers of the configuration, written beside their fields in configs/schema.

A field is annotated with its bound: `tp: Annotated[int, AT_LEAST_1] = 1`, or by a short name, `tp: Count = 1`.
configs/checks/numbers.py tests all of them; --help and docs/configuration.md show them. Relations between keys are in
configs/checks.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Bound:
    """A range of a number."""

    words: str
    """The range, as `--help` shows it: "at least 1"."""
    holds: Callable[[float], bool]
    """True for a number within the range."""
    usual: float
    """The number that a message proposes instead."""
    must: str = ""
    """The words of a message after "must"; by default "be" and the range."""
    value_format: str = ""
    """How a message shows a number that lies outside, in the language of `format`."""

    def problem(self, key: str, value: float) -> str | None:
        """The message for a value outside of the range; None if it lies within.

        Args:
            key: full name of the key, such as "optim.lr".
            value: a finite number.
        """
        if self.holds(value):
            return None
        must = self.must or f"be {self.words}"
        return f"{key} ({value:{self.value_format}}) must {must}. Try {key}={self.usual}."


AT_LEAST_1 = Bound("at least 1", lambda value: value >= 1, 1)
SHARE = Bound("between 0 and 1", lambda value: 0 <= value <= 1, 0.5)
BELOW_1 = Bound("at least 0 and below 1", lambda value: 0 <= value < 1, 0.1)

Count = Annotated[int, AT_LEAST_1]
"""A whole number of at least 1."""
Share = Annotated[float, SHARE]
"""A share of a whole, or a probability that may be 1."""
ShareBelow1 = Annotated[float, BELOW_1]
"""A share below 1."""


def above_zero(usual: float) -> Bound:
    """A positive number."""
    return Bound("above 0", lambda value: value > 0, usual)


def not_negative(usual: float = 0) -> Bound:
    """Zero or more."""
    return Bound("0 or more", lambda value: value >= 0, usual, must="not be negative")


def at_most(most: int, usual: int) -> Bound:
    """A number with an upper bound only."""
    return Bound(f"at most {most:,}", lambda value: value <= most, usual)


def power_of_two(usual: int) -> Bound:
    """1, 2, 4 and so on."""
    return Bound(
        "a power of two, at least 1",
        lambda value: value >= 1 and math.frexp(value)[0] == 0.5,
        usual,
    )


def plausible(usual: float) -> Bound:
    """A quantity of hardware, within a factor of a million of the usual one.

    Estimates multiply and divide these quantities: a number further away has the wrong unit, and would give times of
    hundreds of digits.
    """
    least, most = usual / 1e6, usual * 1e6
    words = f"between {least:g} and {most:,.0f}"
    return Bound(
        words, lambda value: least <= value <= most, usual, must=f"lie {words}", value_format="g"
    )


@cache
def bounds_of(owner: type) -> dict[str, tuple[Bound, ...]]:
    """The bounds of a dataclass's fields, by name; those without one are left out."""
    hints = get_type_hints(owner, include_extras=True)
    found = {name: tuple(_bounds(hint)) for name, hint in hints.items()}
    return {name: bounds for name, bounds in found.items() if bounds}


def bounded_values(section: Any, prefix: str = "") -> Iterator[tuple[str, float, Bound]]:
    """Every number that is set and has a bound, in the schema's order.

    Args:
        section: a dataclass of the configuration.
        prefix: of its keys' names, such as "optim.".

    Yields:
        Full key, value, and each bound.
    """
    bounds = bounds_of(section.__class__)
    for part in fields(section):
        value: Any = getattr(section, part.name)
        if is_dataclass(value):
            yield from bounded_values(value, f"{prefix}{part.name}.")
        elif value is not None:
            for bound in bounds.get(part.name, ()):
                yield prefix + part.name, value, bound


def _bounds(hint: Any) -> Iterator[Bound]:
    if get_origin(hint) is Annotated:
        yield from (extra for extra in hint.__metadata__ if isinstance(extra, Bound))
    else:
        for part in get_args(hint):  # of `Count | None`
            yield from _bounds(part)
