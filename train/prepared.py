"""What a start does before its process groups open: it holds the run folder, chooses the precision, and opens the data."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from configs.errors import RankError, StorageError, UserError
from configs.quoting import quoted_lists
from configs.schema import Config
from configs.terminal import visible
from data_pipeline.corpus import Corpora, ensure_prepared
from data_pipeline.dataset import GLMDataset
from data_pipeline.opening import open_dataset
from data_pipeline.storage.local_copy import copied
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from train import start
from train.device import idle_devices_hint, make_deterministic, resolve_precision
from train.generations import Generation
from train.own_tokenizer import check_tokenizer, own_tokenizer
from train.rendezvous import Rendezvous
from train.run_folder import RunFolder
from train.terminal.records import say
from train.world import World, node_name, process_start


@dataclass(frozen=True)
class Prepared:
    """A start whose process groups can be opened."""

    config: Config
    """Checked; `precision` is resolved."""
    overrides: list[str]
    """Words of the command line."""
    stored: Config | None
    """The configuration that the run folder held; None: it is new, or has lost it."""
    world: World
    device: torch.device
    folder: RunFolder
    generation: Generation | None
    """Of this start; on rank 0 only."""
    rendezvous: Rendezvous
    corpora: Corpora
    tokenizer: Tokenizer
    training: GLMDataset
    validation: GLMDataset
    precision_reason: str
    hint: str | None
    """What to type to use idle devices."""


@contextlib.contextmanager
def prepared(
    config: Config,
    overrides: list[str],
    world: World,
    device: torch.device,
    folder: RunFolder,
    stored: Config | None,
) -> Iterator[Prepared]:
    """Prepare a start, and hold the run folder until the block ends.

    Args:
        config: checked; `precision` may still be auto, and is resolved here.
        overrides: words of the command line, for the record.
        world: this process; its environment is prepared.
        device: of this rank.
        folder: of the run.
        stored: the configuration that it holds.

    Raises:
        UserError: something that the user can correct.
        DistributedError: a peer failed.
    """
    kept_precision = start.settle_precision(config, stored)
    with one_report_per_node(world):
        start.check_device(config, device.type)
        precision, precision_reason = resolve_precision(config.precision, device)
        start.check_precision(config, precision)
    config.precision = precision
    if config.deterministic:
        make_deterministic(device)
    log = log_on_rank_0(world)
    rendezvous = Rendezvous.open(world, config.stability.meeting_seconds)
    with _held(folder, world) as generation, rendezvous.kept_for_others():
        own = own_tokenizer(folder, config)
        corpora = ensure_prepared(config.data, config.model.vocab_size, log, own=own)
        check_tokenizer(folder, config, corpora.tokenizer, log)
        if config.data.local_copy is not None:
            corpora = copied(corpora, config.data.local_copy, log)
        tokenizer = load_tokenizer(corpora.tokenizer)
        yield Prepared(
            config=config,
            overrides=overrides,
            stored=stored,
            world=world,
            device=device,
            folder=folder,
            generation=generation,
            rendezvous=rendezvous,
            corpora=corpora,
            tokenizer=tokenizer,
            training=open_dataset(config, corpora, tokenizer, is_validation=False),
            validation=open_dataset(config, corpora, tokenizer, is_validation=True),
            precision_reason=kept_precision or precision_reason,
            hint=idle_devices_hint(device, world),
        )


@contextlib.contextmanager
def one_report_per_node(world: World) -> Iterator[None]:
    """Report what a node lacks that rank 0's node may have: one rank of each node reports it, and names the node."""
    try:
        yield
    except UserError as error:
        if world.is_main or world.local_rank:
            raise
        raise RankError(f"[rank {world.rank} on {node_name()}] {error}") from error


@contextlib.contextmanager
def _held(folder: RunFolder, world: World) -> Iterator[Generation | None]:
    """Rank 0 holds the folder and records in status.json how it ended; other ranks report only what rank 0 did not find."""
    if not world.is_main:
        try:
            yield None
        except StorageError:
            raise
        except UserError as error:
            if folder.is_reported_by_rank_0(_failure(error), process_start()):
                raise
            raise RankError(f"[rank {world.rank} on {node_name()}] {error}") from error
        return
    folder.create()
    is_by_hand = world.launcher == "none"  # otherwise a script, or another rank, reads status.json
    with folder.held(world.launch, log_on_rank_0(world), leaves_nothing=is_by_hand) as generation:
        try:
            yield generation
        except KeyboardInterrupt:
            # Nothing has failed. From the first step on Ctrl-C is a request to stop, see train/stop.py.
            if folder.take_back_start():
                log_on_rank_0(world)("Interrupted before the first step: nothing was trained.")
            raise
        except BaseException as error:
            folder.fail(_failure(error))
            raise


def _failure(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def log_on_rank_0(world: World) -> Callable[[str], None]:
    """A function that logs a line on rank 0, and does nothing on other ranks."""

    def log(text: str) -> None:
        if world.is_main:
            say(quoted_lists(visible(text)), in_log_file=False)

    return log
