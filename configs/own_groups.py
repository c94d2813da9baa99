"""A group's choice: a preset by name, or a file of the user in --config-dir DIR or by its path.

    python -m train model=my.yaml                                 a path: it has a / or ends in .yaml
    python -m train --config-dir DIR model=my experiment=mine     DIR/model/my.yaml and DIR/experiment/mine.yaml

A file has the keys of its group; an experiment has any keys, and may choose other groups as the presets do:

    defaults:
      - override /model: my

A run keeps the values in its config.yaml. If a file is gone when the same command starts the run again, they are taken
from there.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast, get_type_hints

from configs.errors import ConfigError, RecordError
from configs.home import expanded
from configs.keys import GROUPS, nearest, presets, type_of, unknown
from configs.records import read_text
from configs.words import CONFIG_DIR, Line
from configs.yaml_text import parse_yaml

_CHOOSABLE = ("model", "optim", "parallel")


class OwnGroup(NamedTuple):
    """The values of a group from a user's file, or from the run's record of it.

    Attributes:
        source: the file, for messages.
        values: the values by key; their types are not checked yet.
    """

    source: str
    values: dict[str, Any]


@dataclass
class Choice:
    """The choices of all groups.

    Attributes:
        presets: names of presets, by group; a group that is in neither `presets` nor `own` takes its default.
        own: values of the user's files, by group.
        found: problems of the choices and of the files.
        missing: the message for each file that is gone, by group.
    """

    presets: dict[str, str]
    own: dict[str, OwnGroup]
    found: list[str]
    missing: dict[str, str]


def choose(line: Line) -> Choice:
    """Find and read the choice of each group on a command line."""
    chosen = Choice({}, {}, [], {})
    folder = None if not line.config_dir else Path(expanded(line.config_dir))
    if folder is not None and folder.is_dir():
        chosen.found += _folder_problems(folder)
    wanted = dict(line.choices)
    experiment = wanted.pop("experiment", None)
    if experiment is not None:
        for group, name in _add(chosen, "experiment", experiment, folder, Path()).items():
            wanted.setdefault(group, name)
    here = Path() if experiment is None else Path(experiment).parent
    for group, name in wanted.items():
        _add(chosen, group, name, folder, Path() if group in line.choices else here)
    return chosen


def own_names(folder: Path, group: str) -> list[str]:
    """The names of a group's files in --config-dir, without their suffix."""
    return sorted(path.stem for path in (folder / group).glob("*.yaml"))


def _add(chosen: Choice, group: str, name: str, folder: Path | None, here: Path) -> dict[str, str]:
    """Add the choice of one group; returns the groups that an experiment of the user chooses."""
    if _is_path(name):
        path = here / expanded(name)
        if path.stem in presets(group):
            chosen.found.append(f"{group} ({name}): {_taken(group, path.stem)}")
            return {}
    elif name in presets(group):
        chosen.presets[group] = name
        return {}
    elif folder is not None:
        path = folder / group / f"{name}.yaml"
    else:
        chosen.found.append(_no_such(group, name, presets(group)))
        return {}
    try:
        read = _read(group, path)
    except FileNotFoundError:
        chosen.missing[group] = _missing(group, name, path, folder)
        return {}
    except (RecordError, OSError) as error:
        chosen.found.append(str(error))
        return {}
    except ConfigError as error:
        chosen.found += error.problems
        return {}
    chosen.own[group] = OwnGroup(str(path), read.values)
    return read.others


class _Read(NamedTuple):
    values: dict[str, Any]
    others: dict[str, str]


def _read(group: str, path: Path) -> _Read:
    """Read a file of a group.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: it is not a regular text file.
        ConfigError: its contents have problems; the message lists all of them.
    """
    try:
        tree = parse_yaml(read_text(path))
    except ValueError as error:
        raise ConfigError([f"{path}: {error}."]) from error
    found: list[str] = []
    others: dict[str, str] = {}
    is_experiment = group == "experiment"
    if "defaults" in tree:
        defaults = tree.pop("defaults")
        if is_experiment:
            others = _others(defaults, found)
        else:
            found.append(
                f"only an experiment may choose other groups. Take defaults out of this {group}."
            )
    values = dict(_values(tree, "" if is_experiment else group, found))
    if is_experiment:
        values.setdefault("experiment", path.stem)
    if found:
        raise ConfigError([f"{path}: {problem}" for problem in found])
    return _Read(values, others)


def _values(tree: dict[Any, Any], prefix: str, found: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a mapping; unknown keys are added to `found`."""
    known = get_type_hints(type_of(prefix))
    for name, value in tree.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if name not in known:
            is_nested = name == prefix
            found.append(
                f"the keys of {prefix} stand here, without {prefix}: above them."
                if is_nested
                else unknown(key)
            )
        elif is_dataclass(type_of(key)) and isinstance(value, dict):
            yield from _values(cast(dict[Any, Any], value), key, found)
        elif _is_interpolated(value):
            found.append(f"{key} ({value}) must be a plain value, without interpolation.")
        else:
            yield key, value


def _is_interpolated(value: Any) -> bool:
    if isinstance(value, str):
        return "${" in value or value.strip() == "???"
    if isinstance(value, dict):
        return any(map(_is_interpolated, cast(dict[Any, Any], value).values()))
    return isinstance(value, list) and any(map(_is_interpolated, cast(list[Any], value)))


def _others(defaults: Any, found: list[str]) -> dict[str, str]:
    """The groups that the `defaults` of an experiment choose."""
    others: dict[str, str] = {}
    entries = cast(list[Any], defaults) if isinstance(defaults, list) else [defaults]
    for entry in entries:
        if entry == "_self_":
            continue
        pairs = list(cast(dict[Any, Any], entry).items()) if isinstance(entry, dict) else []
        for word, name in pairs:
            group = str(word).removeprefix("override ").removeprefix("/")
            if str(word).startswith("override /") and group in _CHOOSABLE and isinstance(name, str):
                others[group] = name
                continue
            pairs = []
        if not pairs:
            found.append(
                f'defaults ({entry}) must be lines such as "- override /model: NAME", for model, optim or parallel.'
            )
    return others


def _folder_problems(folder: Path) -> list[str]:
    """The problems of the folder --config-dir itself."""
    if not any((folder / group).is_dir() for group in GROUPS):
        return [
            f"{CONFIG_DIR} ({folder}) holds none of the folders {', '.join(GROUPS)}. Put a model of your own into "
            f"{folder}/model, or type its path: model=FILE.yaml"
        ]
    return [
        f"{folder / group / name}.yaml: {_taken(group, name)}"
        for group in GROUPS
        for name in own_names(folder, group)
        if name in presets(group)
    ]


def _taken(group: str, name: str) -> str:
    return f"{name} is the name of a preset, {group}={name}. Give the file another name."


def _missing(group: str, name: str, path: Path, folder: Path | None) -> str:
    """The message for a chosen file that does not exist."""
    if _is_path(name):
        return f"{group} ({name}): there is no file {path}.{nearest(path.stem, presets(group))}"
    assert folder is not None, "a name that is not a preset is looked up in --config-dir"
    if not folder.is_dir():
        kind = "is not a folder" if folder.exists() else "does not exist"
        return f"{CONFIG_DIR} ({folder}) {kind}. {group}={name} is looked for there."
    return _no_such(group, name, [*presets(group), *own_names(folder, group)])


def _no_such(group: str, name: str, known: list[str]) -> str:
    return f"{group} ({name}) is not one of {', '.join(known)}.{nearest(name, known)}"


def _is_path(name: str) -> bool:
    return os.sep in name or name.endswith((".yaml", ".yml"))
