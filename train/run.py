"""One attempt at a run: prepare it, open its process groups, train it, close them; then show what was learnt."""

from pathlib import Path

import torch

from configs import derive
from configs.errors import EXIT_DONE, EXIT_STOPPED
from configs.schema import Config
from train import start
from train.cpu_threads import waiting_as_the_machine_allows
from train.distributed import distributed_session
from train.host_memory import keep_freed_memory
from train.prepared import Prepared, prepared
from train.progress import Progress
from train.run_folder import RunFolder
from train.showcase.ending import show_what_was_learnt
from train.terminal.records import say
from train.topology import Topology
from train.training import Training
from train.world import World


def run(config: Config, overrides: list[str], world: World, device: torch.device) -> int:
    """Train until the end or a stop; returns the exit code.

    Args:
        config: checked; `precision` may still be auto.
        overrides: words of the command line, for the record.
        world: this process; its environment is prepared.
        device: of this rank.

    Raises:
        UserError: something that the user can correct.
        DistributedError: a peer failed.
    """
    if device.type == "cpu":
        keep_freed_memory()
    folder = RunFolder(Path(derive.run_dir(config)))
    found = start.inspect_folder(folder, config)
    if found.finished_message is not None:
        if world.is_main:
            say(found.finished_message, in_log_file=False)
        return EXIT_DONE
    with (
        prepared(config, overrides, world, device, folder, found.stored) as ready,
        waiting_as_the_machine_allows(device),
    ):
        return _train(ready)


def _train(prepared: Prepared) -> int:
    config, world = prepared.config, prepared.world
    topology = Topology.from_config(config.parallel, world.rank, world.size)
    training: Training | None = None
    try:
        with distributed_session(world, topology, prepared.device, prepared.rendezvous) as session:
            training = Training(prepared, session)
            try:
                training.resume()
                progress, was_stopped = training.run()
            finally:
                training.close()
            _record_end(prepared, training, progress, was_stopped)
            training.release()
            # A launcher may end all ranks once the first has exited, so they wait here until the end is recorded.
            session.sum([0.0])
        if world.is_main and not was_stopped:
            # The groups are closed: no other rank waits, and this process can hold the whole model by itself.
            show_what_was_learnt(
                config,
                prepared.folder,
                prepared.validation,
                prepared.corpora,
                training.trackers.log,
            )
        training.trackers.close()
    except BaseException:
        if training is not None:
            training.leave_remote()
        raise
    if not was_stopped:
        return EXIT_DONE
    # torchrun would restart the ranks on any code but 0; status.json says how the run really ended.
    return EXIT_DONE if world.launcher == "torchrun" else EXIT_STOPPED


def _record_end(
    prepared: Prepared, training: Training, progress: Progress, was_stopped: bool
) -> None:
    """Record in the run folder how the attempt ended."""
    if not was_stopped:
        training.stop.restore()  # nothing is left to save
    if not prepared.world.is_main:
        return
    folder, seen = prepared.folder, progress.samples_seen
    if not was_stopped:
        folder.write_status("done", seen, "all samples seen")
        folder.event("done", samples_seen=seen)
        return
    folder.event("stop", reason=training.stop.reason or "run.stop_after_samples")
    folder.write_status("stopped", seen, "stopped on request")
    limit = prepared.config.run.stop_after_samples
    what_to_type = "the same command continues"
    if limit is not None and seen >= limit:
        what_to_type = f"run.stop_after_samples ({limit}) is reached: the same command without it, or with a larger one, continues"
    training.trackers.log(f"Stopped after {seen:,} samples; {what_to_type} from {folder.path}")
