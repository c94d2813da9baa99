"""Seconds of a layer, and of the head, for one micro-batch on one rank."""

from dataclasses import dataclass

from configs import computation
from configs.schema import Recompute
from launch.estimate.network import Layout, Transformer
from launch.estimate.rates import Rates
from launch.estimate.traffic import PassTraffic


@dataclass(frozen=True)
class Seconds:
    """Seconds by cause."""

    products: float
    """Matrix products, and attention."""
    traffic: float
    """Memory traffic of everything else."""
    recompute: float
    """Both of these again, in the backward pass."""
    sums: float
    """Tensor-parallel sums that do not run beside products, those that are computed again included."""

    @property
    def computing(self) -> float:
        """All but the sums."""
        return self.products + self.traffic + self.recompute


def layer_seconds(network: Transformer, layout: Layout, rates: Rates) -> Seconds:
    """Forward and backward pass of one layer."""
    tokens = layout.micro_batch_size * network.seq_length
    products = 2 * tokens * network.weights_per_layer / layout.tp / rates.products
    pairs = 2 * tokens * network.seq_length * network.hidden_size / layout.tp
    if network.materialises_scores:
        attention, attention_backward = 2 * pairs / rates.products, 4 * pairs / rates.products
    else:
        # A fused kernel computes the scores again in its backward pass.
        pairs *= network.allowed
        attention, attention_backward = 2 * pairs / rates.attention, 5 * pairs / rates.attention
    traffic, traffic_backward = (
        moved_bytes(network, layout, side) / rates.memory
        for side in (network.traffic.forward, network.traffic.backward)
    )
    again = {
        Recompute.none: 0.0,
        # A compiled attention kernel is no operator whose output could be kept (train/engine/recompute.py).
        Recompute.selective: traffic + (0.0 if network.materialises_scores else attention),
        Recompute.full: products + attention + traffic,
    }[layout.recompute]
    return Seconds(
        products=3 * products + attention + attention_backward,
        traffic=traffic + traffic_backward,
        recompute=again,
        sums=_sums(network, layout, rates),
    )


def head_seconds(network: Transformer, layout: Layout, rates: Rates) -> float:
    """Both passes of final norm, head and loss, for rows whose tokens are all targets; nothing is recomputed."""
    tokens, local = layout.micro_batch_size * network.seq_length, network.vocab_size / layout.tp
    head = network.traffic.head
    moved = tokens * (head.hidden * network.hidden_size + head.logits * local)
    again = computation.head_chunks(int(tokens), max(int(local), 1), network.hidden_size) - 1
    moved += (head.weights + again * head.weights_again) * local * network.hidden_size
    return 6 * tokens * network.hidden_size * local / rates.products + moved / rates.memory


def moved_bytes(network: Transformer, layout: Layout, side: PassTraffic) -> float:
    """Bytes that one pass of a layer moves."""
    tokens, tp = layout.micro_batch_size * network.seq_length, layout.tp
    per_hidden = side.hidden + (side.hidden_dropout if network.hidden_dropout else 0.0)
    whole = per_hidden * network.hidden_size / (tp if layout.sequence else 1)
    moved = whole + (side.cut * network.hidden_size + side.inner * network.inner_size) / tp
    if network.materialises_scores:
        per_score = side.scores + (side.scores_dropout if network.attention_dropout else 0.0)
        moved += per_score * network.seq_length * network.num_heads / tp
    return tokens * moved


def _sums(network: Transformer, layout: Layout, rates: Rates) -> float:
    """A ring sums in 2 (n - 1) / n passes of the data; gathering or scattering is one half of that."""
    tokens = layout.micro_batch_size * network.seq_length
    hidden = tokens * network.hidden_size * layout.size
    within_node = layout.tp <= layout.gpus_per_node
    ring = 2 * (layout.tp - 1) / layout.tp * hidden / (rates.node if within_node else rates.network)
    count = network.traffic.sums_forward + network.traffic.sums_backward
    if layout.sequence:
        # The two inputs of the column-parallel matrices are gathered again for their weights' gradients.
        count += 2 * 0.5
    if layout.recompute is Recompute.full:
        # It ends before the last sum.
        count += network.traffic.sums_forward - 1
    return count * ring * (1 - layout.hidden_sums)
