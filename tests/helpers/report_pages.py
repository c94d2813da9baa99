"""The page of the report, read back without a browser: its elements, and the data that it holds."""

import json
from html.parser import HTMLParser
from typing import Any


class Elements(HTMLParser):
    """All elements of a page with their attributes, and the text inside each script and style.

    Args:
        page: HTML.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, dict[str, str | None], str]] = []
        self._open: tuple[str, dict[str, str | None]] | None = None
        self._parts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open, self._parts = self.found[-1], []

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._parts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if self._open is not None and tag == self._open[0]:
            self.texts.append((*self._open, "".join(self._parts)))
            self._open = None


def data_of(page: str) -> dict[str, Any]:
    """The data inside a page, as its scripts read them."""
    (text,) = [
        text
        for tag, attributes, text in Elements(page).texts
        if tag == "script" and attributes.get("id") == "report-data"
    ]
    return json.loads(text)


def panel_of(page: str, key: str) -> dict[str, Any]:
    """One panel of a page, by its key."""
    (panel,) = [each for each in data_of(page)["panels"] if each["key"] == key]
    return panel
