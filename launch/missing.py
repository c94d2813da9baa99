"""What a configuration names and this machine lacks: said when a job is rendered, not after a night in the queue."""

import sys
from pathlib import Path

from configs.schema import Config
from configs.terminal import tell, visible

# Words that stand where a file may stand; python-docs comes with every Python.
_NO_FILES = ("", "auto", "never", "python-docs")


def tell_what_is_missing(config: Config) -> None:
    """Say in one line on standard error which files are not here, if any; the job may run where they are."""
    if found := missing(config):
        named = "; ".join(visible(each, keep="") for each in found)
        tell(
            f"Not on this machine: {named}. The job needs these files on its nodes. A name of a data set on the Hugging "
            "Face hub is no file: then ignore this.",
            sys.stderr,
        )


def missing(config: Config) -> list[str]:
    """Each file, folder or prefix of shards that is not here, with its key; a data set's name is among them, too."""
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
    """True of a file, a folder, and a prefix of shards."""
    try:
        if path.exists():
            return True
        return any(each.name.startswith(f"{path.name}.") for each in path.parent.iterdir())
    except (OSError, ValueError):
        return False
