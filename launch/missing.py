"""Files that a configuration names and this machine lacks: reported when a job is rendered, not when it starts."""

import sys
from pathlib import Path

from configs.schema import Config
from configs.terminal import tell, visible

# Values of these keys that name no file; python-docs comes with every Python.
_NO_FILES = ("", "auto", "never", "python-docs")


def tell_what_is_missing(config: Config) -> None:
    """Warn in one line on standard error about files that are not here; the nodes of the job may have them."""
    if found := missing(config):
        named = "; ".join(visible(each, keep="") for each in found)
        tell(
            f"Not on this machine: {named}. The job needs these files on its nodes. Ignore this for the name of a data "
            "set on the Hugging Face hub.",
            sys.stderr,
        )


def missing(config: Config) -> list[str]:
    """Each file, folder or prefix of shards that is not here, with its key; names of hub data sets are included."""
    data = config.data
    kind, _, file = (data.tokenizer or "").partition(":")
    named = {
        "data.paths": data.paths,
        "data.valid_paths": data.valid_paths or [],
        "data.instructions": data.instructions,
        "data.tokenizer": [file] if kind and file else [],
        "checkpoint.init_from": [config.checkpoint.init_from or ""],
        "checkpoint.resume": [config.checkpoint.resume],
    }
    return [
        f"{name} ({key})"
        for key, names in named.items()
        for name in names
        if name not in _NO_FILES and not _is_here(Path(name).expanduser())
    ]


def _is_here(path: Path) -> bool:
    """True if the path is an existing file, folder or prefix of shards."""
    try:
        if path.exists():
            return True
        return any(each.name.startswith(f"{path.name}.") for each in path.parent.iterdir())
    except (OSError, ValueError):
        return False
