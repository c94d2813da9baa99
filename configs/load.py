"""From a command line to a typed, checked Config: the one file that knows Hydra and OmegaConf.

Hydra composes the groups (`model=glm_110m`, `experiment=glm_130b`); single keys are then set one by one, so that every
mistake on the line is found and reported at once, with the nearest known name or the choices. `@hydra.main` is not
used: it reports one error at a time, advises `+key`, and makes folders.
"""

import difflib
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from importlib import resources
from typing import Any, get_args, get_type_hints

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.document import documented_keys
from configs.errors import ConfigError
from configs.schema import Config
from configs.validate import problems

GROUPS = ("model", "optim", "parallel", "experiment")
# A single value is a list of one for these.
LIST_KEYS = ("data.paths", "data.valid_paths")

ConfigStore.instance().store(name="schema", node=Config)


def load_config(overrides: list[str], world_size: int | None = None) -> Config:
    """Compose and check the configuration of a run.

    Args:
        overrides: words of the command line, `key=value` or `group=choice`.
        world_size: number of processes; None: unknown, checks that need it use `cluster.*`.

    Raises:
        ConfigError: every problem of the line and of the resulting configuration.
    """
    found: list[str] = []
    choices: list[str] = []
    values: list[tuple[str, Any]] = []
    for word in overrides:
        _sort_word(word, choices, values, found)
    composed = _compose(choices)
    for key, value in values:
        _set(composed, key, value, found)
    config = _to_config(composed)
    found += problems(config, world_size)
    if found:
        raise ConfigError(found)
    return config


def to_yaml(config: Config) -> str:
    """Render a configuration; `from_yaml` reads it back equal."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(text: str) -> Config:
    """Read a stored configuration.

    Raises:
        ConfigError: it has keys that this version does not know, or values of a wrong type.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(text))
        return _to_config(merged)
    except (OmegaConfBaseException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError([f"The stored configuration cannot be read: {reason}"]) from error


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
    """Document one key.

    Raises:
        ConfigError: no such key.
    """
    for key in documented_keys():
        if key.name == name:
            return f"{key.name}: {key.type}, default {key.default}\n{key.text}"
    raise ConfigError([_unknown(name)])


def _sort_word(
    word: str, choices: list[str], values: list[tuple[str, Any]], found: list[str]
) -> None:
    """Put one word of the line where it belongs, or note what is wrong with it."""
    if "=" not in word:
        found.append(f'"{word}" is not of the form key=value. See python -m train --help')
        return
    name, _, raw = word.partition("=")
    if name.startswith(("+", "~")):
        found.append(f'"{word}": every key exists already. Type {word.lstrip("+~")}')
        return
    if name in GROUPS:
        if raw in _choices(name):
            choices.append(word)
        else:
            found.append(
                f"{name} ({raw}) is not one of {', '.join(_choices(name))}.{_nearest(raw, _choices(name))}"
            )
        return
    if name not in _known_keys():
        found.append(_unknown(name))
        return
    try:
        value = OverridesParser.create().parse_override(word).value()
    except HydraException:
        value = raw  # a path with characters that Hydra's grammar reserves
    values.append((name, [value] if name in LIST_KEYS and isinstance(value, str) else value))


def _set(composed: DictConfig, key: str, value: Any, found: list[str]) -> None:
    if "float" in str(_hint(key)):
        value = _as_floats(value)  # OmegaConf refuses a whole number inside a list of numbers
    nested: Any = value
    for name in reversed(key.split(".")):
        nested = {name: nested}
    try:
        composed.merge_with(nested)
    except (OmegaConfBaseException, ValueError):
        found.append(f"{key} ({value}) must be {_expected(key)}.")


def _compose(choices: list[str]) -> DictConfig:
    with initialize_config_module(config_module="configs", version_base="1.3"):
        return compose(config_name="config", overrides=choices)


def _to_config(composed: Any) -> Config:
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


def _choices(group: str) -> list[str]:
    folder = resources.files("configs") / group
    return sorted(entry.name[: -len(".yaml")] for entry in folder.iterdir() if ".yaml" in entry.name)


def _known_keys() -> list[str]:
    return [key.name for key in documented_keys()] + ["optim.batch_ramp"]


def _unknown(name: str) -> str:
    return f'There is no key "{name}".{_nearest(name, [*_known_keys(), *GROUPS])}'


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    leaf = name.rpartition(".")[2]
    close += [key for key in known if key.rpartition(".")[2] == leaf and key not in close][:2]
    return f" Did you mean {' or '.join(close)}?" if close else " See python -m train --help"


def _as_floats(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _hint(key: str) -> Any:
    hint: Any = Config
    for name in key.split("."):
        hint = _strip_optional(get_type_hints(hint)[name])
    return hint


def _expected(key: str) -> str:
    """Describe the type of a key in words."""
    hint = _hint(key)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(member.value for member in hint)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    if hint in words:
        return words[hint]
    if is_dataclass(hint):
        return f"given by its keys ({', '.join(field.name for field in fields(hint))}) or null"
    return "a list such as [a,b]" if get_args(hint) else str(hint)


def _strip_optional(hint: Any) -> Any:
    alternatives = [part for part in get_args(hint) if part is not type(None)]
    is_optional = type(None) in get_args(hint)
    return alternatives[0] if is_optional else hint


def _leaves(tree: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves += _leaves(value, f"{prefix}{name}.")
        else:
            leaves.append((prefix + name, value.value if isinstance(value, Enum) else value))
    return leaves
