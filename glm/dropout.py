"""Dropout whose mask is arithmetic: a function of (seed, sample, layer, site, global element).

A generator's mask would change with the micro-batch size, the layout, a resume, and (if the generator is private to a
recomputed region) even between the forward and the backward pass. This one cannot.
"""

import torch
from torch import Tensor, nn

from glm.counter_random import key_of, mix

_WORD = 0xFFFFFFFF


class Dropout(nn.Module):
    """Zero elements with a probability and scale the others up, in training only.

    Args:
        probability: probability of zeroing an element.
        seed: seed of the run.
        layer: index of the layer; -1 for the embedding.
        site: where dropout is applied: "embedding", "attention_weights", "attention_output" or "mlp_output".
    """

    def __init__(self, probability: float, seed: int, layer: int, site: str) -> None:
        super().__init__()
        self.probability = probability
        self._key = key_of(seed, "dropout", layer, site)

    def forward(self, values: Tensor, sample_index: Tensor, first: int = 0) -> Tensor:
        """Drop elements.

        Args:
            values: (batch, ...): everything after the first axis is one sample's.
            sample_index: (batch,) int64.
            first: index of this rank's first element within the sample: its tensor-parallel offset.
        """
        if not self.training or self.probability == 0.0:
            return values
        keep = keep_mask(values.shape, sample_index, self._key, self.probability, first)
        return torch.where(keep, values / (1.0 - self.probability), torch.zeros_like(values))


def keep_mask(
    shape: torch.Size,
    sample_index: Tensor,
    key: tuple[int, int],
    probability: float,
    first: int = 0,
) -> Tensor:
    """Decide which elements stay: bool of `shape`, True with 1 - probability."""
    count = shape[1:].numel()
    element = torch.arange(first, first + count, device=sample_index.device)
    sample = mix((sample_index & _WORD) ^ key[0]) ^ mix((sample_index >> 32) + key[1] & _WORD)
    words = mix((mix(element & _WORD)[None] + sample[:, None] ^ (element >> 32)[None]) & _WORD)
    return (words >= int(probability * 2**32)).view(shape)
