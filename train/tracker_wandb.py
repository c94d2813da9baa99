"""Weights & Biases: the one file that imports wandb, and only when it is used.

One run id is made at the first start and kept in the run folder and the checkpoints, so that every start reports to the
same run. Without an API key the run is recorded offline, each start in its own folder, with a script that sends all of
them in order. Whatever goes wrong in wandb is said once and never stops training.
"""

import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from configs.errors import RecordError, RunFolderError
from configs.records import read_text
from configs.run_paths import RunPaths
from configs.schema import LogConfig, Wandb
from train.metrics import Metrics
from train.run_folder import replace_file
from train.trackers import Tracker

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
    try:
        if _RUN_ID.fullmatch(kept := read_text(path).strip()):
            return kept
    except (OSError, RecordError):
        pass  # none, or none of ours: it is made anew below
    is_sensible = isinstance(stored, str) and _RUN_ID.fullmatch(stored)
    chosen = str(stored) if is_sensible else uuid.uuid4().hex[:12]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, chosen + "\n")
    except OSError as error:
        warn(f"{path} cannot be written ({error.strerror}): the next start may report elsewhere.")
    return chosen


def resolve_mode(wandb: Wandb) -> str:
    """Online or offline; `auto` is online if there is a key.

    Raises:
        RunFolderError: online was asked for, but there is no key.
    """
    has_key = bool(os.environ.get("WANDB_API_KEY")) or _has_login()
    if wandb is Wandb.online and not has_key:
        raise RunFolderError(
            "log.wandb (online) needs a key: run `wandb login`, set WANDB_API_KEY, or type log.wandb=offline."
        )
    if wandb is Wandb.auto:
        return os.environ.get("WANDB_MODE") or ("online" if has_key else "offline")
    return wandb.value


class WandbTracker(Tracker):
    """Reports to wandb.

    Args:
        folder: run folder.
        name: of the run.
        identifier: of the wandb run.
        settings: project, entity, mode.
        config: all keys, flat.
        warn: called once if wandb fails.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        identifier: str,
        settings: LogConfig,
        config: dict[str, Any],
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._run: Any = None
        mode = resolve_mode(settings.wandb)
        try:
            import wandb

            self._run = wandb.init(
                project=settings.wandb_project,
                entity=settings.wandb_entity,
                name=name,
                id=identifier,
                resume="allow" if mode == "online" else None,
                mode=cast(Any, mode),
                dir=str(folder),
                config=config,
                settings=wandb.Settings(silent=True, console="off"),
            )
            self._run.define_metric("samples_seen")
            self._run.define_metric("*", step_metric="samples_seen")
            if mode == "offline":
                warn(
                    f"wandb records offline. Send it later with: bash {_sync_script(folder, identifier)}"
                )
        except Exception as error:  # a tracker must not end the run
            self._give_up(error)

    def log_metrics(self, line: Metrics) -> None:
        """Report one step."""
        if self._run is None:
            return
        try:
            self._run.log({key: value for key, value in line.items() if value is not None})
        except Exception as error:
            self._give_up(error)

    def alert(self, title: str, text: str) -> None:
        """Send an alert."""
        if self._run is None:
            return
        try:
            self._run.alert(title=title, text=text)
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """Finish this start's record."""
        if self._run is None:
            return
        try:
            self._run.finish()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        self._warn(f"wandb failed ({reason}); training goes on without it.")


def records_offline(folder: RunPaths) -> bool:
    """True if a run has records that wait to be sent: the script that sends them lies beside them."""
    try:
        return folder.wandb_sync.is_file() and any(folder.wandb.glob("offline-run-*"))
    except OSError:
        return False


def _sync_script(folder: Path, identifier: str) -> Path:
    """Write what sends the records; who may read it is for the umask to say."""
    path = RunPaths(folder).wandb_sync
    replace_file(path, _SYNC.replace("RUN_ID", identifier))
    return path


def _has_login() -> bool:
    try:
        return "wandb" in read_text(Path.home() / ".netrc")
    except (OSError, RecordError, RuntimeError):  # RuntimeError: this user has no home
        return False
