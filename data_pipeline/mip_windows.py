"""From instruction records to windows: prompt, `[MASK]`, `<sop>`, target. GLM-130B, section 2.2 and appendix C.1.

`slots` gives each window of 512 one record, as the original run. `filled` gives it as many as fit on average, for
records much shorter than a window. Either way a row's records are a fixed number, so that any row is found at once.

A record that is too long for its room loses tokens of its prompt first, down to a quarter of the room (128 of 512),
then the end of its target. A target without its end is not followed by `<eop>`: its last input predicts the token that
comes next in the full target.
"""

from collections.abc import Sequence

from configs.schema import MipPacking, MipPositions, MipTruncate, ObjectiveConfig
from data_pipeline.blanks import Segment, mip_segment
from data_pipeline.instructions import Record
from data_pipeline.special_tokens import SpecialTokens

# [MASK] and <sop>; <eop> is only ever predicted.
_MARKERS = 2
_LEAST_PROMPT = 4


def records_per_window(window_length: int, mean_tokens: float, objective: ObjectiveConfig) -> int:
    """How many records share a window.

    Args:
        window_length: tokens of a window.
        mean_tokens: stored tokens of a record, `<eos>` included.
        objective: how records are packed.
    """
    if objective.mip_packing is MipPacking.slots:
        return 1
    return max(int(window_length / (mean_tokens - 1 + _MARKERS)), 1)


def mip_windows(
    records: Sequence[Record],
    window_length: int,
    objective: ObjectiveConfig,
    special: SpecialTokens,
) -> list[list[Segment]]:
    """Lay the records of a row into its windows.

    Args:
        records: an equal number for each of objective.windows_per_row windows.
        window_length: tokens of a window.
        objective: position style, and which end of a prompt is cut.
        special: ids of the special tokens.

    Returns:
        The segments of each window, which fit it.
    """
    per_window = len(records) // objective.windows_per_row
    windows: list[list[Segment]] = []
    for first in range(0, len(records), per_window):
        shared = records[first : first + per_window]
        needs = [len(record.prompt) + len(record.target) + _MARKERS for record in shared]
        rooms = share_room(needs, window_length)
        windows.append(
            [
                fit_record(record, room, objective, special)
                for record, room in zip(shared, rooms, strict=True)
            ]
        )
    return windows


def fit_record(
    record: Record, room: int, objective: ObjectiveConfig, special: SpecialTokens
) -> Segment:
    """Make the segment of one record, of at most `room` tokens."""
    prompt, target = record
    if len(prompt) + len(target) + _MARKERS > room:
        kept = min(max(room // _LEAST_PROMPT, room - len(target) - _MARKERS), len(prompt))
        is_head_kept = objective.mip_truncate is MipTruncate.end
        prompt = prompt[:kept] if is_head_kept else prompt[len(prompt) - kept :]
    is_consecutive = objective.mip_positions is MipPositions.consecutive
    return mip_segment(prompt, target, special, is_consecutive=is_consecutive).cut(room)


def share_room(needs: Sequence[int], room: int) -> list[int]:
    """Divide a window: each record gets what it needs, or, where that is too much, the longest ones equal parts."""
    rooms = [0] * len(needs)
    left = room
    by_need = sorted(range(len(needs)), key=lambda number: needs[number])
    for done, number in enumerate(by_need):
        rooms[number] = min(needs[number], left // (len(needs) - done))
        left -= rooms[number]
    return rooms
