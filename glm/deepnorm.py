"""DeepNorm: the constants that keep a deep Post-LN Transformer stable. GLM-130B, section 2.1.

    x = LayerNorm(alpha * x + f(x)),  alpha = (2L)^(1/2)
    Xavier-normal initial weights with gain beta = (2L)^(-1/2) for the feed-forward, the values and the attention output,
    and gain 1 for queries and keys.

Biases start at 0. Fans are those of the whole matrix, whatever its cut.
"""

import math


def alpha(num_layers: int) -> float:
    """Weight of the residual; sqrt(140) = 11.83 for 70 layers."""
    return math.sqrt(2 * num_layers)


def beta(num_layers: int) -> float:
    """Gain of the initial weights inside the residual branches; 0.0845 for 70 layers."""
    return 1 / math.sqrt(2 * num_layers)


def xavier_std(fan_in: int, fan_out: int, gain: float = 1.0) -> float:
    """Standard deviation of Xavier-normal weights."""
    return gain * math.sqrt(2 / (fan_in + fan_out))
