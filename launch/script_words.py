"""Words of the configuration as a shell script may hold them: each arrives as it was typed, whatever is in it."""

import re
import shlex
from collections.abc import Sequence

from configs.errors import ConfigError
from configs.terminal import visible

# A variable of the job's own shell, which a container's command may name.
_VARIABLE = re.compile(r"(\$\{[A-Za-z_][A-Za-z0-9_]*\}|\$[A-Za-z_][A-Za-z0-9_]*)")


def array(words: Sequence[str]) -> str:
    """The inside of a bash array of these words."""
    return " ".join(map(shlex.quote, words))


def comment(text: str) -> str:
    """Text that stays on its line of comment, whatever it holds."""
    return visible(text, keep="")


def directive(option: str) -> str:
    """An #SBATCH line.

    Raises:
        ConfigError: the option would not end with its line.
    """
    if visible(option, keep="") != option:
        raise ConfigError(
            [
                f'"{visible(option, keep="")}" cannot stand in an #SBATCH line, which control characters end. Leave them out.'
            ]
        )
    return f"#SBATCH {option}"


def command_words(key: str, command: str) -> str:
    """The inside of a bash array of the words of a command; $NAME stands for the variable, everything else for itself.

    Raises:
        ConfigError: a quote is not closed.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(
            [f"{key} ({visible(command, keep='')}) is no command: {error}. Close the quote."]
        ) from error
    return " ".join(map(_with_variables, words))


def _with_variables(word: str) -> str:
    parts = [part for part in _VARIABLE.split(word) if part]
    quoted = [f'"{part}"' if _VARIABLE.fullmatch(part) else shlex.quote(part) for part in parts]
    return "".join(quoted) or "''"
