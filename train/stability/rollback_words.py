"""Rollbacks in words, for the log, for messages and for the history of a run. Imports nothing that takes seconds."""

from configs.interventions import Rollback


def described(rollback: Rollback, healthy_step: int | None, lost_samples: int) -> str:
    """A decision in words, for the log.

    Args:
        rollback: the decision.
        healthy_step: step of the checkpoint that retention keeps for this; None: none is known.
        lost_samples: samples that are trained again.
    """
    parts = [
        f"Going back to the checkpoint of step {rollback.checkpoint_step:,} ({lost_samples:,} samples are trained again)"
    ]
    if healthy_step is not None and rollback.checkpoint_step < healthy_step:
        parts.append(f"past that of step {healthy_step:,}, which was taken for healthy")
    return f"{', '.join([*parts, *measures(rollback)])}. Reason: {rollback.reason}."


def measures(rollback: Rollback) -> list[str]:
    """What is done otherwise after a rollback: the data that are left out, or none, and the factors."""
    parts = [
        f"leaving out samples [{start:,}, {stop:,}) of the data stream"
        for start, stop in rollback.skip
    ]
    if not rollback.skip:
        parts.append("with the same data, which are not the cause: it has come again at others")
    return [
        *parts,
        *(f"{each} until sample {rollback.until_samples:,}" for each in _factors(rollback)),
    ]


def tried(rollback: Rollback) -> str:
    """What a rollback that was of no use has tried."""
    what = [f"samples [{start:,}, {stop:,}) left out" for start, stop in rollback.skip]
    done = ", ".join([*what, *_factors(rollback)]) or "the same data again"
    return f"back to step {rollback.checkpoint_step:,}, {done}"


def _factors(rollback: Rollback) -> list[str]:
    named = {
        "learning rate": rollback.learning_rate,
        "embedding shrink": rollback.embedding_shrink,
    }
    return [f"{name} x {factor:g}" for name, factor in named.items() if factor < 1]
