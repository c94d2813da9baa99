"""What `--help` says of keys: their defaults are those that the run would have, not those that the schema begins with."""

from enum import Enum
from typing import Any

from configs.document import Key, documented_keys, shown
from configs.errors import ConfigError
from configs.keys import GROUPS, presets, unknown
from configs.load import composed, flatten
from configs.words import joined


def help_text(words: list[str] | None = None) -> str:
    """What `python -m train --help` prints: the groups with their choices and every key.

    Args:
        words: groups and keys that were chosen: the defaults are those of a run with them.

    Raises:
        ConfigError: every problem of the words.
    """
    lines = [
        "python -m train [key=value | group=choice] ...",
        "",
        "For example:",
        "  python -m train                                     the default run, in minutes",
        "  python -m train run.name=mine data.paths=my.jsonl   your own text",
        "  python -m train --help optim                        the keys of one group",
        "  python -m train --help optim.lr                     one key",
        "",
        "--help KEY [group=choice]   what a key means, and its default in that group",
        "--print-config              the resolved configuration",
        "--config-dir DIR            groups of your own: DIR/model/my.yaml is model=my; a path will do, too:",
        "                            model=my.yaml",
        "--version                   versions of this program, Python and PyTorch",
        "",
        "Groups:",
    ]
    lines += [f"  {group}={'|'.join(presets(group))}" for group in GROUPS]
    lines += ["", "Keys (default):"]
    lines += [f"  {key.name} ({key.default})" for key in _keys(words or [])]
    return "\n".join(lines)


def describe_key(name: str, words: list[str] | None = None) -> str:
    """Document one key, one group, or all keys that begin with `name`.

    Args:
        name: of the key.
        words: as for `help_text`.

    Raises:
        ConfigError: no such key, or a problem of the words.
    """
    texts = [
        f"{key.name}: {key.type}, default {key.default}\n    {key.text}"
        for key in _keys(words or [])
        if key.name == name or key.name.startswith(f"{name}.")
    ]
    if name in GROUPS:
        texts.insert(0, f"{name}: group, one of {', '.join(presets(name))}, or FILE.yaml")
    if not texts:
        raise ConfigError([unknown(name)])
    return "\n".join(texts)


def answer(words: list[str]) -> str:
    """Answer `--help [KEY ...] [group=choice ...]`.

    Raises:
        ConfigError: no such key, or a problem of the words.
    """
    choices = [word for word in joined(words) if "=" in word]
    names = [word for word in joined(words) if "=" not in word]
    if not names:
        return help_text(choices)
    return "\n".join(describe_key(name, choices) for name in names)


def _keys(words: list[str]) -> list[Key]:
    """All keys, with the defaults of a run with these words."""
    values = flatten(composed(words))
    return [key._replace(default=_default(values, key)) for key in documented_keys()]


def _default(values: dict[str, Any], key: Key) -> str:
    if key.name not in values:  # of a section that is off
        return key.default
    value = values[key.name]
    return shown(value.value if isinstance(value, Enum) else value)
