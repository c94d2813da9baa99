"""Which objectives a run counts by themselves: settled at its start, kept in its checkpoints, the same to its end.

Every line of a run's metrics has the same keys, and a key has one meaning in all of them. A run whose first version
counted [sMASK] windows as [MASK] therefore goes on to do so.
"""

from collections.abc import Sequence

from configs.errors import CheckpointError, ConfigError, RecordError
from configs.objectives import BUILT_IN, Objective, is_key, keys
from configs.records import ShortText, convert
from data_pipeline.dataset import GLMDataset
from glm.checkpoint.manifest import Manifest

ENTRY = "objectives"
"""Under this name a checkpoint keeps their keys, in the order of the metrics."""

_BEFORE_IT_WAS_KEPT = ("mask", "gmask", "mip")
_MOST = 1000


def settle(datasets: Sequence[GLMDataset], manifest: Manifest | None) -> tuple[str, ...]:
    """Let a run's data sets count its objectives as it does from its start on.

    Args:
        datasets: of the run; they have the same objectives.
        manifest: of the checkpoint that it continues from; None: it begins.

    Returns:
        Keys of the objectives that it counts by themselves.

    Raises:
        CheckpointError: the checkpoint's list of objectives is invalid.
        ConfigError: an objective has been added that the run's metrics have no place for.
    """
    counted = counted_keys(datasets[0].objectives, manifest)
    for dataset in datasets:
        dataset.count_as(counted)
    return counted


def counted_keys(objectives: Sequence[Objective], manifest: Manifest | None) -> tuple[str, ...]:
    """Keys of the objectives that a run counts by themselves; `objectives` are all that its rows may have now."""
    if manifest is None:
        return tuple(dict.fromkeys((*keys(BUILT_IN), *keys(objectives))))
    counted = _kept(manifest)
    strange = [
        each.key for each in objectives if each.key not in counted and each.part_of not in counted
    ]
    if strange:
        raise ConfigError(
            [
                f"objective.shares adds {', '.join(strange)}, and the metrics of this run have losses of "
                f"{', '.join(counted)} alone. Take it out, or start another run from the weights: run.name=NAME "
                "checkpoint.init_from=CHECKPOINT."
            ]
        )
    return counted


def _kept(manifest: Manifest) -> tuple[str, ...]:
    stored = manifest.extra.get(ENTRY)
    if stored is None:
        return _BEFORE_IT_WAS_KEPT
    try:
        found = convert(stored, list[ShortText], "The list of objectives in the checkpoint")
    except RecordError as error:
        raise CheckpointError(
            f"The checkpoint of step {manifest.step:,} was written by another program: {error}"
        ) from error
    if len(set(found)) < len(found) or not all(map(is_key, found)) or len(found) > _MOST:
        raise CheckpointError(
            f"The checkpoint of step {manifest.step:,} was written by another program: its list of objectives "
            "is invalid."
        )
    return tuple(found)
