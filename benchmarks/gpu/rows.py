"""Rows of each kind that attention meets: who may attend to whom, not what the tokens are."""

import torch
from torch import Tensor

from glm.row_fields import pack_fields

# (context, targets, padding behind them) as shares of the row, one after the other.
KINDS: dict[str, list[tuple[float, float, float]]] = {
    "[gMASK]": [(0.4, 0.6, 0.0)],
    "4 windows": [(0.2125, 0.0375, 0.0)] * 4,
    "padding": [(0.4, 0.25, 0.35)],
    "short rows": [(0.04, 0.015, 0.0075)] * 16,
}


def fields_of(kind: str, length: int, device: torch.device) -> Tensor:
    """Fields (1, 6, length) of one row of a kind."""
    segments = torch.zeros(length, dtype=torch.int64)
    contexts = torch.zeros(length, dtype=torch.bool)
    place = 0.0
    for number, (context, targets, padding) in enumerate(KINDS[kind], start=1):
        start, split = round(place * length), round((place + context) * length)
        segments[start : round((place + context + targets) * length)] = number
        contexts[start:split] = True
        place += context + targets + padding
    places, nothing = torch.arange(length)[None], torch.zeros(1, length, dtype=torch.int64)
    is_target = (segments > 0) & ~contexts
    fields = pack_fields(
        segments[None], contexts[None], places, nothing, is_target[None], torch.tensor([0])
    )
    return fields.to(device)
