"""Checks of every key that holds text: it must be plain text on one line, without secrets.

Text goes into config.yaml, manifests, job scripts and trackers. A line break would begin a new line there, and anyone
could read a password.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, cast

from configs.run_paths import CONFIG
from configs.schema import Config
from configs.terminal import visible

# Cc: control characters. Zl, Zp: line ends that few programs know. Cs: bytes of a name that are no text.
_REFUSED = ("Cc", "Zl", "Zp", "Cs")
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:API_?KEY|ACCESS_KEY(?:_ID)?|PRIVATE_KEY|SECRET|SECRET_KEY|TOKEN|PASSWORD|PASSWD|PASS"
    r"|PASSPHRASE|CREDENTIALS?)(?:$|_)"
)
# A file that holds the secret may be named.
_FILE_NAME = re.compile(r"_(?:FILE|PATH|DIR|NAME)$")
# NAME=VALUE anywhere in a text; a VALUE that the shell expands later is not a secret.
_ASSIGNMENT = re.compile(r"(?<![\w.])([A-Za-z_]\w*)=[\"']?([^\s\"'$`,]+)")
# Secrets that are recognised by their form, and a password within a URL.
_SECRET_VALUE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|ghp_[A-Za-z0-9]{30,}|github_pat_\w{30,}|sk-[\w-]{30,}|AKIA[0-9A-Z]{16})\b"
    r"|://[^/\s:@]+:[^/\s:@]+@"
)


def problems(config: Config) -> list[str]:
    """Check all texts of a configuration."""
    found: list[str] = []
    if config.run.name is not None and (
        ".." in config.run.name.split("/") or config.run.name[:1] == "/"
    ):
        name = visible(config.run.name, keep="")
        found.append(
            f"run.name ({name}) must be a name, not a way out of runs/. For another folder type run.dir={name}"
        )
    for key, text in _texts(asdict(config), ""):
        hidden = next((c for c in text if unicodedata.category(c) in _REFUSED), None)
        if hidden is not None:
            found.append(
                f"{key} ({visible(text, keep='')}) must be plain text on one line. "
                f"Take out the character {visible(hidden, keep='')}."
            )
        elif (what := _secret(text)) is not None:
            found.append(
                f"{key} holds {what}, which would stand in {CONFIG}, job scripts and trackers. Take it out, and type "
                "export NAME=VALUE before the command or sbatch, use wandb login, or let cluster.setup=[source FILE] "
                "read it from a file of mode 600."
            )
    return found


def _secret(text: str) -> str | None:
    """What kind of secret a text gives away, in words that do not; None if it seems to hold none."""
    for name, _ in _ASSIGNMENT.findall(text):
        if _SECRET_NAME.search(name.upper()) and not _FILE_NAME.search(name.upper()):
            return f"the value of {name}"
    return "a key or password" if _SECRET_VALUE.search(text) else None


def _texts(tree: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text with its key."""
    if isinstance(tree, dict):
        for name, value in cast(dict[str, Any], tree).items():
            yield from _texts(value, f"{key}.{name}" if key else name)
    elif isinstance(tree, list):
        for value in cast(list[Any], tree):
            yield from _texts(value, key)
    elif isinstance(tree, str):
        yield key, str(tree)
