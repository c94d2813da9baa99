"""The display's rows, by hand, and that no row is ever wider than the terminal."""

import itertools
from typing import Any

import pytest

from configs.folding import shown_width
from tests.helpers.steps import line
from train.terminal.layout import ASCII, UNICODE, Glyphs, Style, plain, rows
from train.terminal.readings import Event, Readings


def readings(name: str = "default", **of_the_last: Any) -> Readings:
    """Of ten steps, one a second, with an evaluation, a checkpoint and an event."""
    told = Readings(name, total_samples=800, every_steps=10, started=0.0)
    for step in range(1, 11):
        values: dict[str, Any] = {
            "train/loss": 9.0 - step / 2,
            "train/loss_mask": 8.0 - step / 2,
            "train/loss_gmask": 10.0 - step / 2,
            "optim/grad_norm": 1.0 if step != 4 else 8.0,
            "speed/mfu": 0.412,
            "speed/hfu": 0.52,
        }
        if step == 5:
            values["valid/loss"] = 5.25
        told.take(line(step, **{**values, **(of_the_last if step == 10 else {})}), float(step))
    told.checkpoint = ("step_00000008", 8.0)
    told.event = Event("Spike at step 9: the loss is 7.1.", True, 9.0)
    return told


def drawn(told: Readings, width: int, height: int = 24, glyphs: Glyphs = UNICODE) -> list[str]:
    return [plain(row).rstrip() for row in rows(told, width, height, glyphs, now=75.0)]


def test_60_columns() -> None:
    assert drawn(readings(), 60) == [
        "default  step 10                               0:00:25 left",
        "━━━━━──────────────────────────────────────────────  10.0 %",
        "loss            6.7566  ██▇▆▅▄▃▂▁▁          held-out 5.2500",
        "[MASK]          5.7566  ██▇▆▅▄▃▂▁▁",
        "[gMASK]         7.7566  ██▇▆▅▄▃▂▁▁",
        "gradient norm   1.0000  ▁▁▁█▁▁▁▁▁▁         embedding 0.0100",
        "lr 1.00e-03  12,346 tokens/s  MFU 41.2 %  1.25 GiB",
        "checkpoint    step_00000008, 0:01:07 ago",
        "last event    0:01:06 ago  ! Spike at step 9: the loss is …",
    ]


def test_80_columns() -> None:
    assert drawn(readings(), 80) == [
        "default  step 10                                                   0:00:25 left",
        "━━━━━━━────────────────────────────────────────────────────────────────  10.0 %",
        "loss            6.7566  ██▇▆▅▄▃▂▁▁                              held-out 5.2500",
        "[MASK]          5.7566  ██▇▆▅▄▃▂▁▁",
        "[gMASK]         7.7566  ██▇▆▅▄▃▂▁▁",
        "gradient norm   1.0000  ▁▁▁█▁▁▁▁▁▁                             embedding 0.0100",
        "lr 1.00e-03  12,346 tokens/s  MFU 41.2 %  1.25 GiB",
        "checkpoint    step_00000008, 0:01:07 ago",
        "last event    0:01:06 ago  ! Spike at step 9: the loss is 7.1.",
    ]


def test_200_columns() -> None:
    gap = " " * 60
    assert drawn(readings(), 200) == [
        "default  step 10" + " " * 160 + "0:01:15 since the start",
        "━" * 15 + "─" * 143 + "  10.0 %  80 of 800 samples  0:00:25 left",
        f"loss            6.7566  ██▇▆▅▄▃▂▁▁{gap}     │ learning rate 1.00e-03",
        f"[MASK]          5.7566  ██▇▆▅▄▃▂▁▁{gap}     │ speed         12,346 tokens/s, 250 ms a step",
        f"[gMASK]         7.7566  ██▇▆▅▄▃▂▁▁{gap}     │ MFU           41.2 %, HFU 52.0 %",
        f"held-out loss   5.2500  at 40 samples{gap}  │ memory        1.25 GiB at most",
        f"gradient norm   1.0000  ▁▁▁█▁▁▁▁▁▁{gap}     │ checkpoint    step_00000008, 0:01:07 ago",
        f"  embedding     0.0100{gap}                 │",
        "last event    0:01:06 ago  ! Spike at step 9: the loss is 7.1.",
    ]


