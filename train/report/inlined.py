"""What the page holds besides its data: scripts and styles, and the policy that allows these and nothing else."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).with_name("assets")
LIBRARY = "echarts.min.js"
"""Apache ECharts, as it is published; versions.json has its version and checksum."""
# In the order in which they run: report.js makes what the others add to, start.js draws the page.
_SCRIPTS = (
    LIBRARY,
    "report.js",
    "tooltip.js",
    "zoom.js",
    "lines.js",
    "heatmap.js",
    "timeline.js",
    "texts.js",
    "pictures.js",
    "goodput.js",
    "ranks.js",
    "schedule.js",
    "mask.js",
    "frame.js",
    "live.js",
    "start.js",
)
_STYLE = "report.css"


def scripts() -> list[str]:
    """The scripts of the page, in order."""
    return [_text(name) for name in _SCRIPTS]


def style() -> str:
    """The style of the page."""
    return _text(_STYLE)


def policy(scripts: list[str], style: str, *, is_live: bool) -> str:
    """The Content-Security-Policy of the page: what is inside of it may run, and nothing may be loaded.

    Args:
        scripts: the texts of its script elements.
        style: the text of its style element.
        is_live: True if it may ask the server that it comes from for news.
    """
    allowed = " ".join(_source(script) for script in scripts)
    connections = "connect-src 'self'; " if is_live else ""
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_source(style)}; "
        f"{connections}base-uri 'none'; form-action 'none'"
    )


def as_script_data(values: Any) -> str:
    """JSON that a script element can hold: it has no character that could end the element or begin a comment.

    Args:
        values: JSON values alone; no infinities.
    """
    text = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _text(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
