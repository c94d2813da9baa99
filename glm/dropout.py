"""Dropout whose mask is arithmetic: a function of (seed, sample, layer, site, global element).

A generator's mask would change with the micro-batch size, the layout, a resume, and (if the generator is private to a
recomputed region) even between the forward and the backward pass. This one cannot.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glm.counter_random import key_of, mix
from glm.fused import fused

_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class KeptElements:
    """Which elements dropout keeps; those are divided by 1 - probability."""

    mask: Tensor
    """Bool: True where an element is kept."""
    probability: float


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
        # A tensor, so that one compiled kernel serves all layers.
        key = torch.tensor(key_of(seed, "dropout", layer, site))
        self.register_buffer("_key", key, persistent=False)

    @property
    def is_active(self) -> bool:
        """True if elements are dropped at all."""
        return self.training and self.probability > 0.0

    def kept(self, samples: Tensor, firsts: Tensor, width: int) -> KeptElements:
        """Decide what an active dropout keeps of rows of elements.

        Args:
            samples: (rows,) int64: index of each row's sample.
            firsts: (rows,) int64: index of each row's first element within its sample.
            width: elements of a row.

        Returns:
            A mask of (rows, width).
        """
        key: Tensor = self.get_buffer("_key")
        mask = keep_mask(samples, firsts, width, key, self.probability)
        return KeptElements(mask, self.probability)


@fused
def keep_mask(
    samples: Tensor, firsts: Tensor, width: int, key: Tensor, probability: float
) -> Tensor:
    """Hash each element's place: (rows, width) bool, True with 1 - probability."""
    element = firsts[:, None] + torch.arange(width, device=samples.device)
    sample = mix((samples & _WORD) ^ key[0]) ^ mix((samples >> 32) + key[1] & _WORD)
    words = mix((mix(element & _WORD) + sample[:, None] ^ (element >> 32)) & _WORD)
    return words >= int(probability * 2**32)


def drop(values: Tensor, kept: KeptElements) -> Tensor:
    """Zero the elements of (rows, width) that are not kept, and scale the others."""
    return torch.where(kept.mask, values / (1.0 - kept.probability), 0.0)
