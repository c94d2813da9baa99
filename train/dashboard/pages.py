"""What stands on the pages of a run's dashboard, from the names of what the run reports (train/metrics.py)."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

SAMPLES = "samples/blanks"
"""wandb's name of the filled blanks."""


@dataclass(frozen=True)
class Panel:
    """Curves over samples_seen."""

    title: str
    keys: tuple[str, ...] = ()
    """What it draws."""
    pattern: str = ""
    """A regular expression of what it draws, in place of keys: for curves by layer or by source."""
    is_stacked: bool = False
    is_logarithmic: bool = False


@dataclass(frozen=True)
class Page:
    """A page, which wandb calls a section."""

    title: str
    panels: tuple[Panel, ...]
    has_samples: bool = False
    """It ends with the table of filled blanks."""
    has_events: bool = False
    """It ends with what happened to the run, and what its configuration is."""


def pages(keys: Collection[str]) -> list[Page]:
    """The pages of a run.

    Args:
        keys: names of all that it reports; panels of anything else are left out.
    """

    def given(panel: Panel) -> Panel | None:
        if panel.pattern:
            return panel if any(re.fullmatch(panel.pattern, key) for key in keys) else None
        found = tuple(key for key in panel.keys if key in keys)
        return _with_keys(panel, found) if found else None

    made = [page(sorted(keys)) for page in (_losses, _stability, _throughput, _data, _reliability)]
    return [
        Page(
            page.title,
            tuple(panel for each in page.panels if (panel := given(each)) is not None),
            page.has_samples and SAMPLES in keys,
            page.has_events,
        )
        for page in made
    ]


def _losses(keys: Sequence[str]) -> Page:
    objectives = [
        key.removeprefix("train/loss_") for key in keys if re.fullmatch(r"train/loss_[^/]+", key)
    ]
    return Page(
        "Loss by objective",
        (
            Panel("Loss", ("train/loss", "valid/loss")),
            Panel("Training loss by objective", tuple(f"train/loss_{name}" for name in objectives)),
            Panel("Held-out loss by objective", tuple(f"valid/loss_{name}" for name in objectives)),
            *(
                Panel(f"Loss: {name}", (f"train/loss_{name}", f"valid/loss_{name}"))
                for name in objectives
            ),
        ),
    )


def _stability(_: Sequence[str]) -> Page:
    return Page(
        "Stability",
        (
            Panel(
                "Gradient norm",
                ("optim/grad_norm", "optim/grad_norm_embedding"),
                is_logarithmic=True,
            ),
            Panel("Gradient norm by layer", pattern=r"layers/gradient_norm/\d+"),
            Panel("Weight norm by layer", pattern=r"layers/weight_norm/\d+"),
            Panel("Activations by layer (root mean square)", pattern=r"layers/activation_rms/\d+"),
            Panel("Weight norm by part", pattern=r"parts/weight_norm/.+"),
            Panel("Loss scale", ("optim/loss_scale",), is_logarithmic=True),
            Panel("Learning rate", ("optim/lr",)),
            Panel("Embedding shrink", ("optim/embedding_shrink",)),
            Panel("Global batch size (samples)", ("optim/global_batch_size",)),
        ),
    )


def _throughput(keys: Sequence[str]) -> Page:
    parts = tuple(key for key in keys if key.startswith("time/") and key != "time/step")
    memory = tuple(key for key in keys if re.fullmatch(r"memory/(?!peak).+_gib", key))
    return Page(
        "Throughput",
        (
            Panel("Tokens per second", ("speed/tokens_per_second",)),
            Panel("MFU and HFU, attention as dense", ("speed/mfu", "speed/hfu")),
            Panel("MFU and HFU as computed", ("speed/mfu_computed", "speed/hfu_computed")),
            Panel("TFLOP/s per device", ("speed/tflops_per_gpu",)),
            Panel("Seconds per step", ("speed/seconds_per_step", "time/step")),
            Panel("Parts of a step (seconds)", parts, is_stacked=True),
            Panel("Waiting for data (seconds)", ("speed/data_wait_seconds",)),
            Panel("Evaluation (seconds)", ("speed/evaluation_seconds",)),
            Panel("Peak memory (GiB)", ("memory/peak_gib",)),
            Panel("Memory by part (GiB)", memory, is_stacked=True),
        ),
    )


def _data(_: Sequence[str]) -> Page:
    return Page(
        "Data mixture",
        (
            Panel("Training loss by source", pattern="train/loss_source/.+"),
            Panel("Held-out loss by source", pattern="valid/loss_source/.+"),
            Panel("Share of tokens with a loss", ("data/target_tokens_fraction",)),
            Panel("Samples drawn", ("data/samples_drawn",)),
            Panel("Tokens seen", ("tokens_seen",)),
        ),
        has_samples=True,
    )


def _reliability(_: Sequence[str]) -> Page:
    return Page(
        "Reliability",
        (
            Panel("Steps", ("step",)),
            Panel("Steps left out", ("optim/skipped_steps",)),
            Panel(
                "Slowest and fastest rank (seconds)",
                ("speed/rank_seconds_max", "speed/rank_seconds_min"),
            ),
            Panel("Own seconds of the ranks", pattern="ranks/seconds/(min|median|max)"),
            Panel("Held up by saves (seconds)", ("speed/checkpoint_blocked_seconds",)),
        ),
        has_events=True,
    )


def _with_keys(panel: Panel, keys: tuple[str, ...]) -> Panel:
    return Panel(panel.title, keys, "", panel.is_stacked, panel.is_logarithmic)
