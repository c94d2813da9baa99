"""The `--help` text of keys. It shows the defaults that the run would have, with its groups, not the schema's."""

from enum import Enum
from typing import Any

from configs.document import Key, documented_keys, shown
from configs.errors import ConfigError
from configs.folding import fold
from configs.keys import GROUPS, known_keys, nearest, presets
from configs.load import composed, flatten
from configs.terminal import hanging, help_columns
from configs.words import joined

_OPTIONS = {
    "--help KEY [group=choice]": "what a key means, and its default in that group",
    "--print-config": "the resolved configuration",
    "--config-dir DIR": "groups of your own: DIR/model/my.yaml is model=my; a path will do, too: model=my.yaml",
    "--version": "versions of this program, Python and PyTorch",
}


def help_text(words: list[str] | None = None) -> str:
    """What `python -m train --help` prints: the groups with their choices, and every key.

    Args:
        words: groups and keys of the command line; the defaults shown are those of a run with them.

    Raises:
        ConfigError: the words have problems; the message lists all of them.
    """
    width = help_columns()
    lines = [
        "python -m train [key=value | group=choice] ...",
        "",
        "For example:",
        "  python -m train                                    the default run, in minutes",
        "  python -m train run.name=mine data.paths=my.jsonl  your own text",
        "  python -m train --help optim                       the keys of one group",
        "  python -m train --help optim.lr                    one key",
        "",
    ]
    lines += [hanging(f"{option:<28}", text, width) for option, text in _OPTIONS.items()]
    lines += ["", "Groups:"]
    lines += [hanging(f"  {group}=", " | ".join(presets(group)), width) for group in GROUPS]
    lines += ["", "Keys (default):"]
    lines += [fold(f"  {key.name} ({key.default})", width, "    ") for key in _keys(words or [])]
    return "\n".join(lines)


def describe_key(name: str, words: list[str] | None = None) -> str:
    """Document one key, one group, or all keys that begin with `name`.

    Args:
        name: name of a key, a section or a group.
        words: as for `help_text`.

    Raises:
        ConfigError: no such key, or a problem of the words.
    """
    width = help_columns()
    texts = [
        fold(f"{key.name}: {key.type}, default {key.default}", width, "        ")
        + "\n"
        + fold(f"    {key.text}", width, "    ")
        for key in _keys(words or [])
        if key.name == name or key.name.startswith(f"{name}.")
    ]
    if name in GROUPS:
        line = f"{name}: group, one of {', '.join(presets(name))}, or FILE.yaml"
        texts.insert(0, fold(line, width, "    "))
    if not texts:
        raise ConfigError([_unknown(name)])
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


def _unknown(name: str) -> str:
    """The message for an unknown key; proposes keys and sections by their names, or keys by their documentation."""
    sections = {key.name.rpartition(".")[0] for key in documented_keys()} - {""}
    known = list(dict.fromkeys([*known_keys(), *GROUPS, *sorted(sections)]))
    close = nearest(name, known)
    topic = name.replace("_", " ").lower()
    told = [key for key in documented_keys() if topic in key.text.lower()]
    told.sort(key=lambda key: key.text.lower().index(topic))  # what it is about stands first
    if not close and told:
        close = f" Did you mean {' or '.join(key.name for key in told[:3])}?"
    return f'There is no key "{name}".{close or " All keys: python -m train --help"}'


def _keys(words: list[str]) -> list[Key]:
    """All keys, with the defaults of a run with these words."""
    values = flatten(composed(words))
    return [key._replace(default=_default(values, key)) for key in documented_keys()]


def _default(values: dict[str, Any], key: Key) -> str:
    if key.name not in values:  # the key's section is off
        return key.default
    value = values[key.name]
    return shown(value.value if isinstance(value, Enum) else value)
