"""The state of runs:  python -m launch status [RUN [--field state]]

For people: the runs of a folder as a table, or one run in words. For scripts: one field of its status.json. The state
is "interrupted" where status.json still says running after a kill. Only the standard library is imported, so that
scripts can ask often. A file that cannot be read ends the command with exit code 2.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from configs import at_work
from configs.errors import ConfigError, RecordError, UserError
from configs.run_paths import RunPaths
from configs.run_status import read_status, slow_hosts, status_fields, stop_reason
from configs.terminal import columns, visible
from launch.options import parse
from launch.status_words import age, described, table

T = TypeVar("T")

RUNS = Path("runs")
STOP_REASON = "stop_reason"
"""Name of the field with the reason why a run stopped, which is read from events.jsonl."""
SLOW_HOSTS = "slow_hosts"
"""Name of the field with the hosts of slow ranks, with blanks between them; read from events.jsonl, too."""


def status(words: list[str]) -> str:
    """A table of runs, one run in words, or with --field the value of one field.

    Args:
        words: a run folder, or a folder of runs (default: runs), and `--field NAME`.

    Raises:
        UserError: there is no such run or field, or the run's status.json is damaged.
    """
    request = parse(words, (), ("--field",))
    if len(request.overrides) > 1:
        raise ConfigError(["Name one run folder. Try python -m launch status runs/default."])
    run = Path(request.overrides[0]) if request.overrides else RUNS
    wanted = request.values.get("--field", [None])[-1]
    if wanted is None and (listed := _listed(run)):
        return listed
    if not request.overrides:
        if wanted is not None:
            raise ConfigError(
                [f"--field needs a run. Try python -m launch status runs/default --field {wanted}."]
            )
        return f"There is no run in {RUNS}. Start one with: python -m train"
    found = _fields(run, wanted in (None, STOP_REASON))
    if found is not None and wanted in (None, SLOW_HOSTS):
        found[SLOW_HOSTS] = " ".join(_answered(lambda: slow_hosts(run), run))
    if found is None:
        raise UserError(
            f"{visible(str(RunPaths(run).status), keep='')} does not exist: the run has not begun, or it is another "
            "folder. Try the folder of a run, such as runs/default; python -m launch status lists those of runs."
        )
    if wanted is None:
        return described(_shown(run), found, time.time(), columns())
    if wanted not in found:
        raise ConfigError(
            [f"--field ({visible(wanted, keep='')}) is not one of {', '.join(found)}."]
        )
    return _shown(found[wanted])


def samples_seen(run: Path) -> int:
    """The samples seen at a run's last checkpoint; 0 for a run that has not begun.

    Raises:
        UserError: the run's status.json is damaged.
    """
    found = _answered(lambda: read_status(run), run)
    return 0 if found is None else found.samples_seen


def _listed(folder: Path) -> str | None:
    """The table of a folder's runs, most recently written first; None if the folder is a run or holds none."""
    if RunPaths(folder).status.exists():
        return None
    try:
        runs = sorted(path for path in folder.iterdir() if RunPaths(path).status.exists())
    except OSError:
        return None
    rows = list[tuple[float, tuple[str, str, str, str]]]()
    now = time.time()
    for run in runs:
        try:
            found = _fields(run, has_reason=False) or {}
        except UserError:
            rows.append((0.0, (_shown(run.name), "unreadable", "", "")))
            continue
        state, written = found.get("state", "unknown"), found.get("time")
        samples = f"{found.get('samples_seen', 0):,}"
        when = "" if written is None else age(now - written)
        rows.append((written or 0.0, (_shown(run.name), state, samples, when)))
    rows.sort(key=lambda row: -row[0])
    return table([row for _, row in rows], columns()) if rows else None


def _fields(run: Path, has_reason: bool) -> dict[str, Any] | None:
    """The fields of a run's status.json, with the state as it is now; None if there is no status.json.

    Args:
        run: run folder.
        has_reason: True: add the reason why a stopped run stopped.
    """
    found = _answered(lambda: status_fields(run), run)
    if found is not None and "state" in found:
        stored: str = found["state"]
        found["state"] = _answered(lambda: at_work.shown(stored, run), run)
    if found is not None and found.get("state") == "stopped" and has_reason:
        reason = _answered(lambda: stop_reason(run), run)
        found |= {} if reason is None else {STOP_REASON: reason}
    return found


def _answered(ask: Callable[[], T], run: Path) -> T:
    """Call a function that reads a run's files; a file that cannot be read becomes a `UserError`."""
    try:
        return ask()
    except RecordError as error:
        raise UserError(visible(str(error), keep="")) from error
    except OSError as error:
        named = visible(str(run), keep="")
        raise UserError(f"{named} cannot be read: {error.strerror}.") from error


def _shown(value: Any) -> str:
    return visible(str(value), keep="")
