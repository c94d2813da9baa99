"""Weights & Biases: the one file that imports wandb, and only when it is used.

One run id is made at the first start and kept in the run folder and the checkpoints, so that every life reports to the
same run. Without an API key the run is recorded offline, each life in its own folder, with a script that sends all of
them in order. Whatever goes wrong in wandb is said once and never stops training.
"""

import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from configs.errors import RunFolderError
from configs.schema import LogConfig, Wandb
from train.metrics import Metrics

_SYNC = """#!/usr/bin/env bash
# Sends the offline records of this run, oldest first, to the one wandb run. Needs WANDB_API_KEY or `wandb login`.
set -euo pipefail
cd "$(dirname "$0")"
for life in offline-run-*; do
  wandb sync --append "$life"
done
"""
_RUN_ID = re.compile(r"[A-Za-z0-9_\-]{1,64}")


def run_id(folder: Path, stored: object) -> str:
    """The run's wandb id: from the checkpoint if there is a sensible one, from the run folder, or a new one."""
    path = folder / "wandb" / "run_id.txt"
    if path.is_file():
        return path.read_text().strip()
    path.parent.mkdir(parents=True, exist_ok=True)
    is_sensible = isinstance(stored, str) and _RUN_ID.fullmatch(stored)
    chosen = str(stored) if is_sensible else uuid.uuid4().hex[:12]
    path.write_text(chosen + "\n")
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


class WandbTracker:
    """Reports to wandb.

    Args:
        folder: run folder.
        name: of the run.
        identifier: of the wandb run.
        settings: project, entity, mode.
        config: all keys, flat.
        warn: told once if wandb fails.
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
        except Exception as error:  # a tracker must not end the run
            self._give_up(error)
            return
        if mode == "offline":
            sync = folder / "wandb" / "sync.sh"
            sync.write_text(_SYNC)
            sync.chmod(0o755)
            warn(f"wandb records offline. Send it later with: bash {sync}")

    def log(self, line: Metrics) -> None:
        """Report one step."""
        if self._run is None:
            return
        try:
            self._run.log({key: value for key, value in line.items() if value is not None})
        except Exception as error:
            self._give_up(error)

    def say(self, text: str) -> None:
        """Nothing: sentences are for the console."""

    def sync(self) -> None:
        """Nothing: no checkpoint relies on wandb."""

    def close(self) -> None:
        """Finish this life's record."""
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


def _has_login() -> bool:
    netrc = Path.home() / ".netrc"
    try:
        return "wandb" in netrc.read_text()
    except OSError:
        return False
