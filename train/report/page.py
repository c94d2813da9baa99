"""One self-contained HTML page with the curves of one or several runs.

Nothing is loaded: scripts and styles are inside the page, so that it can be mailed and opens without a network. Data stand
in it as JSON, and reach the screen as text alone.
"""

import html
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from configs.errors import RecordError, RunFolderError
from configs.records import read_file
from configs.terminal import visible
from configs.version import DISTRIBUTION, version
from train.report.events import events_of
from train.report.inlined import as_script_data, policy, scripts, style
from train.report.overview import run_facts
from train.report.panel import GROUPS, Panel
from train.report.read import RunData, end_of_axis, read_run, with_own_names
from train.report.subjects import all_panels
from train.small_files import replace_file

# This mark is in every page that the command writes; a file without it is not replaced.
_MARK = '<meta name="generator" content="glm-pretraining">'
_LARGEST_PAGE = 2**30


def render(
    folders: Sequence[Path],
    report: Callable[[str], None] = lambda _: None,
    *,
    is_live: bool = False,
) -> str:
    """Render the page.

    Args:
        folders: run folders, one at least.
        report: called with a message about each file that cannot be read; the page contains the messages, too.
        is_live: True for the page of `--serve`, which may ask its own server for news.

    Returns:
        The page as HTML.

    Raises:
        RecordError: the metrics of a run cannot be read.
        RunFolderError: a folder has no metrics.
        OSError: the file system failed.
    """
    return page_of(page_data([read_run(folder, report) for folder in folders], is_live=is_live))


def page_of(data: dict[str, Any]) -> str:
    """Put data into a page.

    Args:
        data: as `page_data` makes them.
    """
    title = ", ".join(run["name"] for run in data["runs"])
    page_scripts, page_style = scripts(), style()
    allowed = html.escape(policy(page_scripts, page_style, is_live=data["live"]), quote=True)
    elements = "\n".join(f"<script>{script}</script>" for script in page_scripts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{_MARK}
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{page_style}</style></head><body>
<noscript><p>The curves are drawn by scripts inside this page, which this browser does not run.</p></noscript>
<div id="report"></div>
<script type="application/json" id="report-data">{as_script_data(data)}</script>
{elements}
</body></html>
"""


def page_data(runs: Sequence[RunData], *, is_live: bool = False) -> dict[str, Any]:
    """All that the page's scripts are given, as JSON values; `--serve` sends it anew."""
    runs = with_own_names(runs)
    panels = all_panels(runs)
    return {
        "version": version(DISTRIBUTION),
        "written": time.time(),
        "live": is_live,
        "runs": [run_facts(run, number) for number, run in enumerate(runs)],
        "remarks": [visible(remark) for run in runs for remark in run.remarks],
        "axis": {"min": 0, "max": max(map(end_of_axis, runs))},
        "groups": _groups(panels),
        "panels": [panel.to_json() for panel in panels],
        "events": [event for number, run in enumerate(runs) for event in events_of(run, number)],
    }


def _groups(panels: Sequence[Panel]) -> list[dict[str, str]]:
    used = {panel.group for panel in panels}
    return [
        {"key": group.lower().replace(" ", "-"), "title": group}
        for group in GROUPS
        if group in used
    ]


def write(output: Path, page: str) -> None:
    """Write the page; an existing file that this command has not written is not replaced.

    Raises:
        RunFolderError: the page cannot be written, or another file is in its place.
    """
    try:
        if not is_own_page(output):
            raise RunFolderError(
                f"{output} was not written by this command, so it is not replaced. Move it away, or choose another "
                "place with --output FILE."
            )
        replace_file(output, page)
    except OSError as error:
        raise RunFolderError(
            f"{output} cannot be written: {error.strerror}. Choose another place with --output FILE."
        ) from error


def is_own_page(output: Path) -> bool:
    """True if there is no file at this path, or a page that this command has written.

    Raises:
        OSError: the file system failed.
    """
    try:
        return not output.is_symlink() and _MARK.encode() in read_file(output, _LARGEST_PAGE)[:4096]
    except (FileNotFoundError, NotADirectoryError):
        return True
    except RecordError:
        return False
