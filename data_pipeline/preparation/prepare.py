"""Text to token shards:  python -m data_pipeline prepare INPUT... --output PREFIX --tokenizer SPEC

The corpora are cut into parts (data_pipeline/preparation/inputs.py). Each part becomes a file in PREFIX.parts, which an interrupted
run finds again; when all are there they are joined to the shards, in the order of the input. So the shards are the
same bytes for any number of workers, any interruption and any division over a job array.
"""

import contextlib
import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from configs.errors import DataError
from data_pipeline.cache import lock_file
from data_pipeline.preparation.inputs import parts_of, size_bytes
from data_pipeline.preparation.job_array import Share
from data_pipeline.preparation.join import Prepared, join
from data_pipeline.preparation.make_part import Settings, Task
from data_pipeline.preparation.plan import PartsFolder, Plan
from data_pipeline.preparation.progress import Meter, Silent
from data_pipeline.preparation.workers import run_tasks
from data_pipeline.tokenizer import Tokenizer, load_tokenizer

_WHOLE = Share()


def prepare(
    inputs: Sequence[str],
    prefix: Path,
    tokenizer: Tokenizer,
    valid_fraction: float,
    settings: Settings | None = None,
    *,
    workers: int = 1,
    meter: Meter | None = None,
    parts_folder: Path | None = None,
) -> Prepared:
    """Write PREFIX (training) and, if something is held out, PREFIX.valid.

    Both appear when all is complete, and replace what was there before. A process that is killed leaves the parts that
    it finished, with which the next one goes on.

    Args:
        inputs: corpora, as in `data.paths`.
        prefix: path without ending; its folder exists.
        tokenizer: makes the ids; its file is kept in PREFIX.tokenizer, so that shards can be moved with it.
        valid_fraction: share of documents to hold out.
        settings: which documents, of which fields.
        workers: processes to use.
        meter: is told how far it is.
        parts_folder: where finished parts are kept until the shards are there; default PREFIX.parts.

    Raises:
        DataError: a corpus cannot be used, there is no text, too little to hold some out, or no space.
    """
    plan = Plan.of(inputs, tokenizer, valid_fraction, settings or Settings())
    folder = parts_folder or _parts_folder(prefix)
    parts = PartsFolder(folder, plan)
    with _working_in(parts, folder, prefix, _WHOLE):
        _make_parts(plan, parts, tokenizer, _WHOLE, workers, meter or Silent())
        return _join(plan, parts, folder, prefix, tokenizer)


def prepare_share(
    inputs: Sequence[str],
    prefix: Path,
    tokenizer: Tokenizer,
    valid_fraction: float,
    settings: Settings,
    share: Share,
    *,
    workers: int = 1,
    meter: Meter | None = None,
) -> None:
    """Make one task's share of the parts; `merge` joins them when every task has made its own.

    Raises:
        DataError: as `prepare`.
    """
    plan = Plan.of(inputs, tokenizer, valid_fraction, settings, share.count)
    folder = _parts_folder(prefix)
    parts = PartsFolder(folder, plan)
    with _working_in(parts, folder, prefix, share):
        parts.write_plan()
        _make_parts(plan, parts, tokenizer, share, workers, meter or Silent())


def merge(prefix: Path) -> Prepared:
    """Join the parts that the tasks of a job array have made.

    Raises:
        DataError: there are none, some are missing, or there is no space.
    """
    folder = _parts_folder(prefix)
    plan = Plan.read(folder / "plan.json", prefix)
    tokenizer = load_tokenizer(plan.tokenizer)
    if tokenizer.fingerprint != plan.tokenizer_fingerprint:
        raise DataError(
            f"{plan.tokenizer} has changed since the parts of {prefix} were made. Restore it, or prepare them again."
        )
    parts = PartsFolder(folder, plan)
    with _working_in(parts, folder, prefix, _WHOLE):
        return _join(plan, parts, folder, prefix, tokenizer)


def _make_parts(
    plan: Plan,
    parts: PartsFolder,
    tokenizer: Tokenizer,
    share: Share,
    workers: int,
    meter: Meter,
) -> None:
    """Make the parts of a share that are not there yet."""

    def missing() -> Iterator[Task]:
        for number, path in enumerate(plan.inputs):
            if parts.are_finished(number, share.index):
                meter.skip((size_bytes(path) or 0) // share.count)
                continue
            count = 0
            for part in parts_of(path, plan.settings.text_keys):
                count += 1
                if plan.share_of(number, part.number) != share.index:
                    continue
                if parts.is_finished(number, part.number):
                    meter.skip(part.read_bytes)
                else:
                    fingerprint = plan.fingerprint(number, part.number)
                    yield Task(part, parts.path(number, part.number), fingerprint)
            parts.write_num_parts(number, count)

    sizes = [size_bytes(path) for path in plan.inputs]
    total = None if None in sizes else sum(size or 0 for size in sizes) // share.count
    meter.start(total)
    try:
        run_tasks(
            missing(),
            tokenizer,
            plan.settings,
            workers,
            lambda task: meter.advance(task.part.read_bytes),
        )
    finally:
        meter.stop()


def _join(
    plan: Plan, parts: PartsFolder, folder: Path, prefix: Path, tokenizer: Tokenizer
) -> Prepared:
    finished = parts.all_finished(tokenizer.vocab_size)
    prepared = join(
        finished, prefix, tokenizer, plan.inputs, plan.valid_fraction, plan.settings.deduplicate
    )
    shutil.rmtree(folder)
    return prepared


def _parts_folder(prefix: Path) -> Path:
    return Path(f"{prefix}.parts")


@contextlib.contextmanager
def _working_in(
    parts: PartsFolder, folder: Path, prefix: Path, share: Share
) -> Generator[None, None, None]:
    """Hold the folder of parts, and say what could not be written.

    Several tasks of a job array may hold it, each its own share. What was made stays when the work fails.
    """
    is_whole = share == _WHOLE
    try:
        folder.mkdir(exist_ok=True)
        with contextlib.ExitStack() as locks:
            _lock(locks, folder / "lock", prefix, shared=not is_whole)
            if is_whole:  # nobody else writes here: what a killed process left is of no use
                for stale in folder.glob("*.making"):
                    stale.unlink()
            else:
                _lock(locks, folder / f"{share.index}-of-{share.count}.lock", prefix, shared=False)
            try:
                yield
            except BaseException:
                if is_whole and not parts.is_worth_keeping():
                    shutil.rmtree(folder, ignore_errors=True)
                raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{prefix} cannot be written ({reason}). Make room, or choose another place (--output, data.cache_dir)."
        ) from error


def _lock(locks: contextlib.ExitStack, path: Path, prefix: Path, *, shared: bool) -> None:
    file = locks.enter_context(path.open("ab"))
    is_ours = lock_file(file, wait=False, shared=shared)
    # The process before us may have removed the folder since we opened the file.
    if not is_ours or not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
        raise DataError(
            f"Another process is writing {prefix} at this moment. Wait for it, or choose another --output PREFIX."
        )
