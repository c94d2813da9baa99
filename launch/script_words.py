"""Words of the configuration quoted for a shell script: each reaches the program as it was typed."""

import re
import shlex
from collections.abc import Sequence

from configs.errors import ConfigError
from configs.terminal import visible

# A variable of the job's shell, which the command of a container may use.
_VARIABLE = re.compile(r"(\$\{[A-Za-z_][A-Za-z0-9_]*\}|\$[A-Za-z_][A-Za-z0-9_]*)")


def array(words: Sequence[str]) -> str:
    """Quote words for the inside of a bash array."""
    return " ".join(map(shlex.quote, words))


def comment(text: str) -> str:
    """Make text safe for a one-line comment: control characters are shown as escapes."""
    return visible(text, keep="")


def directive(option: str) -> str:
    """Render an #SBATCH line.

    Raises:
        ConfigError: the option contains control characters, such as a line break.
    """
    if visible(option, keep="") != option:
        raise ConfigError(
            [
                f'"{visible(option, keep="")}" has control characters, which an #SBATCH line cannot hold. Leave them out.'
            ]
        )
    return f"#SBATCH {option}"


def command_words(key: str, command: str) -> str:
    """Quote the words of a command for the inside of a bash array; only $NAME and ${NAME} are expanded.

    Raises:
        ConfigError: a quote is not closed.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(
            [f"{key} ({visible(command, keep='')}) is not a command: {error}. Close the quote."]
        ) from error
    return " ".join(map(_with_variables, words))


def _with_variables(word: str) -> str:
    parts = [part for part in _VARIABLE.split(word) if part]
    quoted = [f'"{part}"' if _VARIABLE.fullmatch(part) else shlex.quote(part) for part in parts]
    return "".join(quoted) or "''"
