"""The trackers of other programs that a run reports to, wandb and TensorBoard: none can stop or delay it.

What makes them impossible from the beginning is said before the first step, and ends the start; whatever else goes wrong
is said once (train/background_tracker.py).
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from configs import derive
from configs.load import flatten
from configs.run_files import read_events
from configs.run_paths import RunPaths
from configs.schema import Config, Wandb
from train.background_tracker import CLOSE_SECONDS, BackgroundTracker, Say
from train.early import check_trackers
from train.tracker_tensorboard import TensorBoardTracker
from train.tracker_wandb import WandbTracker, abandon
from train.trackers import Tracker
from train.wandb_account import offline_words, resolve_mode

# wandb's own file on this machine: as long as it is written, it is worth waiting for.
_CLOSE_OFFLINE_SECONDS = 30.0


def remote_trackers(
    config: Config,
    folder: Path,
    wandb_id: str | None,
    run_id: str,
    step: int,
    log: Callable[[str], None],
    has_failed: threading.Event,
) -> list[Tracker]:
    """Begin to report to those that the configuration asks for.

    Args:
        config: of the run.
        folder: of the run; its events up to this start are recorded.
        wandb_id: of the wandb run; None: it does not report there.
        run_id: identity of the run.
        step: of the checkpoint that this start continues; 0 for a new run.
        log: takes sentences for people; called from the thread that uses the trackers.
        has_failed: set before the trackers are closed where the attempt ends with an error.

    Raises:
        RunFolderError: wandb was asked for online, but there is no key, or TensorBoard's library is missing.
    """
    check_trackers(config)  # the early check leaves out runs on several nodes
    found: list[Tracker] = []
    if wandb_id is not None and config.log.wandb is not Wandb.off:
        mode = resolve_mode(config.log.wandb)
        if mode == "offline":
            log(offline_words(folder, wandb_id))
        keys = {**flatten(config), "run_id": run_id}
        # Now, and not in the thread that needs them: a rollback of this attempt may be faster than it.
        changes = config_changes(folder)
        history = RunPaths(folder).metrics.open("rb") if step else None

        def wandb(say: Say) -> Tracker:
            name = derive.run_name(config)
            return WandbTracker(
                folder, name, wandb_id, config.log, keys, say, changes, step, has_failed, history
            )

        seconds = _CLOSE_OFFLINE_SECONDS if mode == "offline" else CLOSE_SECONDS
        found.append(BackgroundTracker("wandb", wandb, log, abandon, seconds))
    if config.log.tensorboard:
        target = RunPaths(folder).tensorboard
        found.append(BackgroundTracker("TensorBoard", lambda _: TensorBoardTracker(target), log))
    return found


def config_changes(folder: Path) -> Sequence[str]:
    """What each resume of a run has changed of its configuration, in words, from its events."""
    changes: list[str] = []
    samples_seen = 0
    for event, details in read_events(folder, lambda _: None):
        position, changed = details.get("samples_seen"), details.get("changes")
        if event.event == "resume" and isinstance(position, int):
            samples_seen = position
        if event.event == "config_change" and isinstance(changed, list):
            changes += [f"after {samples_seen:,} samples: {each}" for each in changed]
    return changes
