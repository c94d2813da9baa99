"""From a command line to a typed, checked Config: the one file that knows Hydra and OmegaConf.

Hydra composes the groups (`model=glm_110m`, `experiment=glm_130b`); single keys are then set one by one, so that every
mistake on the line is found and reported at once, with the nearest known name or the choices. `@hydra.main` is not
used: it reports one error at a time, advises `+key`, and makes folders.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from importlib import resources
from typing import Any, cast, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    SafeLoader,
    ScalarEvent,
    YAMLError,
)

from configs.document import documented_keys, without_none
from configs.errors import ConfigError
from configs.schema import Config
from configs.validate import are_sizes_sound, problems

# Words that the grammar wants in quotes although nothing about them is unclear, such as [NCCL_DEBUG=INFO,--exclusive].
# Brackets inside belong to a word, as in [nid[0001-0008,12],--constraint=[rack1|rack2]].
_PLAIN_LIST = re.compile(r"\[(?:[^\[\]{}'\"\\\n]|\[[^\[\]{}'\"\\\n]*\])*\]")
_OUTER_COMMA = re.compile(r",(?![^\[\]]*\])")

GROUPS = ("model", "optim", "parallel", "experiment")

_LARGEST_STORED_TEXT = 2**20
_DEEPEST_STORED_NESTING = 16

ConfigStore.instance().store(name="schema", node=Config)


def load_config(
    overrides: list[str],
    world_size: int | None = None,
    also: Callable[[Config], list[str]] | None = None,
    position: Callable[[Config], int] = lambda config: 0,
) -> Config:
    """Compose and check the configuration of a run.

    Args:
        overrides: words of the command line, `key=value` or `group=choice`; of two for the same, the last one holds.
        world_size: number of processes; None: unknown, checks that need it use `cluster.*`.
        also: a further check, of sizes that can be calculated with; its problems are reported with the others.
        position: asked how many samples the run has seen; batches that it has behind it are not checked.

    Raises:
        ConfigError: every problem of the line and of the resulting configuration.
    """
    line = _Line()
    for word in overrides:
        line.add(word)
    composed = _compose(line.choices)
    for key, raw in line.values.items():
        composed = _with_value(composed, key, raw, line.found)
    config = _to_config(composed)
    found = line.found + problems(config, world_size, position(config))
    if also is not None and are_sizes_sound(config):
        found += also(config)
    if found:
        raise ConfigError(found)
    return config


def apply_overrides(config: Config, overrides: list[str]) -> Config:
    """Change single keys of a stored configuration.

    Raises:
        ConfigError: every problem of the overrides and of the resulting configuration.
    """
    line = _Line()
    for word in overrides:
        line.add(word)
    line.found += [
        f"{group}={choice} names a whole group, but a stored run is read here. Change single keys."
        for group, choice in line.choices.items()
    ]
    composed = OmegaConf.structured(config)
    for key, raw in line.values.items():
        composed = _with_value(composed, key, raw, line.found)
    changed = _to_config(composed)
    found = line.found + problems(changed, None)
    if found:
        raise ConfigError(found)
    return changed


def to_yaml(config: Config) -> str:
    """Render a configuration; `from_yaml` reads it back equal."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def to_stored_yaml(config: Config) -> str:
    """Render what a run folder keeps: without where the folder lies, so that it can be copied elsewhere."""
    return to_yaml(replace(config, run=replace(config.run, dir=None)))


def from_yaml(text: str) -> Config:
    """Read a stored configuration; keys that it lacks get their defaults.

    Raises:
        ConfigError: it is no YAML mapping, or has keys that this version does not know, or values of a wrong type; or it
            is not as `to_yaml` writes: a file that somebody else made could otherwise read the environment through an
            interpolation, or grow without end through aliases.
    """
    try:
        _refuse_what_grows(text)
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(text))
        return _to_config(merged)
    except (
        OmegaConfBaseException,
        YAMLError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError([f"The stored configuration cannot be read: {reason}"]) from error


def _refuse_what_grows(text: str) -> None:
    if len(text) > _LARGEST_STORED_TEXT:
        raise ValueError(f"it has {len(text):,} characters")
    if "${" in text:
        raise ValueError("it holds an interpolation")
    loader: Any = SafeLoader(text)
    depth = 0
    while loader.check_event():
        event: object = loader.get_event()
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent) or depth > _DEEPEST_STORED_NESTING:
            raise ValueError("it holds an alias or is nested without end")
        if isinstance(event, ScalarEvent) and depth == 0 and event.value:
            raise ValueError("it is no mapping")


def flatten(config: Config) -> dict[str, Any]:
    """All keys with plain values: {"optim.lr": 0.001, ...}."""
    return dict(_leaves(asdict(config), ""))


