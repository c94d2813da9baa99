"""Checks of the weights that change along the stream of samples."""

from collections.abc import Callable

from configs.schema import Config


def _stages(config: Config) -> list[str]:
    data = config.data
    stages = data.stages
    if stages is None:
        return []
    example = f"Try data.stages=[[0,{_ones(len(data.paths))}]]."
    if not stages or any(len(row) < 2 for row in stages):
        return [
            f"data.stages ({stages}) must be rows [from_sample, weight, ...], a weight for each of data.paths. {example}"
        ]
    found: list[str] = []
    starts = [row[0] for row in stages]
    if any(start != int(start) for start in starts):
        found.append(f"data.stages ({stages}) must begin at whole samples. {example}")
    elif starts[0] != 0 or starts != sorted(set(starts)):
        found.append(
            f"data.stages ({stages}) must begin at sample 0 and go forward. "
            f"They begin at {[int(start) for start in starts]}. {example}"
        )
    for row in stages:
        if len(row) - 1 > len(data.paths) or min(row[1:]) < 0 or sum(row[1:]) <= 0:
            found.append(
                f"data.stages ({row}) must give at most a weight for each of data.paths ({len(data.paths)}), each at "
                f"least 0, and not all 0. {example}"
            )
    if data.weights is not None:
        found.append(
            f"data.weights ({data.weights}) and data.stages ({stages}) both say how to mix. Try data.weights=null."
        )
    return found


def _ramp(config: Config) -> list[str]:
    ramp = config.data.stage_ramp_samples
    if ramp > 0 and config.data.stages is None and config.data.instruction_share is None:
        return [
            f"data.stage_ramp_samples ({ramp}) needs data.stages (null) or data.instruction_share (null) to move "
            "between. Try data.stage_ramp_samples=0."
        ]
    return []


def _instructions(config: Config) -> list[str]:
    data = config.data
    points = data.instruction_share
    if points is None:
        return []
    example = "Try data.instruction_share=[[0,0.05]]."
    if not data.instructions:
        return [
            f"data.instruction_share ({points}) needs data.instructions ([]) to draw from. Name them: "
            "data.instructions=[FILE.jsonl]"
        ]
    if not points or any(len(point) != 2 for point in points):
        return [f"data.instruction_share ({points}) must be points [from_sample, share]. {example}"]
    found: list[str] = []
    starts = [point[0] for point in points]
    is_whole = all(start == int(start) for start in starts)
    if not is_whole or starts[0] != 0 or starts != sorted(set(starts)):
        found.append(
            f"data.instruction_share ({points}) must begin at sample 0 and go forward in whole samples. {example}"
        )
    if any(not 0 <= share <= 1 for _, share in points):
        found.append(
            f"data.instruction_share ({points}) must have shares between 0 and 1. {example}"
        )
    return found


def _ones(number: int) -> str:
    return ",".join(["1"] * number)


CHECKS: tuple[Callable[[Config], list[str]], ...] = (_stages, _ramp, _instructions)
