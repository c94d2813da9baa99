"""Which checkpoints stay: arithmetic on positions."""

from collections.abc import Mapping
from pathlib import Path

from configs.run_checkpoints import step_of


def kept(
    samples_of: Mapping[Path, int],
    keep_last: int,
    keep_every_samples: int | None,
    healthy_step: int | None = None,
) -> set[Path]:
    """Choose among committed checkpoints.

    Args:
        samples_of: samples seen, by folder.
        keep_last: how many of the newest stay; at least one does.
        keep_every_samples: the first checkpoint at or after each multiple of it stays for ever; None: no such rule.
        healthy_step: the checkpoint that a diverged run can go back to stays; None: none is known.

    Returns:
        The folders that stay.
    """
    oldest_first = sorted(samples_of, key=step_of)
    keep = set(oldest_first[-max(keep_last, 1) :])
    keep.update(folder for folder in oldest_first if step_of(folder) == healthy_step)
    if keep_every_samples is not None:
        # The first of an interval is never deleted, so the first that is still there is it.
        reached = 0
        for folder in oldest_first:
            interval = samples_of[folder] // keep_every_samples
            if interval > reached:
                reached = interval
                keep.add(folder)
    return keep
