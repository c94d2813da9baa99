"""How a run is, for scripts:  python -m launch status RUN [--field state]

The fields of its status.json; the state is "interrupted" where that still says running after a kill. Of the standard
library alone, and quick: scripts ask often. What cannot be read ends with exit code 2.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from configs import at_work
from configs.errors import ConfigError, RecordError, UserError
from configs.nearby import did_you_mean, runs_near
from configs.run_paths import RunPaths
from configs.run_status import read_status, status_fields, stop_reason
from configs.terminal import visible
from launch.options import parse

T = TypeVar("T")

STOP_REASON = "stop_reason"
"""Of a stopped run, from events.jsonl."""


def status(words: list[str]) -> str:
    """The fields of a run, `name=value` a line; with --field the value of one alone.

    Args:
        words: the run folder, and `--field NAME`.

    Raises:
        UserError: there is no such run or field, or its status.json is damaged.
    """
    request = parse(words, (), ("--field",))
    if len(request.overrides) != 1:
        raise ConfigError(["Name one run folder. Try python -m launch status runs/default."])
    run = Path(request.overrides[0])
    wanted = request.values.get("--field", [None])[-1]
    found = _answered(lambda: status_fields(run), run)
    if found is None:
        advice = "" if run.is_dir() else did_you_mean(runs_near(run))
        raise UserError(
            visible(
                f"{RunPaths(run).status} does not exist: the run has not begun, or it is another folder. "
                + (advice or "Try the folder of a run, such as runs/default."),
                keep="",
            )
        )
    if "state" in found:
        stored: str = found["state"]
        found["state"] = _answered(lambda: at_work.shown(stored, run), run)
    if found.get("state") == "stopped" and wanted in (None, STOP_REASON):
        reason = _answered(lambda: stop_reason(run), run)
        found |= {} if reason is None else {STOP_REASON: reason}
    if wanted is None:
        return "\n".join(f"{name}={_shown(value)}" for name, value in found.items())
    if wanted not in found:
        raise ConfigError(
            [f"--field ({visible(wanted, keep='')}) is not one of {', '.join(found)}."]
        )
    return _shown(found[wanted])


def samples_seen(run: Path) -> int:
    """How far a run is: after its last checkpoint; 0 for one that has not begun.

    Raises:
        UserError: its status.json is damaged.
    """
    found = _answered(lambda: read_status(run), run)
    return 0 if found is None else found.samples_seen


def _answered(ask: Callable[[], T], run: Path) -> T:
    """What a run's files say; one that cannot be read is the user's to look at."""
    try:
        return ask()
    except RecordError as error:
        raise UserError(visible(str(error), keep="")) from error
    except OSError as error:
        named = visible(str(run), keep="")
        raise UserError(f"{named} cannot be read: {error.strerror}.") from error


def _shown(value: Any) -> str:
    return visible(str(value), keep="")
