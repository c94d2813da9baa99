"""How a run is, for scripts:  python -m launch status RUN [--field state]

The fields of its status.json; the state is "interrupted" where that still says running after a kill. Of the standard library alone, and quick: scripts ask often. What cannot be read ends with exit code 2.
"""

import json
from pathlib import Path
from typing import Any, cast

from configs import at_work
from configs.errors import ConfigError, RecordError, UserError
from configs.files import read_text
from configs.terminal import visible
from launch.options import parse

_LARGEST = 2**20
_KINDS: dict[str, tuple[type, ...]] = {
    "format_version": (int,),
    "generation": (int,),
    "state": (str,),
    "samples_seen": (int,),
    "message": (str,),
    "time": (int, float),
}


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
    found = _read(run)
    if "state" in found:
        found["state"] = _state(found["state"], run)
    wanted = request.values.get("--field")
    if wanted is None:
        return "\n".join(f"{name}={_shown(value)}" for name, value in found.items())
    if wanted[-1] not in found:
        raise ConfigError(
            [f"--field ({visible(wanted[-1], keep='')}) is not one of {', '.join(found)}."]
        )
    return _shown(found[wanted[-1]])


def samples_seen(run: Path) -> int:
    """How far a run is: after its last checkpoint; 0 for one that has not begun.

    Raises:
        UserError: its status.json is damaged.
    """
    return _read(run).get("samples_seen", 0) if (run / "status.json").exists() else 0


def _read(run: Path) -> dict[str, Any]:
    """The known fields, each of its type and none negative, in the order of the file."""
    path = run / "status.json"
    named = visible(str(path), keep="")
    try:
        stored: Any = json.loads(read_text(path, _LARGEST))
    except FileNotFoundError:
        raise UserError(
            f"{named} does not exist: the run has not begun, or it is another folder. Try the folder of a run, such as "
            "runs/default."
        ) from None
    except RecordError as error:
        raise UserError(visible(str(error), keep="")) from error
    except OSError as error:
        raise UserError(f"{named} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{named} is damaged or not of this program: it is no JSON.") from error
    fields: dict[str, Any] = cast(dict[str, Any], stored) if isinstance(stored, dict) else {}
    found = {name: value for name, value in fields.items() if name in _KINDS}
    if not found or not all(_fits(name, value) for name, value in found.items()):
        raise UserError(f"{named} is damaged or not of this program.")
    return found


def _state(stored: str, run: Path) -> str:
    try:
        return at_work.shown(stored, run)
    except OSError as error:
        named = visible(str(run), keep="")
        raise UserError(f"The generations of {named} cannot be read: {error.strerror}.") from error


def _fits(name: str, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, _KINDS[name]):
        return False
    return isinstance(value, str) or 0 <= value < 2**62


def _shown(value: Any) -> str:
    return visible(str(value), keep="")
