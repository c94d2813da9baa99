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


def evaluation_text(line: Metrics, columns: int = _COLUMNS) -> str:
    """An evaluation as one line, above a display that shows the rest; what does not fit is left out.

    Args:
        line: of a step after which there was one.
        columns: of the terminal.
    """
    text = f"{line['samples_seen']:>9,} samples  held-out loss {_short(line['valid/loss'])}"
    for more in (f" ({_by_objective(line, 'valid', 3)})", f"  lr {line['optim/lr']:.1e}"):
        if len(text + more) > columns:
            break
        text += more
    return text


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
