"""The words of a launch command: options that begin with `--`, and overrides of the configuration."""

from dataclasses import dataclass, field

from configs.errors import ConfigError
from configs.words import CONFIG_DIR, joined


@dataclass
class Request:
    """A parsed command line.

    Attributes:
        overrides: `key=value`, `group=choice` and `--config-dir=DIR`.
        switches: the options without a value that were given.
        values: each option with its values, in the order given.
    """

    overrides: list[str] = field(default_factory=list[str])
    switches: set[str] = field(default_factory=set[str])
    values: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def number(self, option: str, default: int) -> int:
        """The value of an option that takes a whole number of at least 1.

        Raises:
            ConfigError: the value is not such a number.
        """
        text = self.values.get(option, [str(default)])[-1]
        if not text.isdecimal() or int(text) < 1:
            raise ConfigError(
                [f"{option} ({text}) must be a whole number of at least 1. Try {option} 2."]
            )
        return int(text)


def parse(words: list[str], switches: tuple[str, ...], valued: tuple[str, ...]) -> Request:
    """Sort words into options and overrides.

    Args:
        words: the words of the command line.
        switches: known options without a value, such as `--submit`.
        valued: known options with a value, such as `--chain 3` or `--chain=3`.

    Raises:
        ConfigError: an option is unknown or lacks its value; the message lists all of them.
    """
    request, found = Request(), list[str]()
    rest = joined(words)
    while rest:
        word = rest.pop(0)
        name, has_value, value = word.partition("=")
        if not word.startswith("--") or name == CONFIG_DIR:
            request.overrides.append(word)
        elif word in switches:
            request.switches.add(word)
        elif name not in valued:
            known = ", ".join((*switches, *valued)) or "none"
            found.append(f'There is no option "{name}" here. Known ones: {known}.')
        elif not has_value and not rest:
            found.append(f"{name} needs a value. See python -m launch --help")
        else:
            request.values.setdefault(name, []).append(value if has_value else rest.pop(0))
    if found:
        raise ConfigError(found)
    return request
