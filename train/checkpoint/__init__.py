"""Saving and restoring a run: each rank's file, the agreement of all ranks, retention, and resuming."""

from train.checkpoint.restore import (
    check_same_model,
    initialise_from,
    newest_good_together,
    restore,
    verify_together,
)
from train.checkpoint.saver import Origin, Outcome, Saver
from train.checkpoint.second_copy import become_a_run, claim
from train.checkpoint.shared import check_copy_is_shared
from train.checkpoint.store import copy_folder, no_fence, places_of

__all__ = [
    "Origin",
    "Outcome",
    "Saver",
    "become_a_run",
    "check_copy_is_shared",
    "check_same_model",
    "claim",
    "copy_folder",
    "initialise_from",
    "newest_good_together",
    "no_fence",
    "places_of",
    "restore",
    "verify_together",
]
