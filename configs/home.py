"""Expand `~` at the beginning of a path: the shell does not do so behind = or in quotes."""

import os
from typing import Any, cast

from configs.errors import ConfigError
from configs.schema import Config

# Keys that hold paths, or words that begin with one; a test checks that no such key is missing.
PATH_KEYS = (
    "run.dir",
    "checkpoint.copy_to",
    "checkpoint.resume",
    "checkpoint.init_from",
    "data.paths",
    "data.valid_paths",
    "data.tokenizer",
    "data.instructions",
    "data.local_copy",
    "data.cache_dir",
    "cluster.hostfile",
)


def expanded(path: str) -> str:
    """Replace ~ or ~NAME by the home folder, also behind the kind of a tokenizer: hf:~/tokenizer.json.

    Raises:
        ConfigError: there is no such home folder.
    """
    kind, colon, name = path.partition(":")
    if colon and name.startswith("~") and kind.isalnum():
        return f"{kind}:{expanded(name)}"
    if not path.startswith("~"):
        return path
    whole = os.path.expanduser(path)
    if whole.startswith("~"):
        user = path.partition("/")[0]
        reason = "HOME is not set" if user == "~" else f"there is no user {user[1:]}"
        raise ConfigError(
            [f"{path}: {reason}. Type the whole path, or ./{path} for a folder of that name."]
        )
    return whole


def with_home(config: Config) -> list[str]:
    """Expand ~ in every key that is a path, in place; returns the problems."""
    found: list[str] = []
    for key in PATH_KEYS:
        section, _, name = key.partition(".")
        owner = getattr(config, section)
        try:
            setattr(owner, name, _expanded(getattr(owner, name)))
        except ConfigError as error:
            found += [
                f"{key} ({problem.partition(':')[0]}):{problem.partition(':')[2]}"
                for problem in error.problems
            ]
    return found


def _expanded(value: Any) -> Any:
    if isinstance(value, list):
        return [_expanded(item) for item in cast(list[Any], value)]
    return expanded(value) if isinstance(value, str) else value
