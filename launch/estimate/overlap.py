"""What of the replicas' reduction and gathering is not hidden beside passes, with `parallel.overlap`."""

from configs import pipeline
from launch.estimate.network import Layout

# A backward pass computes two gradients for each product of the forward pass.
_FORWARD, _BACKWARD = 1 / 3, 2 / 3


def waited_for(
    layout: Layout, num_micro_batches: int, pass_seconds: float, reduction: float, gathering: float
) -> float:
    """Seconds of a step in which a stage waits for the network between replicas.

    Gradients of a chunk are complete with its last micro-batch, and travel while the stage runs the last group through
    the chunks before it; weights of a chunk arrive while the first group runs through the chunks before it. Within a pass
    they come and go layer by layer.

    Args:
        layout: of the run.
        num_micro_batches: of a step.
        pass_seconds: of a stage, forward and backward, for one micro-batch.
        reduction: seconds in which all gradients of a rank reach their owners.
        gathering: seconds in which all weights of a rank arrive.
    """
    chunks = layout.chunks
    group = pipeline.group_size(layout.pp, num_micro_batches) if chunks > 1 else 1
    forward, backward = (share * pass_seconds / chunks for share in (_FORWARD, _BACKWARD))
    # Time 0 is the end of the last backward pass, that of chunk 0.
    end = -float("inf")
    for chunk in reversed(range(chunks)):
        complete = -chunk * group * backward
        end = max(max(end, complete - backward) + reduction / chunks, complete)
    late = [
        (chunk + 1) * gathering / chunks - (chunk * group + 1) * forward for chunk in range(chunks)
    ]
    return max(end, 0.0) + max(0.0, *late)
