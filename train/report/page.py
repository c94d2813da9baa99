"""One self-contained HTML page with a run's curves.

The charts are inline SVG and no external script is loaded, so the page can be mailed and opens without a network.
"""

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from configs.errors import RecordError, RunFolderError
from configs.nearby import without_lines
from configs.records import read_file, read_text
from configs.run_files import Event, MetricsLine, number, read_events, read_metrics
from configs.run_paths import CONFIG, METRICS, RunPaths
from configs.run_state import shown_state
from configs.terminal import visible
from train.report.charts import CHARTS, draw, shown_number, with_objectives
from train.small_files import replace_file

T = TypeVar("T")

# This mark is in every page that the command writes; a file without it is not replaced.
_MARK = '<meta name="generator" content="glm-pretraining">'
_LARGEST_PAGE = 2**30
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --quiet: #68758a; --line: #d8dee8; --page: #fff; --card: #f6f8fb }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6ebf3; --quiet: #98a5b9; --line: #364154; --page: #141a23; --card: #1c2430 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
  max-width: 1200px; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { font-size: 1rem; margin: 0 0 .4rem } .quiet { color: var(--quiet) }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(520px, 100%), 1fr)); gap: 1rem }
.card { background: var(--card); border-radius: 8px; padding: 1rem; overflow-x: auto }
svg { width: 100%; height: auto } svg text { fill: var(--quiet); font-size: 11px } .grid { stroke: var(--line) }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .15rem .8rem .15rem 0;
  vertical-align: top } pre { white-space: pre-wrap; margin: 0; font-size: 13px }
.key { display: inline-block; margin-right: 1rem } .dot { display: inline-block; width: .7em; height: .7em;
  border-radius: 50%; margin-right: .35em }
"""


def render(folder: Path, report: Callable[[str], None] = lambda _: None) -> str:
    """Render the page of one run.

    Args:
        folder: run folder.
        report: called with a message about each file that cannot be read; the page contains the messages, too.

    Returns:
        The page as HTML.

    Raises:
        RecordError: the metrics cannot be read.
        RunFolderError: the folder has no metrics.
        OSError: the file system failed.
    """
    remarks = list[str]()

    def remark(text: str) -> None:
        remarks.append(text)
        report(text)

    lines = read_metrics(folder, remark)
    if not lines:
        raise without_lines(folder, METRICS, "python -m train.report runs/default")
    name = _escaped(folder.resolve().name)
    charts = "".join(draw(chart, lines) for chart in CHARTS)
    state = _or_none(lambda: shown_state(folder), remark) or "unknown"
    events = _or_none(lambda: read_events(folder, remark), remark) or []
    text = _or_none(lambda: read_text(RunPaths(folder).config), remark) or f"(no {CONFIG})"
    position = [lines[-1].get(key, 0) for key in ("samples_seen", "tokens_seen", "step")]
    notes = "".join(f'<p class="quiet">{_escaped(each)}</p>' for each in remarks)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{_MARK}<title>{name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>
<h1>{name}</h1>
<p class="quiet">{_escaped(state)} - {position[0]:,} samples,
{position[1]:,} tokens, {position[2]:,} steps</p>{notes}
<div class="card"><h2>Now</h2>{_summary(lines)}</div><br>
<div class="charts">{charts}</div><br>
<div class="card"><h2>Events</h2>{_events(events)}</div><br>
<div class="card"><h2>Configuration</h2><pre>{_escaped(text)}</pre></div>
</body></html>
"""


def _or_none(read: Callable[[], T], remark: Callable[[str], None]) -> T | None:
    """What `read` returns; None if the file is missing, or cannot be read, which is then remarked on."""
    try:
        return read()
    except FileNotFoundError:
        return None
    except RecordError as error:
        remark(str(error))
        return None


def _escaped(text: str) -> str:
    return html.escape(visible(text))


def _summary(lines: Sequence[MetricsLine]) -> str:
    shown = []
    for key in ("train/loss", *with_objectives(("valid/loss",), lines)):
        values = [value for line in lines if (value := number(line.get(key))) is not None]
        if values:
            shown.append(f"<tr><td>{key}</td><td>{shown_number(values[-1])}</td></tr>")
    return f"<table>{''.join(shown)}</table>"


def _events(events: Sequence[tuple[Event, dict[str, Any]]]) -> str:
    rows = []
    for event, details in events:
        text = ", ".join(f"{key}: {value}" for key, value in details.items())
        rows.append(
            f"<tr><td>{_escaped(event.event)}</td><td class='quiet'>{_escaped(text)}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


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
