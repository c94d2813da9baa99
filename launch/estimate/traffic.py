"""Bytes that the GPU's memory moves outside matrix products, per element: constants that were counted.

`python -m benchmarks cost --constants` counts the real layers and engine and prints these tables; a test compares them.
On CUDA a fused function's bytes are what it declares: no GPU has confirmed them yet.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from configs import computation
from configs.schema import ModelConfig, Norm, ObjectiveConfig, Precision


@dataclass(frozen=True)
class PassTraffic:
    """Bytes read and written in one pass of a layer, per element of a tensor."""

    hidden: float
    """(tokens, hidden), whole on every tensor-parallel rank unless sequences are cut."""
    cut: float
    """(tokens, hidden / tp): queries, keys, values, mixed values."""
    inner: float
    """(tokens, ffn / tp)."""
    scores: float
    """(tokens, seq, heads / tp), where they are materialised; their products with queries, keys and values included."""
    hidden_dropout: float
    """(tokens, hidden), more with dropout."""
    scores_dropout: float
    """(tokens, seq, heads / tp), more with dropout of the weights."""


@dataclass(frozen=True)
class HeadTraffic:
    """Bytes of both passes of final norm, head and loss."""

    hidden: float
    """(tokens, hidden)."""
    logits: float
    """(tokens, vocabulary / tp); every token counts as a target."""
    weights: float
    """(vocabulary / tp, hidden)."""
    weights_again: float = 0.0
    """(vocabulary / tp, hidden), once more for each chunk of targets after the first."""


@dataclass(frozen=True)
class Traffic:
    """What a program moves."""

    forward: PassTraffic
    backward: PassTraffic
    head: HeadTraffic
    gradients: float
    """Per parameter of a rank and micro-batch: adding up gradients."""
    step: float
    """Per parameter of a rank and step: norm, copies of gradients around their reduction, zeroing."""
    update: float
    """Per parameter that a replica owns and step: clipping, the optimizer, copies between masters and weights."""
    sums_forward: int
    """Sums over the tensor-parallel ranks in a layer's forward pass, each of all hidden states."""
    sums_backward: int


# Share of all pairs of a row's tokens that the mask allows: [gMASK] rows, and rows of equal [MASK] windows times their
# number.
GMASK_SHARE, WINDOW_SHARE = 0.583, 0.77


def allowed_share(objective: ObjectiveConfig) -> float:
    """Mean share of pairs over an objective's rows; rows of other objectives count as [MASK] rows."""
    windows = WINDOW_SHARE / objective.windows_per_row
    return objective.gmask_share * GMASK_SHARE + (1 - objective.gmask_share) * windows


_BF16 = Traffic(
    forward=PassTraffic(
        hidden=18.3, cut=12, inner=6.1, scores=9, hidden_dropout=4, scores_dropout=4
    ),
    backward=PassTraffic(
        hidden=32.3, cut=18, inner=14.1, scores=15.2, hidden_dropout=10, scores_dropout=1
    ),
    head=HeadTraffic(hidden=32.2, logits=44, weights=20, weights_again=10),
    gradients=9.7,
    step=28.1,
    update=38,
    sums_forward=2,
    sums_backward=2,
)
_FP16 = replace(_BF16, gradients=6, step=6.3, update=85.5)
_FP32 = Traffic(
    forward=PassTraffic(
        hidden=36.3, cut=24, inner=12.1, scores=18, hidden_dropout=4, scores_dropout=6
    ),
    backward=PassTraffic(
        hidden=64.3, cut=36, inner=28.1, scores=30.5, hidden_dropout=18, scores_dropout=1
    ),
    head=HeadTraffic(hidden=80.2, logits=24, weights=8),
    gradients=12,
    step=12.6,
    update=95.1,
    sums_forward=2,
    sums_backward=2,
)


# What options of the model add to the default layer, forward and backward: elements, not bytes.
_PRE = (PassTraffic(1, 0, 0, 0, 0, 0), PassTraffic(2, 0, 0, 0, 0, 0))
_SANDWICH = (PassTraffic(9, 0, 0, 0, 8, 0), PassTraffic(12, 0, 0, 0, 4, 0))
_QK_NORM = (PassTraffic(0, 10, 0, 0, 0, 0), PassTraffic(0, 16, 0, 0, 0, 0))
_ROUNDED_SOFTMAX = (PassTraffic(0, 0, 0, 8, 0, 3), PassTraffic(0, 0, 0, 16, 0, 4))


def our_traffic(precision: Precision, model: ModelConfig | None = None) -> Traffic:
    """What this trainer moves in a precision.

    Args:
        precision: of the run.
        model: whose options count; None: the default layer.
    """
    traffic = _FP32 if precision is Precision.fp32 else _FP16
    if computation.sums_in_fp32(precision):
        traffic = _BF16
    size = computation.element_bytes(precision)
    for forward, backward in _options(model) if model is not None else ():
        traffic = replace(
            traffic,
            forward=_more(traffic.forward, forward, size),
            backward=_more(traffic.backward, backward, size),
        )
    return traffic


def _options(model: ModelConfig) -> Iterator[tuple[PassTraffic, PassTraffic]]:
    if model.norm is Norm.pre:
        yield _PRE
    if model.norm is Norm.sandwich:
        yield _SANDWICH
    if model.qk_norm:
        yield _QK_NORM
    if not model.softmax_fp32:
        yield _ROUNDED_SOFTMAX


def _more(passes: PassTraffic, elements: PassTraffic, size: int) -> PassTraffic:
    added = vars(elements)
    return PassTraffic(**{key: value + size * added[key] for key, value in vars(passes).items()})
