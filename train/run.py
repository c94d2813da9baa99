"""One life of a run, from the folder as it is found to the folder as it is left."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from configs import derive
from configs.errors import EXIT_DONE, EXIT_STOPPED, RankError, StorageError, UserError
from configs.load import flatten, from_yaml, to_stored_yaml
from configs.schema import Config, ProgressBar, Wandb
from data_pipeline.corpus import Corpora, ensure_prepared, keep_tokenizer
from data_pipeline.file_changes import FileWatch
from data_pipeline.opening import open_dataset
from data_pipeline.storage.local_copy import copied
from data_pipeline.tokenizer import describe_tokenizer, load_tokenizer
from glm.checkpoint.manifest import Manifest
from train import choice, identity, start
from train.batches import BatchStream
from train.checkpoint import (
    Origin,
    Saver,
    become_a_run,
    check_copy_is_shared,
    initialise_from,
    no_fence,
    restore,
)
from train.console import ConsoleTracker
from train.counted import ENTRY, settle
from train.cpu_threads import waiting_as_the_machine_allows
from train.device import idle_devices_hint, make_deterministic, resolve_precision
from train.distributed import distributed_session
from train.ending import show_what_was_learnt
from train.engine import build_engine
from train.exposure import exposure_warning
from train.generations import Generation
from train.identity import Identity
from train.loop import Trainer
from train.metrics_file import JsonlTracker, checksum_in
from train.own_tokenizer import check_tokenizer, own_tokenizer
from train.pace import Pace, busy_hint
from train.plan import TrainingPlan
from train.progress import Progress
from train.rendezvous import Rendezvous
from train.run_folder import STARTING, RunFolder
from train.schedule_changes import schedule_changes
from train.session import Session
from train.startup import startup_report
from train.stop import StopSignal
from train.time_limit import TimeLimit, deadline_of
from train.topology import Topology
from train.tracker_wandb import WandbTracker, run_id
from train.trackers import Tracker, Trackers
from train.watchdog import Limits, Watchdog
from train.world import World, job_end, node_name, process_start


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
    folder = RunFolder(Path(derive.run_dir(config)))
    found = start.look_at(folder, config)
    if found.finished_message is not None:
        if world.is_main:
            sys.stdout.write(found.finished_message + "\n")
        return EXIT_DONE
    kept_precision = start.settle_precision(config, found.stored)
    with told_once_a_node(world):
        start.check_device(config, device.type)
    config.precision, precision_reason = resolve_precision(config.precision, device)
    if config.deterministic:
        make_deterministic(device)
    rendezvous = Rendezvous.open(world, config.stability.meeting_seconds)
    with _held(folder, world) as generation, rendezvous.kept_for_others():
        own = own_tokenizer(folder, config)
        corpora = ensure_prepared(config.data, config.model.vocab_size, _speaker(world), own=own)
        check_tokenizer(folder, config, corpora.tokenizer, _speaker(world))
        if config.data.local_copy is not None:
            corpora = copied(corpora, config.data.local_copy, _speaker(world))
        life = _Life(config, overrides, world, folder, device, corpora, generation)
        life.rendezvous = rendezvous
        life.hint = idle_devices_hint(device, world)
        life.precision_reason = kept_precision or precision_reason
        with waiting_as_the_machine_allows(device):
            return life.live(found.stored)


@contextlib.contextmanager
def told_once_a_node(world: World) -> Iterator[None]:
    """What a node lacks, rank 0's may have: then rank 0 says nothing of it."""
    try:
        yield
    except UserError as error:
        if world.is_main or world.local_rank:
            raise
        raise RankError(f"[rank {world.rank} on {node_name()}] {error}") from error


@contextlib.contextmanager
def _held(folder: RunFolder, world: World) -> Iterator[Generation | None]:
    """Rank 0 holds the folder, and says in status.json how it left it; what another rank meets alone, that one tells."""
    if not world.is_main:
        try:
            yield None
        except StorageError:
            raise
        except UserError as error:
            if folder.hears_from_rank_0(_failure(error), process_start()):
                raise
            raise RankError(f"[rank {world.rank} on {node_name()}] {error}") from error
        return
    folder.create()
    is_by_hand = world.launcher == "none"  # otherwise a script, or another rank, reads status.json
    with folder.held(world.launch, _speaker(world), leaves_nothing=is_by_hand) as generation:
        try:
            yield generation
        except KeyboardInterrupt:
            # Nothing has failed. From the first step on Ctrl-C is a request to stop, see train/stop.py.
            if folder.take_back_start():
                _speaker(world)("Interrupted before the first step: nothing was trained.")
            raise
        except BaseException as error:
            folder.fail(_failure(error))
            raise


