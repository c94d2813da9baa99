"""Sort the words of a command line, and find their problems.

Words are `key=value` and `group=choice`, as in Hydra, and `--config-dir DIR` with the user's own groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

CONFIG_DIR = "--config-dir"

# What else Hydra's users type, and what does the same here.
_MULTIRUN = "Runs with several values: python -m launch sweep --sweep optim.lr=1e-4,2e-4 --local"
_OWN_FOLDER = "A folder with groups of your own: --config-dir DIR"
_OWN_FILE = "A whole run in one file of your own: experiment=FILE.yaml"
_PRINT = "The resolved configuration: --print-config"
_HYDRA_OPTIONS = {
    **dict.fromkeys(("--multirun", "-m"), _MULTIRUN),
    **dict.fromkeys(("--config-path", "-cp", "-cd"), _OWN_FOLDER),
    **dict.fromkeys(("--config-name", "-cn"), _OWN_FILE),
    **dict.fromkeys(("--cfg", "-c", "--info", "-i", "--package", "-p"), _PRINT),
    "--hydra-help": "All keys: python -m train --help",
}
_HYDRA_KEYS = {
    "hydra.searchpath": _OWN_FOLDER,
    "hydra.run.dir": "The run's folder: run.dir=PATH",
    "hydra.job.name": "The run's name: run.name=NAME",
    "hydra.mode": _MULTIRUN,
    "hydra.sweep": _MULTIRUN,
}


@dataclass
class Line:
    """A parsed command line.

    Attributes:
        choices: the choice of each group, as typed.
        values: the value of each key, as typed, in the order in which they take effect.
        config_dir: the folder with the user's own groups, as typed.
        found: the problems.
    """

    choices: dict[str, str] = field(default_factory=dict[str, str])
    values: dict[str, str] = field(default_factory=dict[str, str])
    config_dir: str | None = None
    found: list[str] = field(default_factory=list[str])

    @classmethod
    def of(cls, words: Sequence[str]) -> "Line":
        """Parse the words; if a key or group is given twice, the last one counts."""
        line = cls()
        for word in joined(words):
            line._add(word)
        return line

    def _add(self, word: str) -> None:
        # Late: it reads the schema, and `python -m launch status` has no overrides.
        from configs.keys import GROUPS, known_keys, unknown

        name, equals, raw = word.partition("=")
        if name == CONFIG_DIR:
            self.config_dir = raw
            if not raw:
                self.found.append(f"{CONFIG_DIR} needs a folder: {CONFIG_DIR} DIR")
        elif name.startswith("+") or (name.startswith("~") and "/" not in name):
            name = name.lstrip("+~")
            self.found.append(f'"{word}": every key exists already. Type {name}={raw or "VALUE"}')
        elif name in _HYDRA_OPTIONS or name.partition(".")[0].partition("/")[0] == "hydra":
            self.found.append(f'"{word}" is Hydra\'s own. {_instead_of(name)}')
        elif not equals:
            self.found.append(f'"{word}" is not of the form key=value. See python -m train --help')
        elif name in GROUPS:
            self.choices[name] = raw
        elif name not in known_keys():
            self.found.append(unknown(name))
        elif "${" in raw or raw.strip() == "???":
            self.found.append(f"{name} ({raw}) must be a plain value, without interpolation.")
        else:
            self.values.pop(name, None)
            self.values[name] = raw


def joined(words: Sequence[str]) -> list[str]:
    """Write `--config-dir DIR` as the one word `--config-dir=DIR`, as it is kept and handed on."""
    found, rest = list[str](), list(words)
    while rest:
        word = rest.pop(0)
        if word == CONFIG_DIR:
            word = f"{CONFIG_DIR}={rest.pop(0) if rest else ''}"
        found.append(word)
    return found


def _instead_of(name: str) -> str:
    """What to type instead of a word of Hydra's."""
    if name in _HYDRA_OPTIONS:
        return _HYDRA_OPTIONS[name]
    fitting = [text for key, text in _HYDRA_KEYS.items() if f"{name}.".startswith(f"{key}.")]
    return (
        fitting[0]
        if fitting
        else "Its other settings have no effect here. See python -m train --help"
    )
