"""Metrics of made-up steps, for what shows them."""

from typing import Any


def line(step: int, **values: Any) -> dict[str, Any]:
    """The metrics of a step of 8 samples; a `__` in a name stands for its slash."""
    nothing = {
        f"{kind}/loss{name}": None
        for kind in ("train", "valid")
        for name in ("", "_mask", "_gmask", "_mip")
    }
    return {
        **nothing,
        "step": step,
        "samples_seen": 8 * step,
        "train/loss": 2.5,
        "train/loss_gmask": 2.5,
        "optim/lr": 1e-3,
        "optim/grad_norm": 0.5,
        "optim/grad_norm_embedding": 0.01,
        "optim/loss_scale": 1.0,
        "optim/skipped_steps": 0,
        "speed/seconds_per_step": 0.25,
        "speed/tokens_per_second": 12345.6,
        "speed/mfu": None,
        "speed/hfu": None,
        "memory/peak_gib": 1.25,
        **{name.replace("__", "/"): value for name, value in values.items()},
    }