def _failure(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


class _Life:
    """The pieces of one life, built in order."""

    hint: str | None = None
    rendezvous: Rendezvous | None = None
    precision_reason: str = ""

    def __init__(
        self,
        config: Config,
        overrides: list[str],
        world: World,
        folder: RunFolder,
        device: torch.device,
        corpora: Corpora,
        generation: Generation | None,
    ) -> None:
        self._generation = generation
        self._config = config
        self._overrides = overrides
        self._world = world
        self._folder = folder
        self._device = device
        self._corpora = corpora
        tokenizer = load_tokenizer(corpora.tokenizer)
        self._tokenizer = tokenizer
        self._stop = StopSignal(folder.stop_file)
        self._training = open_dataset(config, corpora, tokenizer, is_validation=False)
        self._validation = open_dataset(config, corpora, tokenizer, is_validation=True)

    def live(self, stored: Config | None) -> int:
        """Open the session, train, close; then show what was learnt."""
        world, config = self._world, self._config
        topology = Topology.from_config(config.parallel, world.rank, world.size)
        with distributed_session(world, topology, self._device, self.rendezvous) as session:
            progress, was_stopped, trackers = self._train(session, stored)
            if not was_stopped:
                self._stop.restore()  # nothing is left to be saved
            if world.is_main:
                (self._record_stop if was_stopped else self._finish)(progress, trackers)
            # srun ends the ranks that are left soon after the first has gone: rank 0 must have said its last word.
            session.sum([0.0])
        trackers.close()
        if not was_stopped:
            return EXIT_DONE
        # torchrun would start the ranks again on any code but 0; status.json tells the truth.
        return EXIT_DONE if world.launcher == "torchrun" else EXIT_STOPPED

    def _train(self, session: Session, stored: Config | None) -> tuple[Progress, bool, Trackers]:
        config, folder, world = self._config, self._folder, self._world
        say = Trackers([self._console()] if world.is_main else [])
        choice.agree_on_numbers(config, self._device, session)
        check_copy_is_shared(config.checkpoint.copy_to, session)
        run = self._settle_identity(say) if world.is_main else None
        choice.claim_copy(folder, config, run, session)
        checkpoint = choice.choose_checkpoint(folder, config, stored, session, say, run)
        if checkpoint is None:
            run = choice.begin_at_0(folder, run)
            choice.claim_copy(folder, config, run, session)
        seen = 0 if checkpoint is None else checkpoint[1].progress.get("samples_seen", 0)
        if seen and world.is_main:
            # By this a launcher chooses the nodes of the next life, also if this one ends here.
            folder.write_status("running", seen, STARTING)
        start.check_batches(seen, config, world.size)
        if stored is None and checkpoint is not None:  # config.yaml was lost
            stored = from_yaml(checkpoint[1].config)
        changes = start.describe_changes(stored, config)
        if stored is not None:
            changes += schedule_changes(stored, config, seen)
        forgotten = start.forgotten_words(folder, self._overrides, changes)
        if checkpoint is not None:
            changes += start.check_data(checkpoint[1], self._training, config)
        counted = settle([self._training, self._validation], checkpoint and checkpoint[1])
        engine = build_engine(config, session)
        progress = Progress()
        if checkpoint is not None:
            progress = restore(engine, *checkpoint)
        elif config.checkpoint.init_from is not None:
            given = Path(config.checkpoint.init_from)
            weights = initialise_from(engine, given, config, session, say.say)
            say.say(f"Starting from the weights of {weights}")
        if self._generation is not None:
            self._generation.fence()
            self._generation.continue_after(progress.step)
        # Before the start is recorded: what is recorded goes on to the first step, which is saved.
        stop = self._stop.install()
        trackers = Trackers([])
        wandb_id = metrics = None
        if run is not None:
            wandb_id = self._record(progress, changes, checkpoint, run, say)
            metrics = self._metrics(progress, checkpoint, run)
            trackers = self._trackers(metrics, wandb_id, run, say)
        trackers.say(
            startup_report(
                config, session.topology, self._device, self._training, self.precision_reason
            )
        )
        busy = busy_hint() if self._device.type == "cpu" else None
        described = describe_tokenizer(self._tokenizer)
        warning = exposure_warning(world)
        for line in (described, self.hint, busy, warning, *changes, *forgotten):
            if line:
                trackers.say(line)
        if checkpoint is not None:
            trackers.say(f"Continuing after {progress.samples_seen:,} samples from {checkpoint[0]}")
        plan = TrainingPlan.from_config(config)
        trainer = Trainer(
            config=config,
            session=session,
            folder=folder,
            plan=plan,
            engine=engine,
            batches=BatchStream(
                self._training,
                plan,
                session.topology,
                config.optim.micro_batch_size,
                config.data.skip_samples,
                progress.samples_seen,
            ),
            validation=self._validation,
            counted=counted,
            files=FileWatch([self._training, self._validation]),
            trackers=trackers,
            saver=Saver(
                checkpoints=folder.checkpoints,
                config=config,
                data_state={
                    "dataset": self._training.describe(),
                    "skip_samples": config.data.skip_samples,
                },
                session=session,
                engine=engine,
                extra={"wandb_run_id": wandb_id, ENTRY: list(counted)},
                origin=Origin.of(checkpoint[1] if checkpoint else None),
                generation=0 if self._generation is None else self._generation.number,
                fence=no_fence if self._generation is None else self._generation.fence,
                sync=trackers.sync,
                run_id=None if run is None else run.run_id,
                vouch=dict if metrics is None else metrics.vouch,
            ),
            stop=stop,
            generation=self._generation,
            watchdog=self._watchdog(),
            limits=Limits(config.stability.watchdog_seconds),
            time_limit=TimeLimit(self._deadline(), config.run.time_margin_seconds),
            pace=Pace(),
        )
        try:
            progress, was_stopped = trainer.run(progress)
        finally:
            trainer.watchdog.close()
            trainer.saver.leave()
            trainer.batches.close()
        if was_stopped and world.is_main:
            folder.event("stop", reason=trainer.stop.reason or "run.stop_after_samples")
        engine.close()
        return progress, was_stopped, trackers

    def _record(
        self,
        progress: Progress,
        changes: list[str],
        checkpoint: tuple[Path, Manifest] | None,
        run: Identity,
        say: Trackers,
    ) -> str | None:
        """Write what is run, before the first step."""
        config, folder = self._config, self._folder
        folder.write_source(self._overrides, to_stored_yaml(config), torch.get_num_threads())
        keep_tokenizer(self._corpora.tokenizer, folder.tokenizer)
        kind = "resume" if progress.step else "start"
        where = {"samples_seen": progress.samples_seen, "world_size": self._world.size}
        folder.event(kind, **where, run_id=run.run_id)
        if changes and progress.step:
            folder.event("config_change", changes=changes)
        folder.write_status("running", progress.samples_seen, "training")
        if config.log.wandb is Wandb.off:
            return None
        # Another run's checkpoint, taken on purpose, must not make this one report to that run.
        stored = None
        if checkpoint is not None and checkpoint[1].run_id in (None, run.run_id):
            stored = checkpoint[1].extra.get("wandb_run_id")
        return run_id(folder.path, stored, say.say)

    def _settle_identity(self, say: Trackers) -> Identity:
        become_a_run(self._folder.path)
        return identity.settle(self._folder.path, say.say)

    def _deadline(self) -> float | None:
        """When this process is ended; rank 0 decides for all."""
        if not self._world.is_main:
            return None
        usual = derive.time_limit_seconds(self._config.cluster.time)
        return deadline_of(self._config, process_start(), job_end(usual))

    def _watchdog(self) -> Watchdog:
        folder, world = self._folder, self._world

        def report(reason: str) -> None:
            if world.is_main:
                folder.fail(reason, "hang")

        return Watchdog(folder.stacks, world.rank, world.size == 1, report)

    def _console(self) -> ConsoleTracker:
        config = self._config
        shows_bar = config.log.progress_bar is ProgressBar.on or (
            config.log.progress_bar is ProgressBar.auto and sys.stdout.isatty()
        )
        return ConsoleTracker(
            self._folder.log, config.optim.total_samples, config.log.every_steps, shows_bar
        )

    def _metrics(
        self, progress: Progress, checkpoint: tuple[Path, Manifest] | None, run: Identity
    ) -> JsonlTracker:
        """Go on with metrics.jsonl; only a checkpoint of this run can vouch for its lines."""
        is_own = checkpoint is not None and checkpoint[1].run_id in (None, run.run_id)
        known = checksum_in(checkpoint[1].extra) if checkpoint is not None and is_own else None
        return JsonlTracker(self._folder.metrics, progress.step, known)

    def _trackers(
        self, metrics: JsonlTracker, wandb_id: str | None, run: Identity, say: Trackers
    ) -> Trackers:
        config, folder = self._config, self._folder
        trackers: list[Tracker] = [say, metrics]
        if wandb_id is not None:
            name = derive.run_name(config)
            keys = {**flatten(config), "run_id": run.run_id}
            trackers.append(WandbTracker(folder.path, name, wandb_id, config.log, keys, say.say))
        return Trackers(trackers)

    def _record_stop(self, progress: Progress, trackers: Trackers) -> None:
        folder = self._folder
        folder.write_status("stopped", progress.samples_seen, "stopped on request")
        limit, seen = self._config.run.stop_after_samples, progress.samples_seen
        what_to_type = "the same command continues"
        if limit is not None and seen >= limit:
            what_to_type = f"run.stop_after_samples ({limit}) is reached: the same command without it, or with more, continues"
        trackers.say(f"Stopped after {seen:,} samples; {what_to_type} from {folder.path}")

    def _finish(self, progress: Progress, trackers: Trackers) -> None:
        folder = self._folder
        folder.write_status("done", progress.samples_seen, "all samples seen")
        folder.event("done", samples_seen=progress.samples_seen)
        show_what_was_learnt(self._config, folder, self._validation, self._corpora, trackers.say)


def _speaker(world: World) -> Callable[[str], None]:
    def speak(text: str) -> None:
        if world.is_main:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    return speak