def test_a_terminal_without_unicode() -> None:
    shown = drawn(readings(), 100, glyphs=ASCII)
    assert all(text.isascii() for text in shown)
    assert shown[1].startswith("=====-----")
    assert shown[2] == ("loss            6.7566  ##*+=-:.__               | learning rate 1.00e-03")


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (59, 24, "step 10  loss 6.7566  ━─────────────  10.0 %  0:00:25 left"),
        (80, 10, "step 10  loss 6.7566  12,346 tokens/s  ━───────────────  10.0 %  0:00:25 left"),
        (40, 24, "step 10  loss 6.7566  ─────────  10.0 %"),
        (20, 24, "step 10  loss 6.75…"),
    ],
)
def test_one_line_where_there_is_no_room_for_more(width: int, height: int, expected: str) -> None:
    assert drawn(readings(), width, height) == [expected]
    if height < 24:  # nine rows, the cursor's, and one of what was printed
        assert len(drawn(readings(), width, height + 1)) == 9


def test_a_loss_that_is_not_finite_is_said_in_words_and_colour() -> None:
    told = readings(**{"train/loss": float("nan"), "train/loss_mask": float("inf")})
    of_all, of_mask, of_gmask = rows(told, 100, 24, UNICODE, 75.0)[2:5]
    assert ("   nan !", Style.warning) in of_all and "▃▂▁!" in plain(of_all)
    assert ("   inf !", Style.warning) in of_mask
    assert Style.warning not in [style for _, style in of_gmask]
    # The average goes on where the loss is finite again.
    told.take(line(11, train__loss=4.0), 11.0)
    assert "6.7566" in plain(rows(told, 100, 24, UNICODE, 75.0)[2])


def test_what_is_not_known_is_not_made_up() -> None:
    told = Readings("default", 800, 10, 0.0)
    told.take(line(1, **{"train/loss_gmask": None, "speed/mfu": None}), 1.0)
    shown = "\n".join(drawn(told, 100))
    assert "left" not in shown and "MFU" not in shown and "[MASK]" not in shown
    assert "held-out loss  not yet" in shown and "none since the start" in shown


def test_fp16_shows_its_loss_scale_and_what_was_left_out() -> None:
    told = readings(optim__loss_scale=65536.0, optim__skipped_steps=2)
    shown = "\n".join(drawn(told, 100))
    assert "loss scale    65,536" in shown and "left out      2 steps" in shown
    assert "2 left out" in "\n".join(drawn(told, 80))


def test_no_row_is_wider_than_the_terminal() -> None:
    hostile = [
        readings(name="预训练运行" * 30),
        readings(**{f"train/loss_{key}": 1e9 for key in ("mask", "gmask", "mip", "smask")}),
        readings(**{"speed/tokens_per_second": 1e12, "optim/skipped_steps": 10**9}),
        readings(**{"optim/grad_norm": float("-inf"), "optim/grad_norm_embedding": -1e-300}),
    ]
    for text in ("长事件" * 200, "x" * 5_000, "e\u0301" * 300):
        hostile.append(readings())
        hostile[-1].event = Event(text, True, 9.0)
    sizes = itertools.product(
        (1, 5, *range(10, 131, 7), 59, 60, 61, 99, 100, 101, 200, 500), (3, 24), (UNICODE, ASCII)
    )
    for (width, height, glyphs), told in itertools.product(sizes, hostile):
        shown = rows(told, width, height, glyphs, 75.0)
        widths = [shown_width(plain(row)) for row in shown]
        assert max(widths) <= width - 1, (width, height)
        assert len(shown) == 1 or len(shown) + 2 <= height


def test_the_time_left_is_that_of_all_that_the_run_does() -> None:
    told = Readings("default", total_samples=8_000, every_steps=10, started=0.0)
    said = []
    for step in range(1, 8):
        told.take(line(step), 100.0 + 2.0 * step)  # 8 samples in 2 s
        said.append(told.seconds_left(100.0 + 2.0 * step))
    assert said[:5] == [None] * 5
    assert said[5] == pytest.approx((8_000 - 48) / 4) and said[6] == pytest.approx((8_000 - 56) / 4)
    assert told.seconds_left(124.0) == pytest.approx((8_000 - 56) / 4 - 10)
    told.take(line(3), 130.0)  # set back
    assert told.seconds_left(130.0) is None
