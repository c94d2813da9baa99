"""The timeline: what breaks, what goes wrong with the data, and what the user changes, in the order of the run's log.

Positions are counted in full batches. What the user does and what kills the run is placed by samples seen, what is wrong
with the data by samples drawn: a run that leaves data out meets what lies behind them earlier. Dates and step numbers in
the texts are those of the log of GLM-130B (logs/main-log-en.md of its repository); the 49,300 steps of that run are some
700 here, so windows and horizons of the detector and the policy are shortened likewise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

BATCH = 8
"""Samples of the full batch."""
TOTAL = 700
"""Length of the run."""
LR = 1e-2
TOO_HIGH = 20.0
"""How many times too high the learning rate is that comes with the replaced instructions, in a disturbed run."""
CLIP = 1.0
"""As in the original run."""

POISONED = [(350, 370), (440, 460), (530, 550)]
"""Data whose targets nothing predicts."""
ENLARGED = [(590, 592), (620, 622)]
"""Data whose gradients are a thousand times too large."""

Words = dict[str, str]


class Ends(Enum):
    """How an attempt ends."""

    stopped = "stopped by its user"
    killed = "kill -9 of all ranks"
    hung = "a rank hangs"
    done = "done"


class Variant(str, Enum):
    """What is compared."""

    clean = "clean"
    """The timeline without poisoned data, large gradients and the too high rate; with stability.on_spike=rollback, which
    should find nothing."""
    rollback = "rollback"
    warn = "warn"

    @property
    def is_disturbed(self) -> bool:
        """True if the data are poisoned and the rate is too high."""
        return self is not Variant.clean


@dataclass(frozen=True)
class Place:
    """Where the run is when its user types a change."""

    seen: int
    drawn: int

    def seen_after(self, batches: int) -> int:
        """Samples seen so many full batches later."""
        return self.seen + batches * BATCH


@dataclass(frozen=True)
class Act:
    """One attempt, and what follows it."""

    until: int
    """Where it ends."""
    ends: Ends
    story: str
    """What it stands for."""
    changes: Callable[[Place, Variant], Words] | None = None
    """What the user types from then on; None: the same command again."""
    ranks: int | None = None
    """Number of ranks from then on."""
    loses_file: bool = False
    """The next start finds a file of the corpus missing."""


def first_words(variant: Variant) -> Words:
    """What is typed at the start, but for paths and the seed."""
    words = {
        "precision": "fp32",
        "model.num_layers": "2",
        "model.hidden_size": "32",
        "model.num_heads": "2",
        "model.ffn_size": "88",
        "model.seq_length": "64",
        "model.vocab_size": "264",
        "model.vocab_multiple": "8",
        "objective.windows_per_row": "2",
        "data.tokenizer": "bytes",
        "data.instruction_share": "[[0,0.05]]",
        "optim.micro_batch_size": "4",
        "optim.global_batch_size": str(BATCH),
        "optim.batch_ramp": f"{{start:4,increment:4,samples:{30 * BATCH}}}",
        "optim.total_samples": str(TOTAL * BATCH),
        "optim.warmup_samples": str(30 * BATCH),
        "optim.lr": str(LR),
        "optim.clip": str(CLIP),
        "stability.embedding_shrink": "[[0,0.1]]",
        "stability.on_spike": "warn" if variant is Variant.warn else "rollback",
        "stability.spike_window": "64",
        "stability.spike_steps": "[4,8]",
        "stability.skip_steps": "24",
        # A rate that is 20 times too high is still too high by half.
        "stability.relapse_lr": "0.1",
        "stability.rollback_samples": str(32 * BATCH),
        "stability.watchdog_seconds": "10",
        "eval.every_samples": str(50 * BATCH),
        "eval.num_samples": "128",
        "checkpoint.save_every_samples": str(10 * BATCH),
        "checkpoint.keep_last": "10",
    }
    return words


def _larger_shrink(place: Place, _: Variant) -> Words:
    points = f"[[0,0.1],[{place.seen},0.1],[{place.seen_after(10)},1.0]]"
    # The batch ramp has ended: the full batch is one micro-batch from here on.
    return {"stability.embedding_shrink": points, "optim.micro_batch_size": str(BATCH)}


def _to_two_shards(_: Place, __: Variant) -> Words:
    return {"parallel.tp": "2"}


def _to_one(_: Place, __: Variant) -> Words:
    return {"parallel.tp": "1"}


def _right_instructions(place: Place, variant: Variant) -> Words:
    return {
        "data.instructions": "[{right}]",
        "data.instruction_share": f"[[0,0],[{place.drawn},0.05]]",
        "data.stage_ramp_samples": str(30 * BATCH),
        "data.accept_changed": "true",
        "optim.rewarmup_samples": str(30 * BATCH),
        "stability.embedding_shrink": f"[[0,0.2],[{place.seen},0.2],[{place.seen_after(30)},1.0]]",
        **({"optim.lr": str(LR * TOO_HIGH)} if variant.is_disturbed else {}),
    }


def _half_the_rate(_: Place, __: Variant) -> Words:
    return {"optim.lr": str(LR / 2), "optim.min_lr": str(LR / 10), "optim.rewarmup_samples": "0"}


def _shrink_of(alpha: float) -> Callable[[Place, Variant], Words]:
    return lambda _, __: {"stability.embedding_shrink": f"[[0,{alpha}]]"}


def _lower_end(_: Place, __: Variant) -> Words:
    return {"optim.min_lr": str(LR / 20)}


TIMELINE = [
    Act(40, Ends.killed, "05-07, step 4000: two nodes fail"),
    Act(60, Ends.stopped, "05-10, step 6000: alpha -> 1 over 500 steps", _larger_shrink),
    Act(75, Ends.killed, "05-11, step 7300: a node fails"),
    Act(110, Ends.stopped, "05-20, step 15400: move to other nodes", _to_two_shards, ranks=2),
    Act(125, Ends.hung, "06-09: training hangs"),
    Act(140, Ends.stopped, "05-20, step 15600: move again", _to_one, ranks=1),
    Act(
        *(170, Ends.stopped),
        "05-28, step 22800: the instructions were wrong; others over 2000 steps, with re-warm-up and alpha .2 -> 1",
        _right_instructions,
    ),
    Act(
        *(185, Ends.killed),
        "05-30, step 23200: a node fails, the corpus cannot be read",
        loses_file=True,
    ),
    Act(215, Ends.stopped, "06-03, step 26000: the learning rate is halved", _half_the_rate),
    Act(400, Ends.stopped, "06-12, step 33600: alpha .5", _shrink_of(0.5)),
    Act(480, Ends.killed, "06-19, step 39600: a node fails"),
    Act(520, Ends.stopped, "06-14, step 35200: alpha .1", _shrink_of(0.1)),
    Act(630, Ends.stopped, "06-22, step 42700: min-lr is halved", _lower_end),
    Act(650, Ends.killed, "06-26: NVLink error"),
    Act(TOTAL, Ends.done, "07-03, step 49300: end"),
]


def in_samples(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in samples."""
    return [(first * BATCH, last * BATCH) for first, last in ranges]
