"""One training sample as a human reads it:  python -m data_pipeline show PREFIX --index 17 --objective mask"""

import numpy as np

from data_pipeline.objective import Objective
from data_pipeline.packing import Sample
from data_pipeline.tokenizer import Tokenizer

_NAMES = {Objective.MASK: "[MASK]", Objective.GMASK: "[gMASK]", Objective.MIP: "MIP"}


def render(sample: Sample, tokenizer: Tokenizer) -> str:
    """Describe a sample: per segment the context with its blanks, then every target beside its position."""
    padding = int((sample.segment_ids == 0).sum())
    lines = [
        f"sample {sample.index}: {_NAMES[sample.objective]}, {len(sample.tokens)} tokens, "
        f"{int(sample.loss_mask.sum())} targets, {padding} padding, {sample.redraws} plans redrawn"
    ]
    for segment in range(1, int(sample.segment_ids.max(initial=0)) + 1):
        inside = sample.segment_ids == segment
        is_context = inside & sample.is_context
        lines += [
            "",
            f"segment {segment}: tokens {np.flatnonzero(inside)[0]} to {np.flatnonzero(inside)[-1]}",
            "  context: " + _indent(tokenizer.decode(sample.tokens[is_context].tolist())),
        ]
        lines += [_target(sample, target, tokenizer) for target in _targets(sample, inside)]
    return "\n".join(lines)


def _targets(sample: Sample, inside: np.ndarray) -> list[np.ndarray]:
    """Places of each target of a segment: they begin where the block position is 1."""
    places = np.flatnonzero(inside & ~sample.is_context)
    return np.split(places, np.flatnonzero(sample.block_position_ids[places] == 1)[1:])


def _target(sample: Sample, places: np.ndarray, tokenizer: Tokenizer) -> str:
    positions = sample.position_ids[places]
    where = (
        f"at position {positions[0]}"
        if positions[0] == positions[-1]
        else f"at positions {positions[0]} to {positions[-1]}"
    )
    text = tokenizer.decode(sample.targets[places].tolist())
    return f"  target {where}: <sop> -> {_indent(text)}"


def _indent(text: str) -> str:
    return text.replace("\n", "\n    ")
