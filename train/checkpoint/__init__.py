"""When and what to save: what every rank writes, the agreement of all, what is kept, and the way back."""

from train.checkpoint.restore import (
    check_same_model,
    initialise_from,
    newest_good_together,
    restore,
    verify_together,
)
from train.checkpoint.saver import Saver

__all__ = [
    "Saver",
    "check_same_model",
    "initialise_from",
    "newest_good_together",
    "restore",
    "verify_together",
]
