"""Held-out losses as a table: the end of a run and `python -m train.evaluate` use the same names for objectives."""

from configs.objectives import find

HEADING = "Held-out loss (nats per token)     model   best unigram model"
_ALL = "all blanks"
_LOSS = "loss"


def row(title: str, loss: float, baseline: float | None, digits: int = 3) -> str:
    """One line of the table.

    Args:
        title: of an objective.
        loss: the model's, in nats per token.
        baseline: the best unigram model's; None if there is none.
        digits: digits after the decimal point.
    """
    shown = "" if baseline is None else f"   {baseline:7.{digits}f}"
    return f"  {title:<30} {loss:7.{digits}f}{shown}"


def title_of(metric: str) -> str:
    """The title of a loss by its name in a line of metrics: `valid/loss`, `valid/loss_mask`."""
    name = metric.partition("/")[2]
    return _ALL if name == _LOSS else find(name.removeprefix(f"{_LOSS}_")).title