def diff(old: Config, new: Config) -> list[str]:
    """Say what changed: "optim.lr: 0.001 -> 0.0005"."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def help_text() -> str:
    """What `python -m train --help` prints: the groups with their choices and every key."""
    lines = [
        "python -m train [key=value | group=choice] ...",
        "",
        "--help this text; --print-config the resolved configuration; --help KEY what one key means.",
        "",
        "Groups:",
    ]
    lines += [f"  {group}={'|'.join(_choices(group))}" for group in GROUPS]
    lines += ["", "Keys (default):"]
    lines += [f"  {key.name} ({key.default})" for key in documented_keys()]
    return "\n".join(lines)


def describe_key(name: str) -> str:
    """Document one key, one group, or all keys that begin with `name`.

    Raises:
        ConfigError: no such key.
    """
    texts = [
        f"{key.name}: {key.type}, default {key.default}\n    {key.text}"
        for key in documented_keys()
        if key.name == name or key.name.startswith(f"{name}.")
    ]
    if name in GROUPS:
        texts.insert(0, f"{name}: group, one of {', '.join(_choices(name))}")
    if not texts:
        raise ConfigError([_unknown(name)])
    return "\n".join(texts)


@dataclass
class _Line:
    """The words of a command line, each where it belongs, and what is wrong with them."""

    choices: dict[str, str] = field(default_factory=dict[str, str])
    values: dict[str, str] = field(default_factory=dict[str, str])
    found: list[str] = field(default_factory=list[str])

    def add(self, word: str) -> None:
        name, equals, raw = word.partition("=")
        if name.startswith(("+", "~")):
            name = name.lstrip("+~")
            self.found.append(f'"{word}": every key exists already. Type {name}={raw or "VALUE"}')
        elif not equals:
            self.found.append(f'"{word}" is not of the form key=value. See python -m train --help')
        elif name in GROUPS:
            self._choose(name, raw)
        elif name not in _known_keys():
            self.found.append(_unknown(name))
        elif "${" in raw or raw.strip() == "???":
            self.found.append(f"{name} ({raw}) must be a plain value, without interpolation.")
        else:
            self.values.pop(name, None)  # a later word also takes effect later
            self.values[name] = raw

    def _choose(self, group: str, choice: str) -> None:
        choices = _choices(group)
        if choice in choices:
            self.choices[group] = choice
        else:
            close = _nearest(choice, choices)
            self.found.append(f"{group} ({choice}) is not one of {', '.join(choices)}.{close}")


def _with_value(composed: DictConfig, key: str, raw: str, found: list[str]) -> DictConfig:
    """Set one key; a value that does not fit is noted and leaves everything as it was."""
    hint = _hint(key)
    try:
        nested: Any = _coerce(_parse(key, raw, hint), hint)
        for name in reversed(key.split(".")):
            nested = {name: nested}
        return cast(DictConfig, OmegaConf.merge(composed, nested))
    except (OmegaConfBaseException, ValueError, TypeError):
        found.append(f"{key} ({raw}) must be {_expected(hint)}.")
        return composed


def _parse(key: str, raw: str, hint: Any) -> Any:
    """Read a value in Hydra's grammar; where text is wanted, what is no quoted text is taken as typed."""
    if key.startswith("data.special_tokens."):  # tokens look like lists: [STOP]
        return None if raw == "null" else raw
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


def _coerce(value: Any, hint: Any) -> Any:
    """Bring a value to the shape of its type: one path is a list of paths, 1e6 is a whole number, 1 is a number.

    Raises:
        ValueError: lists are nested otherwise than the type's.
    """
    if value is None or is_dataclass(hint):
        return value
    if get_args(hint) in ((str,), (float,)) and not isinstance(value, list):
        value = [value]
    return _coerce_nested(value, hint)


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


def _compose(choices: dict[str, str]) -> DictConfig:
    words = [f"{group}={choice}" for group, choice in choices.items()]
    with initialize_config_module(config_module="configs", version_base="1.3"):
        return compose(config_name="config", overrides=words)


def _to_config(composed: Any) -> Config:
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config), "the root of every configuration is the schema"
    return config


def _choices(group: str) -> list[str]:
    names = [entry.name for entry in (resources.files("configs") / group).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _known_keys() -> list[str]:
    return [key.name for key in documented_keys()] + ["optim.batch_ramp"]


def _unknown(name: str) -> str:
    known = list(dict.fromkeys([*_known_keys(), *GROUPS]))
    return f'There is no key "{name}".{_nearest(name, known) or " See python -m train --help"}'


def _nearest(name: str, known: list[str]) -> str:
    """Name the known words most like this one, and those that end as it does."""
    likeness = {key: difflib.SequenceMatcher(None, name, key).ratio() for key in known}
    least = max(0.5, max(likeness.values()) - 0.1)
    close = [
        key for key in sorted(known, key=likeness.__getitem__)[::-1][:3] if likeness[key] >= least
    ]
    leaf = name.rpartition(".")[2]
    close += [key for key in known if key.rpartition(".")[2] == leaf and key not in close][:2]
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _hint(key: str) -> Any:
    hint: Any = Config
    for name in key.split("."):
        hint = without_none(get_type_hints(hint)[name])
    return hint


def _expected(hint: Any) -> str:
    """Describe a type in words."""
    if is_dataclass(hint):
        return f"given by its keys ({', '.join(field.name for field in fields(hint))}) or null"
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


def _leaves(tree: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves += _leaves(cast(dict[str, Any], value), f"{prefix}{name}.")
        else:
            leaves.append((prefix + name, value.value if isinstance(value, Enum) else value))
    return leaves
