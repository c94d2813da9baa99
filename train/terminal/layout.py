"""The live display as rows of text: two columns, one column or a single line, whatever fits the terminal.

A row is a list of pieces with a style each. No row is wider than it may be.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from configs.folding import shown_width
from train.terminal.lines import label_of
from train.terminal.readings import Readings
from train.terminal.sparkline import ASCII_LEVELS, UNICODE_LEVELS, sparkline

WIDE, NARROW = 100, 60
"""Columns of a terminal from which on there are two columns of figures, or one; below it is a single line."""
_LABEL = 13
_VALUE = 8
# Between what stands side by side.
_GAP = "  "


class Style(Enum):
    """What a piece is; screen.py gives it its colour."""

    figure = "figure"
    label = "label"
    curve = "curve"
    done = "done"
    rest = "rest"
    warning = "warning"


@dataclass(frozen=True)
class Glyphs:
    """The characters that are not letters."""

    levels: str
    done: str
    rest: str
    column: str
    cut: str


UNICODE = Glyphs(UNICODE_LEVELS, "\u2501", "\u2500", " \u2502 ", "\u2026")
ASCII = Glyphs(ASCII_LEVELS, "=", "-", " | ", "...")

Row = list[tuple[str, Style]]


def rows(readings: Readings, width: int, height: int, glyphs: Glyphs, now: float) -> list[Row]:
    """Lay out the display.

    Args:
        readings: after at least one step.
        width: columns of the terminal; the last one stays empty, because a character there may break the line.
        height: lines of the terminal.
        glyphs: that the terminal can show.
        now: seconds of the display's clock.
    """
    draw = _Drawing(readings, width - 1, glyphs, now)
    if width >= NARROW:
        panel = draw.wide() if width >= WIDE else draw.narrow()
        if len(panel) + 2 <= height:  # the cursor's line, and one of what was printed
            return panel
    return [draw.single()]


def plain(row: Row) -> str:
    """The text of a row."""
    return "".join(text for text, _ in row)


class _Drawing:
    def __init__(self, readings: Readings, width: int, glyphs: Glyphs, now: float) -> None:
        self._readings = readings
        self._line = readings.line
        self._width = width
        self._glyphs = glyphs
        self._now = now

    def wide(self) -> list[Row]:
        gap = self._glyphs.column
        left_width = (self._width - len(gap)) // 2
        left = [self._curve_row(*each, width=left_width) for each in self._curves()]
        left.insert(-2, self._labelled("held-out loss", self._held_out(_VALUE)))
        right = [self._labelled(label, row) for label, row in self._facts() if row is not None]
        length = max(len(left), len(right))
        left += [[] for _ in range(length - len(left))]
        right += [[] for _ in range(length - len(right))]
        both = [
            [*self._filled(one, left_width), (gap, Style.rest), *two]
            for one, two in zip(left, right, strict=True)
        ]
        seen, total = self._line["samples_seen"], self._readings.total_samples
        samples = self._plain(f"{seen:,} of {total:,} samples")
        return [
            self._apart(self._title(), self._elapsed()),
            self._progress([samples, *self._time_left()]),
            *(self._cut(row, self._width) for row in both),
            self._labelled("last event", self._event(), self._width),
        ]

    def narrow(self) -> list[Row]:
        *losses, norm, embedding = self._curves()
        held_out = [("held-out ", Style.label), *self._held_out(1)[:1]]
        room = self._width - len(_GAP) - max(len(plain(held_out)), 17)
        first = self._curve_row(*losses[0], width=room)
        label, value, _ = embedding
        beside = [(f"{label.strip()} ", Style.label), *self._number(value, 1)]
        return [
            self._apart(self._title(), self._joined(self._time_left())),
            self._progress([]),
            self._apart(first, held_out),
            *self._objectives(losses[1:]),
            self._apart(self._curve_row(*norm, width=room), beside),
            self._cut(self._joined(self._short_facts()), self._width),
            self._labelled("checkpoint", self._checkpoint(), self._width),
            self._labelled("last event", self._event(), self._width),
        ]

    def single(self) -> Row:
        """The most important figures that fit, then a bar in what is left."""
        step = self._line["step"]
        percent = self._percent()
        loss = [("loss ", Style.label), *self._number(self._readings.smoothed("train/loss"), 1)]
        speed = self._joined(self._short_facts()[1:2])
        shown: list[Row] = [self._plain(f"step {step:,}"), loss, percent]
        wanted = [self._joined(self._time_left()), speed]
        for place, piece in ((3, wanted[0]), (2, wanted[1])):
            longer = [*shown[:place], piece, *shown[place:]]
            if piece and len(plain(self._joined(longer))) + len(_GAP) + 4 <= self._width:
                shown = longer
        place = next(number for number, row in enumerate(shown) if row is percent)
        room = self._width - len(plain(self._joined(shown))) - len(_GAP)
        if room >= 4:
            shown.insert(place, self._bar(min(room, 16)))
        return self._cut(self._joined(shown), self._width)

    def _curves(self) -> list[tuple[str, float | None, Callable[[int], str]]]:
        """Label, newest value and curve of each loss, and at the end of the gradient's two norms."""
        readings, levels = self._readings, self._glyphs.levels
        found: list[tuple[str, float | None, Callable[[int], str]]] = []
        for key, series in readings.losses.items():
            name = key.removeprefix("train/loss").removeprefix("_")
            label = label_of(name) if name else "loss"
            value = readings.smoothed(key)
            found.append((label, value, lambda n, s=series: sparkline(s.newest(n), levels)))
        if not found:
            found.append(("loss", None, lambda _: ""))
        norm = readings.gradient_norm
        of_all, of_embedding = (self._line[f"optim/grad_norm{of}"] for of in ("", "_embedding"))
        return [
            *found,
            ("gradient norm", of_all, lambda n: sparkline(norm.newest(n), levels)),
            ("  embedding", of_embedding, lambda _: ""),
        ]

    def _curve_row(
        self,
        label: str,
        value: float | None,
        curve: Callable[[int], str],
        width: int,
        label_width: int = _LABEL,
    ) -> Row:
        row: Row = [
            (self._fitted(label, label_width), Style.label),
            (" ", Style.label),
            *self._number(value, _VALUE),
        ]
        room = width - len(plain(self._joined([row]))) - len(_GAP)
        row = self._filled(row, label_width + 1 + _VALUE)
        return [*row, (_GAP, Style.rest), (curve(max(room, 0)), Style.curve)]

    def _objectives(
        self, losses: Sequence[tuple[str, float | None, Callable[[int], str]]]
    ) -> list[Row]:
        """The loss of each objective; two in a row if they are many."""
        if len(losses) <= 2:
            return [self._curve_row(*each, width=self._width) for each in losses]
        half = (self._width - len(_GAP)) // 2
        cells = [self._curve_row(*each, width=half, label_width=9) for each in losses]
        return [
            self._cut(
                self._joined([self._filled(each, half) for each in cells[at : at + 2]]), self._width
            )
            for at in range(0, len(cells), 2)
        ]

    def _facts(self) -> list[tuple[str, Row | None]]:
        """What stands beside the curves of a wide display."""
        line, readings = self._line, self._readings
        speed = readings.smoothed("speed/tokens_per_second")
        seconds = readings.smoothed("speed/seconds_per_step")
        mfu, hfu = (readings.smoothed(f"speed/{name}") for name in ("mfu", "hfu"))
        memory, scale = line["memory/peak_gib"], line["optim/loss_scale"]
        skipped = line["optim/skipped_steps"]
        spent = f"{speed:,.0f} tokens/s, {_seconds(seconds)} a step" if speed and seconds else "-"
        used = (
            None
            if mfu is None
            else f"{100 * mfu:.1f} %" + (f", HFU {100 * hfu:.1f} %" if hfu else "")
        )
        return [
            ("learning rate", self._plain(f"{line['optim/lr']:.2e}")),
            ("speed", self._plain(spent)),
            ("MFU", None if used is None else self._plain(used)),
            ("memory", None if memory is None else self._plain(f"{memory:.2f} GiB at most")),
            ("loss scale", self._plain(f"{scale:,.0f}") if scale not in (None, 1) else None),
            ("left out", self._plain(f"{skipped:,} {_steps(skipped)}") if skipped else None),
            ("checkpoint", self._checkpoint()),
        ]

    def _short_facts(self) -> list[Row]:
        line, readings = self._line, self._readings
        speed, mfu = (readings.smoothed(f"speed/{name}") for name in ("tokens_per_second", "mfu"))
        memory, skipped = line["memory/peak_gib"], line["optim/skipped_steps"]
        return [
            [("lr ", Style.label), (f"{line['optim/lr']:.2e}", Style.figure)],
            self._plain(f"{speed:,.0f} tokens/s" if speed is not None else "- tokens/s"),
            *(
                []
                if mfu is None
                else [[("MFU ", Style.label), (f"{100 * mfu:.1f} %", Style.figure)]]
            ),
            *([] if memory is None else [self._plain(f"{memory:.2f} GiB")]),
            *([self._plain(f"{skipped:,} left out")] if skipped else []),
        ]

    def _title(self) -> Row:
        name = self._fitted(self._readings.name, self._width // 2, pads=False)
        return [
            (name, Style.figure),
            (f"{_GAP}step ", Style.label),
            (f"{self._line['step']:,}", Style.figure),
        ]

    def _elapsed(self) -> Row:
        return self._plain(f"{_duration(self._now - self._readings.started)} since the start")

    def _time_left(self) -> list[Row]:
        seconds = self._readings.seconds_left(self._now)
        return [] if seconds is None else [self._plain(f"{_duration(seconds)} left")]

    def _held_out(self, width: int) -> Row:
        if self._readings.held_out is None:
            return [(f"{'not yet':>{width}}", Style.label)]
        loss, seen = self._readings.held_out
        return [*self._number(loss, width), (f"  at {seen:,} samples", Style.label)]

    def _checkpoint(self) -> Row:
        if self._readings.checkpoint is None:
            return [("none since the start", Style.label)]
        name, at = self._readings.checkpoint
        return [(name, Style.figure), (f", {_duration(self._now - at)} ago", Style.label)]

    def _event(self) -> Row:
        event = self._readings.event
        if event is None:
            return [("none since the first step", Style.label)]
        style = Style.warning if event.is_warning else Style.figure
        mark = "! " if event.is_warning else ""
        return [
            (f"{_duration(self._now - event.at)} ago  ", Style.label),
            (mark + event.text, style),
        ]

    def _number(self, value: float | None, width: int) -> Row:
        if value is None:
            return [(f"{'-':>{width}}", Style.figure)]
        if not math.isfinite(value):
            return [(f"{f'{value} !':>{width}}", Style.warning)]
        return [(f"{_digits(value):>{width}}", Style.figure)]

    def _progress(self, after: list[Row]) -> Row:
        behind = self._joined([self._percent(), *after])
        room = self._width - len(plain(behind)) - len(_GAP)
        return self._cut(self._joined([self._bar(max(room, 0)), behind]), self._width)

    def _bar(self, width: int) -> Row:
        done = int(width * self._share())
        return [
            (self._glyphs.done * done, Style.done),
            (self._glyphs.rest * (width - done), Style.rest),
        ]

    def _percent(self) -> Row:
        # Rounded down: 100 % is the end.
        return self._plain(f"{math.floor(1000 * self._share()) / 10:.1f} %")

    def _share(self) -> float:
        return min(self._line["samples_seen"] / max(self._readings.total_samples, 1), 1.0)

    def _labelled(self, label: str, row: Row, width: int | None = None) -> Row:
        named: Row = [(f"{label:<{_LABEL}} ", Style.label), *row]
        return named if width is None else self._cut(named, width)

    def _apart(self, left: Row, right: Row) -> Row:
        """One at the left edge, the other at the right one."""
        room = max(self._width - shown_width(plain(right)), 0)
        return self._cut([*self._filled(self._cut(left, room), room), *right], self._width)

    def _joined(self, parts: Sequence[Row]) -> Row:
        joined: Row = []
        for part in filter(None, parts):
            joined += [(_GAP, Style.rest), *part] if joined else part
        return joined

    def _plain(self, text: str) -> Row:
        return [(text, Style.figure)]

    def _filled(self, row: Row, width: int) -> Row:
        cut = self._cut(row, width)
        return [*cut, (" " * (width - shown_width(plain(cut))), Style.rest)]

    def _fitted(self, text: str, width: int, pads: bool = True) -> str:
        row = [(text, Style.figure)]
        return plain(self._filled(row, width) if pads else self._cut(row, width))

    def _cut(self, row: Row, width: int) -> Row:
        """The part of a row that fits, with a mark where it was cut."""
        if shown_width(plain(row)) <= width:
            return row
        mark = self._glyphs.cut[:width]
        room, kept = width - len(mark), Row()
        for text, style in row:
            fitting = _beginning(text, room)
            kept.append((fitting, style))
            room -= shown_width(fitting)
            if fitting != text:
                break
        return [*kept, (mark, Style.label)]


def _beginning(text: str, width: int) -> str:
    """As much of a text as fits."""
    taken = 0
    for number, character in enumerate(text):
        taken += shown_width(character)
        if taken > width:
            return text[:number]
    return text


def _digits(value: float) -> str:
    """About five digits, in at most 8 characters."""
    size = abs(value)
    if size < 1000 and (size >= 0.001 or value == 0):
        return f"{value:.4f}"
    return f"{value:.2e}"


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:,.0f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:,.0f} s"


def _steps(number: int) -> str:
    return "step" if number == 1 else "steps"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02} h" if days else f"{hours}:{minutes:02}:{rest:02}"
