"""A run's id in wandb, and whether this user has an account there: what is known without importing wandb.

One run id is made at the first start and kept in the run folder and the checkpoints, so that every start reports to the
same run. Without an API key the run is recorded offline, each start in its own folder, with a script that sends all of
them in order.
"""

import contextlib
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path

from configs.errors import RecordError, RunFolderError
from configs.records import read_text
from configs.run_paths import RunPaths
from configs.schema import Wandb
from train.small_files import replace_file

_SYNC = """#!/usr/bin/env bash
# Sends the offline records of this run, oldest first, to the one wandb run. Needs WANDB_API_KEY or `wandb login`.
set -euo pipefail
cd "$(dirname "$0")"
help=$(wandb sync --help)
if [[ $help == *--append* ]]; then  # wandb before 0.22 or so
  for record in offline-run-*; do
    wandb sync --append --id RUN_ID "$record"
  done
else
  wandb sync --yes --id RUN_ID offline-run-*
fi
"""
_RUN_ID = re.compile(r"[A-Za-z0-9_\-]{1,64}")


def run_id(folder: Path, stored: object, warn: Callable[[str], None]) -> str:
    """The run's wandb id: from the run folder, or else from the checkpoint if there is a sensible one, or a new one.

    Args:
        folder: run folder; the id is kept in it.
        stored: what the checkpoint says.
        warn: called if the id cannot be stored.
    """
    path = RunPaths(folder).wandb_id
    if (kept := kept_run_id(folder)) is not None:
        return kept
    is_sensible = isinstance(stored, str) and _RUN_ID.fullmatch(stored)
    chosen = str(stored) if is_sensible else uuid.uuid4().hex[:12]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, chosen + "\n")
    except OSError as error:
        warn(f"{path} cannot be written ({error.strerror}): the next start may report elsewhere.")
    return chosen


def kept_run_id(folder: Path) -> str | None:
    """The wandb id that is kept in a run folder; None: none, or none of ours."""
    with contextlib.suppress(OSError, RecordError):
        if _RUN_ID.fullmatch(kept := read_text(RunPaths(folder).wandb_id).strip()):
            return kept
    return None


def has_key() -> bool:
    """True if this user has an account of wandb here."""
    return bool(os.environ.get("WANDB_API_KEY")) or _has_login()


def resolve_mode(wandb: Wandb) -> str:
    """Online or offline; `auto` is online if there is a key.

    Raises:
        RunFolderError: online was asked for, but there is no key.
    """
    is_known = has_key()
    if wandb is Wandb.online and not is_known:
        raise RunFolderError(
            "log.wandb (online) needs a key: run `wandb login`, set WANDB_API_KEY, or type log.wandb=offline."
        )
    if wandb is Wandb.auto:
        return os.environ.get("WANDB_MODE") or ("online" if is_known else "offline")
    return wandb.value


def records_offline(folder: RunPaths) -> bool:
    """True if a run has records that wait to be sent: the script that sends them lies beside them."""
    try:
        return folder.wandb_sync.is_file() and any(folder.wandb.glob("offline-run-*"))
    except OSError:
        return False


def offline_words(folder: Path, identifier: str) -> str:
    """Write the script that sends a run's offline records, and say so.

    Args:
        folder: run folder.
        identifier: of the wandb run.
    """
    path = RunPaths(folder).wandb_sync
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, _SYNC.replace("RUN_ID", identifier))  # the umask says who may read it
    except OSError as error:
        return f"wandb records offline, but {path} cannot be written ({error.strerror})."
    return f"wandb records offline. Send it later with: bash {path}"


def _has_login() -> bool:
    try:
        return "wandb" in read_text(Path.home() / ".netrc")
    except (OSError, RecordError, RuntimeError):  # RuntimeError: this user has no home
        return False
