"""Where the list [embedding, layers, final norm, head] is cut: the parts of pipeline stages, and what each holds."""

from functools import lru_cache

from configs import derive
from configs.schema import ModelConfig


def head_layers(model: ModelConfig) -> float:
    """Operations of the head for a token that is a target, in layers: about 1 at GLM-130B, 20 in a small model."""
    return head_share(
        derive.padded_vocab_size(model) * model.hidden_size,
        derive.matrix_weights(model),
        model.seq_length,
        model.hidden_size,
    )


def head_share(head_weights: int, layer_weights: float, seq_length: int, hidden_size: int) -> float:
    """Operations of a head over those of a layer, attention over half of all pairs included."""
    return head_weights / (layer_weights + seq_length * hidden_size)


@lru_cache(maxsize=1024)
def layers_of_parts(num_layers: int, num_parts: int, head: float = 1.0) -> tuple[int, ...]:
    """Layers of each part of the list [embedding, layers, final norm, head].

    By default embedding, head and each layer count 1 (GLM-130B, section 2.3: 9 x 8 - 2 = 70 layers). Where the count does
    not divide, the first parts take one more: so the embedding never stands alone, and every stage has both decayed and
    undecayed parameters (DeepSpeed's gradient norm hangs if stages differ in that). The embedding computes nothing, and a
    head may cost many layers: if the slowest part is at least a fiftieth faster so, parts have equal operations instead.

    Args:
        num_layers: of the model.
        num_parts: of all stages.
        head: operations of the head, in layers.
    """
    size, extra = divmod(num_layers + 2, num_parts)
    counted = [size + (part < extra) for part in range(num_parts)]
    counted[0] -= 1
    counted[-1] -= 1
    slowest = 0.98 * max(*counted[:-1], counted[-1] + head, 0.0)
    best = counted
    for last in range(num_layers - num_parts + 2 if num_parts > 1 else 0):
        even, more = divmod(num_layers - last, num_parts - 1)
        pace = max(even + (more > 0), last + head)
        if pace <= slowest:
            # Those with one more come late: earlier ones keep more micro-batches, and the first has the embedding.
            best = [even + (part >= num_parts - 1 - more) for part in range(num_parts - 1)] + [last]
            slowest = pace
    return tuple(best)


def stage_entries(
    num_layers: int, pp: int, num_chunks: int = 1, head: float = 1.0
) -> list[list[range]]:
    """Cut the list [embedding, layers, final norm, head] into the chunks of pipeline stages; see `layers_of_parts`.

    Args:
        num_layers: of the model.
        pp: pipeline stages.
        num_chunks: parts of the list that each stage holds; with several, the chunks of a pass go round the stages.
        head: operations of the head, in layers.

    Returns:
        Of each stage its chunks, in the order in which a pass meets them: ranges of list entries.
    """
    bounds = [0]
    for layers in layers_of_parts(num_layers, pp * num_chunks, head):
        bounds.append(bounds[-1] + layers)
    # The embedding comes before the first layer, norm and head after the last.
    edges = [0, *(bound + 1 for bound in bounds[1:-1]), num_layers + 3]
    parts = [range(start, stop) for start, stop in zip(edges, edges[1:], strict=False)]
    return [parts[stage::pp] for stage in range(pp)]


def layers_among(num_layers: int, chunks: list[range]) -> int:
    """Transformer layers among list entries."""
    return sum(1 <= entry <= num_layers for chunk in chunks for entry in chunk)


def stage_parameters(model: ModelConfig, pp: int, tp: int = 1, num_chunks: int = 1) -> list[int]:
    """Parameters that one rank of each stage holds; the tied head is a second copy on the last stage."""
    matrix = derive.padded_vocab_size(model) * model.hidden_size // tp
    entries = (
        [matrix + derive.embedding_norm_parameters(model)]
        + [derive.layer_parameters(model, tp)] * model.num_layers
        + [2 * model.hidden_size]
    )
    head = model.num_layers + 2
    counts: list[int] = []
    for chunks in stage_entries(model.num_layers, pp, num_chunks, head_layers(model)):
        held = [entry for chunk in chunks for entry in chunk]
        has_head_alone = head in held and 0 not in held
        counts.append(
            sum(entries[entry] for entry in held if entry < head)
            + (matrix if has_head_alone else 0)
        )
    return counts
