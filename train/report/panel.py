"""A panel: one picture of the page, with the table behind it. Python chooses the data, the page's scripts draw it."""

from dataclasses import dataclass, field
from typing import Any

GROUPS = (
    "Overview",
    "Losses",
    "Optimisation",
    "Layers",
    "Throughput",
    "Memory",
    "Reliability",
    "Data",
    "Filled blanks",
    "Pictures",
    "Configuration",
)
"""The sections of the page, in order; one without a panel is left out."""


@dataclass(frozen=True)
class Panel:
    """One picture."""

    key: str
    """Its name in the page's addresses and in tests: letters, digits, `-`, `_` and `/`."""
    title: str
    group: str
    """The section of the page that it stands in: one of GROUPS."""
    kind: str
    """How it is drawn: the name of a renderer of the page's scripts (`report.renderers`)."""
    data: dict[str, Any]
    """What the renderer takes: JSON values alone; what does not exist is None."""
    note: str = ""
    """A sentence or two below the title: what is shown, and what it leaves out."""
    columns: tuple[str, ...] = ()
    """Headings of the table, for those who do not see the picture."""
    rows: list[list[Any]] = field(default_factory=list)
    """Its rows: numbers and texts. Without columns, the renderer may make a table of its data (`handle.table`)."""
    is_wide: bool = False
    """True for a picture that takes the page's whole width."""

    def to_json(self) -> dict[str, Any]:
        """What the page's data hold of it."""
        return {
            "key": self.key,
            "title": self.title,
            "group": self.group,
            "kind": self.kind,
            "data": self.data,
            "note": self.note,
            "columns": list(self.columns),
            "rows": self.rows,
            "wide": self.is_wide,
        }
