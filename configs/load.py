"""From a command line to a typed, checked Config. This is the only file that uses Hydra.

Hydra composes the groups (`model=glm_110m`, `experiment=glm_130b`); single keys are then set one by one, so that every
mistake on the line is found and reported at once, with the nearest known name or the choices. `@hydra.main` is not
used: it reports one error at a time, advises `+key`, and makes folders.

Hydra and OmegaConf are imported only when something is composed, so that `--help` does not wait for them.
"""

import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from configs import derive
from configs.checks import text
from configs.errors import ConfigError, RecordError
from configs.home import expanded, with_home
from configs.keys import GROUPS, coerce, expected, leaves, read_as_today, type_of
from configs.own_groups import Choice, OwnGroup, choose
from configs.records import read_text
from configs.run_paths import RunPaths
from configs.schema import Config
from configs.terminal import tell
from configs.validate import are_sizes_sound, problems
from configs.words import CONFIG_DIR, Line, joined
from configs.yaml_text import parse_yaml

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Lists whose words Hydra's grammar wants in quotes although they are unambiguous, such as
# [NCCL_DEBUG=INFO,--exclusive]. Inner brackets belong to a word, as in [nid[0001-0008,12],--constraint=[rack1|rack2]].
_PLAIN_LIST = re.compile(r"\[(?:[^\[\]{}'\"\\\n]|\[[^\[\]{}'\"\\\n]*\])*\]")
_OUTER_COMMA = re.compile(r",(?![^\[\]]*\])")

# Name under which Hydra finds the values of a user's file.
_OWN = "own_file"

# Overrides that apply to one start only and are not taken over by the next.
_OF_ONE_START = ("run.", "checkpoint.resume", "checkpoint.init_from", "data.accept_changed")


def _warn(words: str) -> None:
    tell(words, sys.stderr)


def load_config(
    overrides: list[str],
    world_size: int | None = None,
    also: Callable[[Config], list[str]] | None = None,
    position: Callable[[Config], int] = lambda config: 0,
    log: Callable[[str], None] = _warn,
) -> Config:
    """Compose and check the configuration of a run.

    Args:
        overrides: words of the command line, `key=value`, `group=choice` and `--config-dir DIR`; if a key is given
            twice, the last value counts.
        world_size: number of processes; None: unknown, checks that need it use `cluster.*`.
        also: a further check, called only if the sizes are valid; its problems are reported with the others.
        position: returns how many samples the run has seen; earlier batches are not checked.
        log: gets a line if values come from the run's record because a file of the user is gone.

    Raises:
        ConfigError: the command line or the configuration has problems; the message lists all of them.
    """
    config, found = _read_words(overrides, log)
    found += problems(config, world_size, position(config))
    if also is not None and are_sizes_sound(config):
        found += also(config)
    if found:
        raise ConfigError(_as_the_groups_have_it(found, overrides))
    return config


def _as_the_groups_have_it(found: list[str], overrides: list[str]) -> list[str]:
    """Propose the learning rate of the chosen groups, since no single one suits every model."""
    if not any(problem.startswith("optim.lr (") for problem in found):
        return found
    words = [word for word in joined(overrides) if word.partition("=")[0] in (*GROUPS, CONFIG_DIR)]
    try:
        usual = f"Try optim.lr={composed(words).optim.lr:g}."
    except ConfigError:  # a problem of the groups, which is already in `found`
        return found
    return [re.sub(r"Try optim\.lr=\S+\.$", usual, problem) for problem in found]


def composed(overrides: list[str]) -> Config:
    """Compose the configuration of a command line; only the words themselves are checked.

    Raises:
        ConfigError: the words have problems; the message lists all of them.
    """
    config, found = _read_words(overrides, _warn)
    if found:
        raise ConfigError(found)
    return config


def _read_words(overrides: list[str], log: Callable[[str], None]) -> tuple[Config, list[str]]:
    """Compose a configuration; returns it with the problems of the words."""
    line = Line.of(overrides)
    chosen = _choose(line, log)
    with _own_files(chosen):
        tree = _compose({**chosen.presets, **dict.fromkeys(chosen.own, _OWN)})
    for key, raw in line.values.items():
        tree = _with_value(tree, key, raw, line.found)
    config = _to_config(tree)
    return config, [*line.found, *chosen.found, *with_home(config)]


