"""The folder PREFIX.parts on disk: whether it is ours, which processes hold it, and which parts are finished.

It is ours if its lock file says so. Nothing but files of the names below is ever removed from it.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from configs.errors import DataError, RecordError
from configs.records import Count, ShortText, read_file, read_record
from data_pipeline.cache import lock_file
from data_pipeline.preparation.job_array import Share
from data_pipeline.preparation.parts import FinishedPart, entry_type, read_part_record
from data_pipeline.preparation.plan import PreparationPlan
from data_pipeline.storage.shards import token_type

WHOLE = Share()

_LOCK = "lock"
_MARK = b"Made by `python -m data_pipeline prepare`, which removes it when the shards are there.\n"
_LARGEST_MARK = 2**16
_STAGED_TOKENIZER = "tokenizer"
_KEPT = r"plan\.json|\d{4,}-end\.json|\d{4,}-\d{7,}\.part"
# Temporary files of the process that holds the folder exclusively; the next one has no use for them.
_PASSING = rf"({_KEPT})\.[0-9a-f]{{8}}\.making|(train|valid)\.(bin|idx|json)"
_OURS = re.compile(rf"{_KEPT}|{_PASSING}|\d+-of-\d+\.lock|lock")
_SYSTEMS = ".nfs"  # what a network file system calls a removed file that is still open


@dataclass(frozen=True)
class _End:
    """NNNN-end.json: an input was read to its end."""

    fingerprint: ShortText
    """Fingerprint of the input and the number of its parts."""
    num_parts: Count


class PartsFolder:
    """The parts of a plan on disk.

    Args:
        folder: PREFIX.parts.
        plan: parts of another one are not used.
    """

    def __init__(self, folder: Path, plan: PreparationPlan) -> None:
        self._folder = folder
        self._plan = plan

    @property
    def staged_tokenizer(self) -> Path:
        """Where the tokenizer's files wait until the shards are complete."""
        return self._folder / _STAGED_TOKENIZER

    def staged_shard(self, name: str) -> Path:
        """Prefix of the files of a shard, "train" or "valid", that is being written."""
        return self._folder / name

    @contextlib.contextmanager
    def held(self, share: Share, prefix: Path) -> Generator[None, None, None]:
        """Make the folder, or take one that an earlier process has left, and hold it against other processes.

        Several tasks of a job array may hold it, each its own share. What was made stays when the work fails.

        Args:
            share: of a job array, or WHOLE.
            prefix: for messages.

        Raises:
            DataError: it is not ours, or another process holds it.
        """
        is_whole = share == WHOLE
        self._take()
        with contextlib.ExitStack() as locks:
            file = self._lock(locks, _LOCK, prefix, shared=not is_whole)
            if not os.fstat(file.fileno()).st_size:
                file.write(_MARK)
                file.flush()
                os.fsync(file.fileno())
            if is_whole:  # no other process writes here: these files were left by a killed process
                self._remove(re.compile(_PASSING))
            else:
                self._lock(locks, f"{share.index}-of-{share.count}.lock", prefix, shared=False)
            try:
                yield
            except BaseException:
                if is_whole and not self._is_worth_keeping():
                    with contextlib.suppress(OSError):
                        self.remove()
                raise

    def remove(self) -> None:
        """Remove what prepare has made, and the folder if nothing else lies in it; the mark goes last."""
        self._remove(_OURS)
        (self._folder / _LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody has put files here
            self._folder.rmdir()

    def write_plan(self) -> None:
        """Keep the plan for `merge`."""
        _write_whole(self._folder / "plan.json", json.dumps(self._plan.to_dict(), indent=1))

    def num_parts(self, number: int) -> int | None:
        """Number of parts of an input; None if it was not read to its end yet."""
        try:
            end = read_record(self._end_path(number), _End)
        except (OSError, RecordError):
            return None
        return end.num_parts if end == self._end(number, end.num_parts) else None

    def write_num_parts(self, number: int, num_parts: int) -> None:
        """Keep that an input was read to its end."""
        _write_whole(self._end_path(number), json.dumps(asdict(self._end(number, num_parts))))

    def path(self, number: int, part: int) -> Path:
        """File of a finished part."""
        return self._folder / f"{number:04d}-{part:07d}.part"

    def is_finished(self, number: int, part: int) -> bool:
        """True if a part need not be made: it exists, is from this input, and has no skipped records unless allowed."""
        record = read_part_record(self.path(number, part))
        return (
            record is not None
            and record.fingerprint == self._plan.fingerprint(number, part)
            and (self._plan.settings.skip_bad_records or not record.num_bad_records)
        )

    def is_damaged(self, number: int, part: int) -> bool:
        """True if a part is there, but cannot be read."""
        path = self.path(number, part)
        return path.exists() and read_part_record(path) is None

    def are_finished(self, number: int, share: int) -> bool:
        """True if all parts of an input that a task makes are finished."""
        count = self.num_parts(number)
        return count is not None and all(
            self.is_finished(number, part)
            for part in range(count)
            if self._plan.share_of(number, part) == share
        )

    def all_finished(self, vocab_size: int) -> list[FinishedPart]:
        """All parts of the plan, in the order of the input.

        Raises:
            DataError: some are missing; the message says what to type.
        """
        settings = self._plan.settings
        dtype = token_type(vocab_size)
        entry = entry_type(len(settings.text_keys), settings.deduplicate)
        found: list[FinishedPart] = []
        for number, path in enumerate(self._plan.inputs):
            count = self.num_parts(number)
            if count is None:
                raise self._unfinished(f"no task has read {path} to its end", [1])
            missing = [part for part in range(count) if not self.is_finished(number, part)]
            if missing:
                what = f"{len(missing):,} of {count:,} parts of {path} are missing"
                raise self._unfinished(
                    what, sorted({self._plan.share_of(number, part) for part in missing})
                )
            found += [FinishedPart(self.path(number, part), dtype, entry) for part in range(count)]
        return found

    def _take(self) -> None:
        """Make the folder, or refuse one that is not ours."""
        try:
            self._folder.mkdir()
        except FileExistsError:
            if not self._folder.is_dir():
                raise self._strange(self._folder, "is not a folder") from None
        is_empty = True
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(_SYSTEMS):
                    continue
                is_kind = entry.is_dir if entry.name == _STAGED_TOKENIZER else entry.is_file
                is_named = entry.name == _STAGED_TOKENIZER or _OURS.fullmatch(entry.name)
                if not is_named or not is_kind(follow_symlinks=False):
                    raise self._strange(Path(entry.path), "was not made by prepare")
                is_empty = is_empty and entry.name == _LOCK
        try:
            mark = read_file(self._folder / _LOCK, _LARGEST_MARK)
        except FileNotFoundError:
            mark = b""
        except RecordError:
            mark = b"of somebody else"
        # Several tasks may have written it at once; a killed process, or a full disk, may have left it empty.
        if not mark.startswith(_MARK) and (mark or not is_empty):
            raise self._strange(self._folder, "was not made by this version of prepare")

    def _strange(self, path: Path, what: str) -> DataError:
        return DataError(
            f"{path} {what}; prepare keeps its parts in {self._folder}, and removes them from there. Move {path}, or "
            "choose another place (--output PREFIX, data.cache_dir)."
        )

    def _lock(
        self, locks: contextlib.ExitStack, name: str, prefix: Path, *, shared: bool
    ) -> BinaryIO:
        path = self._folder / name
        file = locks.enter_context(path.open("ab"))
        is_ours = lock_file(file, wait=False, shared=shared)
        # The process before us may have removed the folder since we opened the file.
        if not is_ours or not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
            raise DataError(
                f"Another process is writing {prefix} at this moment. Wait for it, or choose another --output PREFIX."
            )
        return file

    def _remove(self, names: re.Pattern[str]) -> None:
        shutil.rmtree(self.staged_tokenizer, ignore_errors=True)
        for path in self._folder.iterdir():
            if path.name != _LOCK and names.fullmatch(path.name):
                path.unlink()

    def _is_worth_keeping(self) -> bool:
        """True if an interrupted preparation has made anything."""
        records = (read_part_record(path) for path in self._folder.glob("*.part"))
        return any(record is not None and record.num_documents for record in records)

    def _end(self, number: int, num_parts: int) -> _End:
        known = f"{self._plan.fingerprint(number, None)} {num_parts}"
        return _End(hashlib.blake2b(known.encode(), digest_size=16).hexdigest(), num_parts)

    def _end_path(self, number: int) -> Path:
        return self._folder / f"{number:04d}-end.json"

    def _unfinished(self, what: str, shares: Sequence[int]) -> DataError:
        commands = ", ".join(f"--part {share}/{self._plan.num_shares}" for share in shares[:8])
        more = " and others" if len(shares) > 8 else ""
        return DataError(
            f"{self._folder} cannot be merged yet: {what}. Run prepare again with {commands}{more}."
        )


def _write_whole(path: Path, text: str) -> None:
    """Write a small file so that it is there complete or not at all."""
    making = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.making")
    making.write_text(text)
    os.replace(making, path)
