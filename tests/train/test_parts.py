"""Parts of a step are told to those who listen, and cost nothing where nobody does."""

import contextlib

import pytest

from train import parts
from train.parts import drawn, listen, marked, part


class Heard:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def enter(self, name: str) -> None:
        self.told.append(f"+{name}")

    def leave(self) -> None:
        self.told.append("-")


def test_a_listener_hears_parts_within_parts_until_it_stops() -> None:
    heard = Heard()
    stop = listen(heard)
    with part("forward"), part("communication"):
        pass
    assert marked("data", lambda value: value + 1)(1) == 2
    stop()
    with part("backward"):
        pass
    assert heard.told == ["+forward", "+communication", "-", "-", "+data", "-"]


def test_nobody_hears_the_end_of_a_part_whose_beginning_was_not_heard() -> None:
    first, second = Heard(), Heard()
    stop_first = listen(first)
    with part("logging"):
        stop_second = listen(second)
        with part("data"):
            pass
    stop_first()
    stop_second()
    assert first.told == ["+logging", "+data", "-", "-"]
    assert second.told == ["+data", "-"]


def test_a_part_that_fails_ends_too() -> None:
    heard = Heard()
    stop = listen(heard)
    with contextlib.suppress(ValueError), part("checkpoint"):
        raise ValueError
    stop()
    assert heard.told == ["+checkpoint", "-"]


def test_where_nobody_listens_nothing_is_made() -> None:
    assert part("forward") is part("backward")


def test_making_a_value_is_data_and_using_it_is_not() -> None:
    heard = Heard()
    stop = listen(heard)
    for value in drawn(iter("ab")):
        heard.told.append(value)
    stop()
    # The last one finds out that there is nothing left.
    assert heard.told == ["+data", "-", "a", "+data", "-", "b", "+data", "-"]


@pytest.mark.parametrize("values", [[], [None]])
def test_what_is_drawn_are_the_values(values: list[None]) -> None:
    assert list(drawn(values)) == values
    assert parts._listeners == ()