def apply_overrides(config: Config, overrides: list[str]) -> Config:
    """Change single keys of a stored configuration.

    Raises:
        ConfigError: the overrides or the configuration have problems; the message lists all of them.
    """
    from omegaconf import OmegaConf

    line = Line.of(overrides)
    whole = {**line.choices, **({CONFIG_DIR: line.config_dir} if line.config_dir else {})}
    line.found += [
        f"{group}={choice} names a whole group, but a stored run is read here. Change single keys."
        for group, choice in whole.items()
    ]
    tree = OmegaConf.structured(config)
    for key, raw in line.values.items():
        tree = _with_value(tree, key, raw, line.found)
    changed = _to_config(tree)
    found = line.found + with_home(changed)
    # A stored configuration has been trained with: texts that a new run may not have are accepted in it.
    stored = text.problems(config)
    found += [problem for problem in problems(changed) if problem not in stored]
    if found:
        raise ConfigError(found)
    return changed


def to_yaml(config: Config) -> str:
    """Render a configuration as YAML, from which `from_yaml` reads an equal one."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))


def to_stored_yaml(config: Config) -> str:
    """Render the configuration for a run folder: without the folder's path, so that the folder can be copied."""
    return to_yaml(replace(config, run=replace(config.run, dir=None)))


def from_yaml(text: str, without: str | None = None) -> Config:
    """Read a stored configuration; keys that it lacks get their defaults.

    Args:
        text: YAML as `to_yaml` writes it.
        without: a section that is ignored.

    Raises:
        ConfigError: the text is not a YAML mapping, or has unknown keys, values of a wrong type, interpolations or
            aliases. `to_yaml` writes neither of the last two: in a file from someone else an interpolation could read
            the environment, and aliases could expand without limit.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        if "${" in text:
            raise ValueError("it holds an interpolation")
        values = {name: value for name, value in parse_yaml(text).items() if name != without}
        read_as_today(values)
        return _to_config(OmegaConf.merge(OmegaConf.structured(Config), values))
    except (
        OmegaConfBaseException,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError([f"The stored configuration cannot be read: {reason}"]) from error


def flatten(config: Config) -> dict[str, Any]:
    """All keys with plain values: {"optim.lr": 0.001, ...}."""
    return dict(leaves(asdict(config)))


def diff(old: Config, new: Config) -> list[str]:
    """List the keys that changed: "optim.lr: 0.001 -> 0.0005"."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _choose(line: Line, log: Callable[[str], None]) -> Choice:
    """Find the choice of each group; the values of a file that is gone come from the record of the run."""
    chosen = choose(line)
    if not chosen.missing:
        return chosen
    record = _recorded(line)
    groups = tuple(f"{group}." for group in line.choices)
    for group, problem in chosen.missing.items():
        if record is None:
            chosen.found.append(problem)
            continue
        source, values = record
        if group == "experiment":
            taken = {key: value for key, value in values.items() if not key.startswith(groups)}
        else:
            taken = {key: value for key, value in values.items() if key.startswith(f"{group}.")}
        chosen.own[group] = OwnGroup(source, taken)
        log(f"{problem} Its values are taken from {source}, as this run was started with them.")
    return chosen


def _recorded(line: Line) -> tuple[str, dict[str, Any]] | None:
    """The stored configuration of a run that was started with the same choices, with its file name; else None."""
    config = Config(experiment=Path(line.choices.get("experiment", Config().experiment)).stem)
    for name in ("name", "dir"):
        if f"run.{name}" in line.values:
            setattr(config.run, name, _parse(f"run.{name}", line.values[f"run.{name}"], str))
    try:
        paths = RunPaths(Path(expanded(derive.run_dir(config))))
        words = read_text(paths.overrides).splitlines()
        stored = from_yaml(read_text(paths.config))
    except (OSError, RecordError, ConfigError):
        return None
    before = Line.of(words)
    if before.choices != line.choices:
        return None
    values = flatten(stored)
    for key in before.values:
        if key.startswith(_OF_ONE_START):
            del values[key]
    return str(paths.config), values


