"""Running the same preparation again: shards of the same text that are whole stay, and nothing is done."""

import os
from collections.abc import Sequence
from pathlib import Path

from configs.errors import UserError
from data_pipeline.corpus import tokenizer_of
from data_pipeline.preparation.inputs import is_on_hub
from data_pipeline.preparation.make_part import Settings
from data_pipeline.preparation.plan import PreparationPlan
from data_pipeline.preparation.prepare import parts_folder_of
from data_pipeline.storage.shards import ShardInfo, read_info
from data_pipeline.storage.verify import problems
from data_pipeline.tokenizer import Tokenizer, load_tokenizer


def already_prepared(
    inputs: Sequence[str],
    prefix: Path,
    tokenizer: Tokenizer,
    valid_fraction: float,
    settings: Settings,
) -> list[ShardInfo]:
    """Find what the same preparation has made before, of the same files.

    Every byte is compared with its checksum: preparing damaged shards again must repair them.

    Args:
        inputs: as for `prepare`, like all others.
        prefix: path without ending.
        tokenizer: makes the ids.
        valid_fraction: share of documents to hold out.
        settings: which documents, of which fields.

    Returns:
        The training shard and, if something was held out, the held-out one; empty if there is something to be done.
        What the hub has of a data set today is not known, so that is always done again.

    Raises:
        DataError: an input is missing.
    """
    # Parts that are still there belong to a preparation that was not finished.
    if any(map(is_on_hub, inputs)) or os.path.lexists(parts_folder_of(prefix)):
        return []
    wanted = PreparationPlan.of(inputs, tokenizer, valid_fraction, settings).made_from
    prefixes = [str(prefix), *([f"{prefix}.valid"] if valid_fraction > 0 else [])]
    try:
        infos = [info for each in prefixes if (info := read_info(each)) is not None]
        is_same = [info.made_from for info in infos] == [wanted] * len(prefixes)
        if not is_same or any(problems(each) for each in prefixes):
            return []
        is_kept = load_tokenizer(tokenizer_of(str(prefix))).fingerprint == tokenizer.fingerprint
    except UserError:  # whatever is wrong with them, they are made anew
        return []
    return infos if is_kept else []
