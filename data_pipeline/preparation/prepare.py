"""Text to token shards:  python -m data_pipeline prepare INPUT... --output PREFIX --tokenizer SPEC

The corpora are cut into parts (data_pipeline/preparation/inputs.py). Each part becomes a file in PREFIX.parts, which an interrupted
run finds again; when all are there they are joined to the shards, in the order of the input. So the shards are the
same bytes for any number of workers, any interruption and any division over a job array.
"""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from configs.errors import DataError
from data_pipeline.preparation.inputs import parts_of, size_bytes
from data_pipeline.preparation.job_array import Share
from data_pipeline.preparation.join import Prepared, join
from data_pipeline.preparation.make_part import Settings, Task
from data_pipeline.preparation.outputs import Outputs
from data_pipeline.preparation.parts_folder import WHOLE, PartsFolder
from data_pipeline.preparation.plan import PreparationPlan, identity_hash
from data_pipeline.preparation.progress import Meter, Silent
from data_pipeline.preparation.workers import run_tasks
from data_pipeline.tokenizer import Tokenizer, load_tokenizer


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

    Both appear when all is complete, and replace what an earlier preparation has left there. A process that is killed
    leaves the parts that it finished, with which the next one goes on.

    Args:
        inputs: corpora, as in `data.paths`.
        prefix: path without ending; its folder exists.
        tokenizer: makes the ids; its file is kept in PREFIX.tokenizer, so that shards can be moved with it.
        valid_fraction: share of documents to hold out.
        settings: which documents, of which fields.
        workers: processes to use.
        meter: shows the progress.
        parts_folder: where finished parts are kept until the shards are there; default PREFIX.parts.

    Raises:
        DataError: a corpus cannot be used, there is no text, too little to hold some out, or no space; or something
            that no preparation has made would be lost.
    """
    plan = PreparationPlan.of(inputs, tokenizer, valid_fraction, settings or Settings())
    folder = parts_folder or parts_folder_of(prefix)
    with _working_in(folder, plan, prefix, WHOLE) as (parts, outputs):
        _make_parts(plan, parts, tokenizer, WHOLE, workers, meter or Silent())
        return _join(plan, parts, outputs, tokenizer)


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
    plan = PreparationPlan.of(inputs, tokenizer, valid_fraction, settings, share.count)
    with _working_in(parts_folder_of(prefix), plan, prefix, share) as (parts, _):
        parts.write_plan()
        _make_parts(plan, parts, tokenizer, share, workers, meter or Silent())


def merge(prefix: Path) -> Prepared:
    """Join the parts that the tasks of a job array have made.

    Raises:
        DataError: there are none, some are missing, or there is no space.
    """
    folder = parts_folder_of(prefix)
    plan = PreparationPlan.read(folder / "plan.json", prefix)
    tokenizer = load_tokenizer(plan.tokenizer)
    if tokenizer.fingerprint != plan.tokenizer_fingerprint:
        raise DataError(
            f"{plan.tokenizer} has changed since the parts of {prefix} were made. Restore it, or prepare them again."
        )
    with _working_in(folder, plan, prefix, WHOLE) as (parts, outputs):
        return _join(plan, parts, outputs, tokenizer)


def _make_parts(
    plan: PreparationPlan,
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
                    if parts.is_damaged(number, part.number):
                        meter.note(f"Part {part.number} of {path} is damaged: it is made again")
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
    for path, known in zip(plan.inputs, plan.identities, strict=True):
        if identity_hash(path) != known:
            raise DataError(
                f"{path} has changed while it was read. Prepare it again when it is complete, or copy it first."
            )


def _join(
    plan: PreparationPlan, parts: PartsFolder, outputs: Outputs, tokenizer: Tokenizer
) -> Prepared:
    finished = parts.all_finished(tokenizer.vocab_size)
    prepared = join(
        finished,
        parts,
        outputs,
        tokenizer,
        plan.inputs,
        plan.valid_fraction,
        plan.settings.deduplicate,
        plan.made_from,
    )
    parts.remove()
    return prepared


def parts_folder_of(prefix: Path) -> Path:
    """Where parts are kept until the shards are there."""
    return Path(f"{prefix}.parts")


@contextlib.contextmanager
def _working_in(
    folder: Path, plan: PreparationPlan, prefix: Path, share: Share
) -> Generator[tuple[PartsFolder, Outputs], None, None]:
    """Hold the folder of parts, and report what could not be written."""
    parts, outputs = PartsFolder(folder, plan), Outputs(prefix, folder)
    try:
        outputs.check(plan.inputs, plan.tokenizer)
        with parts.held(share, prefix):
            yield parts, outputs
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{prefix} cannot be written ({reason}). Make room, or choose another place (--output, data.cache_dir)."
        ) from error
