"""A small share is not shown as none."""

import pytest

from configs.percent import percent


@pytest.mark.parametrize(
    ("share", "digits", "shown"),
    [
        (0.0, 0, "0%"),
        (1e-9, 0, "under 1%"),
        (0.0099, 0, "under 1%"),
        (0.01, 0, "1%"),
        (0.284, 0, "28%"),
        (1.0, 0, "100%"),
        (0.0004, 1, "under 0.1%"),
        (0.001, 1, "0.1%"),
        (0.00001, 2, "under 0.01%"),
    ],
)
def test_a_small_share_is_not_shown_as_none(share: float, digits: int, shown: str) -> None:
    assert percent(share, digits) == shown
