"""Steps and evaluations as lines of text, for log.txt and where there is no live display."""

import math
from functools import lru_cache
from typing import Any

from configs.objectives import find
from train.metrics import Metrics

# Of the terminals that lines are made for; with many objectives the learning rate is left out.
_COLUMNS = 80


def step_text(line: Metrics) -> str:
    """One step as a line of fixed columns, for a log."""
    parts = _by_objective(line, "train", 2)
    text = (
        f"step {line['step']:6,} | samples {line['samples_seen']:10,} | loss {_short(line['train/loss'])} ({parts}) | "
        f"lr {line['optim/lr']:.2e} | gnorm {_short(line['optim/grad_norm'])} | "
        f"{line['speed/tokens_per_second']:,.0f} tokens/s"
    )
    if line["valid/loss"] is not None:
        valid = _by_objective(line, "valid", 3)
        text += f" | held-out loss {line['valid/loss']:.4f} ({valid})"
    return text


def evaluation_text(line: Metrics) -> str:
    """An evaluation as a line for a terminal of 80 columns, above a display that shows the rest."""
    valid = _by_objective(line, "valid", 3)
    text = (
        f"{line['samples_seen']:>9,} samples  held-out loss {_short(line['valid/loss'])} ({valid})"
    )
    rate = f"  lr {line['optim/lr']:.1e}"
    return text + rate if len(text + rate) <= _COLUMNS else text


@lru_cache
def label_of(key: str) -> str:
    """The name of an objective in tables and lines."""
    return find(key).label


def _by_objective(line: Metrics, kind: str, digits: int) -> str:
    prefix = f"{kind}/loss_"
    values = {
        key.removeprefix(prefix): value for key, value in line.items() if key.startswith(prefix)
    }
    return " ".join(
        f"{label_of(name)} {v:.{digits}f}" for name, v in values.items() if v is not None
    )


def _short(value: Any) -> str:
    return f"{value:.4f}" if value is not None and math.isfinite(value) else str(value)