def _with_value(tree: "DictConfig", key: str, raw: str, found: list[str]) -> "DictConfig":
    """Set one key to a typed value; a value that does not fit is added to `found` and changes nothing."""
    try:
        value = _parse(key, raw, type_of(key))
    except ValueError:
        found.append(_does_not_fit(key, raw))
        return tree
    return _merged(tree, key, value, found, raw)


def _merged(tree: "DictConfig", key: str, value: Any, found: list[str], raw: str) -> "DictConfig":
    """Set one key; a value that does not fit is added to `found` and changes nothing."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return cast("DictConfig", OmegaConf.merge(tree, _tree_of({key: value})))
    except (OmegaConfBaseException, ValueError, TypeError):
        found.append(_does_not_fit(key, raw))
        return tree


def _does_not_fit(key: str, raw: str) -> str:
    return f"{key} ({raw}) must be {expected(type_of(key))}."


def _parse(key: str, raw: str, hint: Any) -> Any:
    """Read a value in Hydra's grammar; for a key that holds text, unquoted text is taken as typed.

    Raises:
        ValueError: a list or mapping is not closed.
    """
    if key.startswith("data.special_tokens."):  # tokens look like lists: [STOP]
        return None if raw == "null" else raw
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(f"{key}={raw}")
    except HydraException:
        if hint == list[str] and _PLAIN_LIST.fullmatch(raw):
            return [item.strip() for item in _OUTER_COMMA.split(raw[1:-1])]
        if raw.startswith(("[", "{")):
            raise ValueError(raw) from None
        return raw  # a path with characters that the grammar reserves
    value: Any = override.value()
    if hint is str and (isinstance(value, (int, float)) or override.is_sweep_override()):
        return raw
    return value


@contextmanager
def _own_files(chosen: Choice) -> Generator[None, None, None]:
    """Register the values of the user's files with Hydra; values of a wrong type are reported and left out."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, own in chosen.own.items():
        tree = _tree_of(_fitting(own, chosen.found))
        # A group's values belong under the group, an experiment's under the root.
        is_whole = group == "experiment"
        node, package = (tree, "_global_") if is_whole else (tree.get(group, {}), None)
        store.store(name=_OWN, node=node, group=group, package=package)
    try:
        yield
    finally:
        for group in chosen.own:
            del store.repo[group][f"{_OWN}.yaml"]


def _fitting(own: OwnGroup, found: list[str]) -> dict[str, Any]:
    """The values of a file that fit their keys; the others are added to `found`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    schema = OmegaConf.structured(Config)
    with suppress(OmegaConfBaseException, ValueError, TypeError):
        OmegaConf.merge(schema, _tree_of(own.values))
        return own.values
    fitting: dict[str, Any] = {}
    for key, value in own.values.items():
        problems_of_key = list[str]()
        _merged(schema, key, value, problems_of_key, _as_typed(value))
        found += [f"{own.source}: {problem}" for problem in problems_of_key]
        if not problems_of_key:
            fitting[key] = value
    return fitting


def _tree_of(values: dict[str, Any]) -> dict[str, Any]:
    """{"a": {"b": value}} of {"a.b": value}, each value in the shape of its type.

    Raises:
        ValueError: a list is not nested as in its type.
    """
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, leaf = key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[leaf] = coerce(value, type_of(key))
    return tree


def _as_typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _compose(choices: dict[str, str]) -> "DictConfig":
    """The schema's tree with the choice of each group."""
    if _OWN in choices.values():
        return _composed_by_hydra(tuple(choices.items()))
    return deepcopy(_preset_tree(tuple(choices.items())))  # a sweep needs the same tree many times


@lru_cache(maxsize=16)
def _preset_tree(choices: tuple[tuple[str, str], ...]) -> "DictConfig":
    return _composed_by_hydra(choices)


def _composed_by_hydra(choices: tuple[tuple[str, str], ...]) -> "DictConfig":
    from hydra import compose, initialize_config_module
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Config)
    words = [f"{group}={choice}" for group, choice in choices]
    with initialize_config_module(config_module="configs", version_base="1.3"):
        return compose(config_name="config", overrides=words)


def _to_config(composed: Any) -> Config:
    from omegaconf import OmegaConf

    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config), "the root of every configuration is the schema"
    return config
