"""A panel: one picture of the page, with the table behind it. Python chooses the data, report.js draws it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Panel:
    """One picture."""

    key: str
    """Its name in the page's addresses and in tests: letters, digits, `-`, `_` and `/`."""
    title: str
    group: str
    """The section of the page that it stands in."""
    kind: str
    """How it is drawn: the name of a renderer of report.js."""
    data: dict[str, Any]
    """What the renderer takes: JSON values alone; what does not exist is None."""
    note: str = ""
    """A sentence or two below the title: what is shown, and what it leaves out."""
    columns: tuple[str, ...] = ()
    """Headings of the table, for those who do not see the picture."""
    rows: list[list[Any]] = field(default_factory=list)
    """Its rows: numbers and texts."""
