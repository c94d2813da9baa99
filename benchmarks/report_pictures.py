"""The pictures of docs/report.md:  python -m benchmarks.report_pictures RUN [FOLDER]

Opens the page of a run in a headless Chromium, in light colours on a desk and in dark ones on a phone, and writes what is
seen into a folder; default docs/images.
"""

import sys
import tempfile
import time
from pathlib import Path

from benchmarks.trees import ROOT
from tests.helpers.chromium import Page, page
from train.report.page import render

_SECONDS_TO_DRAW = 1.5


def main(words: list[str]) -> int:
    """Write both pictures; returns the exit code."""
    if not 1 <= len(words) <= 2:
        print(__doc__, file=sys.stderr)
        return 2
    target = Path(words[1]) if len(words) == 2 else ROOT / "docs" / "images"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, page(Path(folder)) as opened:
        path = Path(folder) / "page.html"
        path.write_text(render([Path(words[0])]))
        opened.resize(1280, 1180)
        _shoot(opened, path, "light", target / "report_light.png")
        opened.resize(390, 1180, is_phone=True)
        _shoot(opened, path, "dark", target / "report_dark_phone.png")
    return 0


def _shoot(opened: Page, path: Path, scheme: str, target: Path) -> None:
    opened.prefer(scheme)
    opened.call("Emulation.setScrollbarsHidden", hidden=True)
    opened.open(path)
    opened.wait_for("report.handles.size > 0")
    if scheme == "dark":
        opened.evaluate(
            "document.getElementById('group-losses').scrollIntoView({behavior: 'instant'})"
        )
    time.sleep(_SECONDS_TO_DRAW)
    opened.screenshot(target)
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
