"""One training sample as a human reads it.

python -m data_pipeline show PREFIX --index 17 --objective mask
"""

import numpy as np

from data_pipeline.objective import Objective
from data_pipeline.packing import Sample
from data_pipeline.tokenizer import Tokenizer

_NAMES = {Objective.MASK: "[MASK]", Objective.GMASK: "[gMASK]", Objective.MIP: "MIP"}


def render(sample: Sample, tokenizer: Tokenizer) -> str:
    """Describe a sample: per segment the context with its blanks, then every target in the order of prediction."""
    num_targets, padding = int(sample.loss_mask.sum()), int((sample.segment_ids == 0).sum())
    lines = [
        f"sample {sample.index}: {_NAMES[sample.objective]}, {len(sample.tokens)} tokens, {num_targets} targets, "
        f"{padding} padding, {sample.redraws} plans redrawn"
    ]
    for segment in range(1, int(sample.segment_ids.max(initial=0)) + 1):
        places = np.flatnonzero(sample.segment_ids == segment)
        context, hidden = np.split(places, [int(sample.is_context[places].sum())])
        lines += [
            "",
            f"segment {segment}: tokens {places[0]} to {places[-1]}, {len(context)} context, {len(hidden)} target",
            "  context: " + _indent(tokenizer.decode(sample.tokens[context].tolist())),
        ]
        # Targets begin where the block position is 1; their blanks are numbered in the order of the text.
        first_of = np.flatnonzero(sample.block_position_ids[hidden] == 1)
        targets = np.split(hidden, first_of[1:]) if len(hidden) else []
        for target in targets:
            positions = sample.position_ids[target]
            lines.append(
                f"  {_where(positions, context, sample, tokenizer)}: <sop> -> "
                + _indent(tokenizer.decode(sample.targets[target].tolist()))
            )
    return "\n".join(lines)


def _where(positions: np.ndarray, context: np.ndarray, sample: Sample, tokenizer: Tokenizer) -> str:
    """Name the blank that a target fills, and its positions."""
    if sample.objective is not Objective.MASK:
        return f"after the context (positions {positions[0]} to {positions[-1]})"
    blanks = np.flatnonzero(sample.tokens[context] == tokenizer.special.mask)
    number = int((blanks <= positions[0]).sum())
    return f"blank {number} of {len(blanks)} (position {positions[0]})"


def _indent(text: str) -> str:
    return text.replace("\n", "\n    ")
