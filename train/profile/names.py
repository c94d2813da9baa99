"""The ranges that the profiler writes into a trace, beside those of the parts of a step (train/parts.py)."""

import re

STEP = re.compile(r"step (\d+)")
LAYER = re.compile(r"layer (\d+)")
EMBEDDING, ATTENTION, MLP = "embedding", "attention", "mlp"
FINAL_NORM, HEAD = "final norm", "head and loss"


def step_name(number: int) -> str:
    """Range of a whole step."""
    return f"step {number}"


def layer_name(number: int) -> str:
    """Range of a layer's pass; what is neither attention nor feed-forward in it are norms and residual sums."""
    return f"layer {number}"
