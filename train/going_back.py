"""Going back to an earlier checkpoint because metrics.jsonl lacks lines before the later ones."""

from configs import derive
from configs.errors import RunFolderError
from configs.run_checkpoints import step_folder
from configs.schema import Config
from glm.checkpoint.manifest import Manifest
from train.metrics_file import StoredMetrics, checksum_in
from train.run_folder import RunFolder
from train.trackers import Trackers


def go_back(
    folder: RunFolder,
    config: Config,
    metrics: StoredMetrics,
    skipped: list[Manifest],
    chosen: Manifest,
    trackers: Trackers,
) -> None:
    """Accept an earlier checkpoint, because metrics.jsonl lacks lines before the later ones, and keep a damaged file.

    Args:
        folder: of the run.
        config: of the run.
        metrics: metrics.jsonl as this start has found it.
        skipped: checkpoints whose lines it lacks.
        chosen: the newest checkpoint whose lines it has.
        trackers: get a line about the damaged file.

    Raises:
        RunFolderError: so much would be trained again that the user must decide.
    """
    newest = max(skipped, key=lambda manifest: manifest.step)
    if newest.step <= chosen.step:
        return
    lost = _samples_seen(newest) - _samples_seen(chosen)
    # No further back than retention keeps checkpoints.
    if lost > max(config.checkpoint.keep_last, 1) * derive.save_every_samples(config):
        fault = metrics.fault_before(newest.step, checksum_in(newest.extra))
        raise RunFolderError(
            f"{fault}. The newest checkpoint before it is that of step {chosen.step:,}: {lost:,} samples would be trained "
            f"again. Restore the file; or go back with checkpoint.resume="
            f"{step_folder(folder.checkpoints, chosen.step)}; or start another run from the newest weights with "
            f"run.name=NAME checkpoint.init_from={step_folder(folder.checkpoints, newest.step)}."
        )
    if metrics.is_short_of(newest.step):
        return
    aside = metrics.keep_aside()
    message = (
        f"{folder.metrics} is damaged: it is kept as {aside.name}, and its lines up to step {chosen.step:,} are used. "
        f"{lost:,} samples are trained again."
    )
    trackers.log(message)
    folder.event("metrics_repaired", message=message)


def _samples_seen(manifest: Manifest) -> int:
    seen = manifest.progress.get("samples_seen")
    return seen if isinstance(seen, int) else 0
