"""The names and types of all keys, and the messages for wrong ones, on a command line or in a file."""

import difflib
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from importlib import resources
from typing import Any, cast, get_args, get_origin, get_type_hints

from configs.document import documented_keys, without_none
from configs.schema import Config, Recompute

GROUPS = ("model", "optim", "parallel", "experiment")


def presets(group: str) -> list[str]:
    """The choices of a group that come with this program."""
    names = [entry.name for entry in (resources.files("configs") / group).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


# What YAML makes of the words on and off.
_SWITCH = {True: "on", False: "off"}
# Keys that had two values before they had more.
_ENUM_OF_BOOL: dict[Any, dict[bool, str]] = {
    Recompute: {True: Recompute.full.value, False: Recompute.none.value}
}


@lru_cache(maxsize=1)
def known_keys() -> tuple[str, ...]:
    """Every key that can be set, in the schema's order."""
    return (*(key.name for key in documented_keys()), "optim.batch_ramp")


def unknown(name: str) -> str:
    """The message for an unknown key, with the keys that may be meant."""
    known = list(dict.fromkeys([*known_keys(), *GROUPS]))
    return f'There is no key "{name}".{nearest(name, known) or " See python -m train --help"}'


def nearest(name: str, known: list[str]) -> str:
    """Name the known names most similar to this one, and those with the same ending; "" if there are none."""
    likeness = {key: difflib.SequenceMatcher(None, name, key).ratio() for key in known}
    least = max(0.5, max(likeness.values()) - 0.1)
    close = [
        key for key in sorted(known, key=likeness.__getitem__)[::-1][:3] if likeness[key] >= least
    ]
    leaf = name.rpartition(".")[2]
    close += [key for key in known if key.rpartition(".")[2] == leaf and key not in close][:2]
    return f" Did you mean {' or '.join(close)}?" if close else ""


def type_of(key: str) -> Any:
    """The type of a key or section when it is set; "" is the whole configuration."""
    hint: Any = Config
    for name in key.split(".") if key else ():
        hint = without_none(get_type_hints(hint)[name])
    return hint


def expected(hint: Any) -> str:
    """Describe a type in words."""
    if is_dataclass(hint):
        names = ", ".join(field.name for field in fields(hint))
        return f"given by its keys ({names}) or null"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(str(member.value) for member in hint)
    words: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a word",
        list[str]: "a list such as [a,b], or one alone",
        list[float]: "a list of numbers such as [1,2]",
        list[list[int]]: "a list of pairs of whole numbers such as [[1,5]]",
        list[list[float]]: "a list of pairs of numbers such as [[0,0.1]]",
    }
    return words[hint]


def coerce(value: Any, hint: Any) -> Any:
    """Convert a value to its type: one path becomes a list of paths, 1e6 a whole number, 1 a float.

    Raises:
        ValueError: lists are not nested as in the type.
    """
    if value is None or is_dataclass(hint):
        return value
    if isinstance(value, bool) and isinstance(hint, type) and issubclass(hint, Enum):
        return _ENUM_OF_BOOL.get(hint, _SWITCH)[value]
    if get_args(hint) in ((str,), (float,)) and not isinstance(value, list):
        value = [value]
    return _coerce_nested(value, hint)


def read_as_today(values: dict[str, Any]) -> None:
    """Give stored values of keys that had another type in earlier versions the type of today.

    Args:
        values: of a stored configuration, by section; changed in place.
    """
    parallel = values.get("parallel")
    if isinstance(parallel, dict):
        stored = cast(dict[str, Any], parallel)
        if isinstance(stored.get("recompute"), bool):
            stored["recompute"] = coerce(stored["recompute"], Recompute)


def _coerce_nested(value: Any, hint: Any) -> Any:
    if get_origin(hint) is list and isinstance(value, list):
        return [_coerce_nested(item, get_args(hint)[0]) for item in cast(list[Any], value)]
    if get_origin(hint) is list or isinstance(value, (list, dict)):
        raise ValueError("not the type's nesting")
    if hint is float and type(value) is int:
        return float(value)  # OmegaConf refuses a whole number inside a list of numbers
    if hint is int and type(value) is float and value.is_integer():
        return int(value)
    return value


def leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The dotted keys of a nested configuration and their values; of an enumeration's member its name."""
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += leaves(cast(dict[str, Any], value), f"{prefix}{name}.")
        else:
            found.append((prefix + name, value.value if isinstance(value, Enum) else value))
    return found
