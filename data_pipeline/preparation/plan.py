"""What a preparation is made of, and which of its parts are finished: the folder PREFIX.parts."""

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.errors import DataError
from data_pipeline.preparation.filters import Filters
from data_pipeline.preparation.inputs import PART_BYTES, identity
from data_pipeline.preparation.make_part import Settings
from data_pipeline.preparation.parts import FinishedPart, entry_type, read_record
from data_pipeline.storage.shards import token_type
from data_pipeline.tokenizer import Tokenizer

_FORMAT_VERSION = 1
# Part of every part's fingerprint: raised when the same input would now become other tokens or documents.
_TOKENS_VERSION = 2


@dataclass(frozen=True)
class Plan:
    """What is prepared: kept in PREFIX.parts/plan.json for `merge`."""

    inputs: tuple[str, ...]
    identities: tuple[str, ...]
    """Hashes of what makes each input the same one."""
    tokenizer: str
    tokenizer_fingerprint: str
    settings: Settings
    valid_fraction: float
    num_shares: int

    def fingerprint(self, number: int, part: int | None) -> str:
        """What a part of input `number` depends on; for None, what the number of its parts depends on."""
        settings = asdict(self.settings)
        # A part that was made without a bad record is the same with and without leave to skip them.
        settings.pop("skip_bad_records")
        return _hash(
            [
                _TOKENS_VERSION,
                PART_BYTES,
                self.identities[number],
                self.tokenizer_fingerprint,
                settings,
                part,
            ]
        )

    def share_of(self, number: int, part: int) -> int:
        """Index, from 1, of the job array's task that makes a part of input `number`."""
        return (number + part) % self.num_shares + 1

    @classmethod
    def of(
        cls,
        inputs: Sequence[str],
        tokenizer: Tokenizer,
        valid_fraction: float,
        settings: Settings,
        num_shares: int = 1,
    ) -> "Plan":
        """Make the plan of a preparation.

        Raises:
            DataError: an input is missing.
        """
        return cls(
            tuple(inputs),
            tuple(_hash(identity(path)) for path in inputs),
            tokenizer.spec,
            tokenizer.fingerprint,
            settings,
            valid_fraction,
            num_shares,
        )

    @classmethod
    def read(cls, path: Path, prefix: Path) -> "Plan":
        """Read plan.json.

        Raises:
            DataError: it is not there, damaged, or of a newer version.
        """
        if not path.is_file():
            raise DataError(
                f"{prefix} has no parts to merge ({path} does not exist). Make them: python -m data_pipeline prepare "
                f"INPUT --output {prefix} --tokenizer SPEC --part 1/8"
            )
        try:
            stored: Any = json.loads(path.read_bytes())
            version = int(stored.pop("format_version"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, error) from error
        if version > _FORMAT_VERSION:
            raise DataError(
                f"{path} has format version {version}; this program reads up to {_FORMAT_VERSION}. Update it."
            )
        try:
            return cls._from_dict(stored)
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(path, error) from error

    def to_dict(self) -> dict[str, Any]:
        """As it stands in plan.json."""
        return {"format_version": _FORMAT_VERSION, **asdict(self)}

    @classmethod
    def _from_dict(cls, stored: dict[str, Any]) -> "Plan":
        settings: Any = stored["settings"]
        settings["filters"]["scripts"] = tuple(settings["filters"]["scripts"])
        settings["filters"] = Filters(**settings["filters"])
        settings["text_keys"] = tuple(settings["text_keys"])
        stored["settings"] = Settings(**settings)
        for name in ("inputs", "identities"):
            stored[name] = tuple(stored[name])
        return cls(**stored)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is damaged ({error!r}). Run prepare again with the same --part I/N: finished parts are kept."
    )


class PartsFolder:
    """The parts of a plan on disk.

    Args:
        folder: PREFIX.parts.
        plan: parts of another one are not used.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder
        self._plan = plan

    def write_plan(self) -> None:
        """Keep the plan for `merge`."""
        _write_whole(self._folder / "plan.json", json.dumps(self._plan.to_dict(), indent=1))

    def num_parts(self, number: int) -> int | None:
        """Number of parts of an input; None if it was not read to its end yet."""
        try:
            end = json.loads(self._end_path(number).read_bytes())
        except (OSError, ValueError):
            return None
        fingerprint = self._plan.fingerprint(number, None)
        return end["num_parts"] if end["fingerprint"] == fingerprint else None

    def write_num_parts(self, number: int, num_parts: int) -> None:
        """Keep that an input was read to its end."""
        end = {"fingerprint": self._plan.fingerprint(number, None), "num_parts": num_parts}
        _write_whole(self._end_path(number), json.dumps(end))

    def path(self, number: int, part: int) -> Path:
        """File of a finished part."""
        return self._folder / f"{number:04d}-{part:07d}.part"

    def is_finished(self, number: int, part: int) -> bool:
        """True if a part need not be made: it is there, of this input, and no record was skipped without leave."""
        record = read_record(self.path(number, part))
        return (
            record is not None
            and record.fingerprint == self._plan.fingerprint(number, part)
            and (self._plan.settings.skip_bad_records or not record.num_bad_records)
        )

    def are_finished(self, number: int, share: int) -> bool:
        """True if all parts of an input that a task makes are finished."""
        count = self.num_parts(number)
        return count is not None and all(
            self.is_finished(number, part)
            for part in range(count)
            if self._plan.share_of(number, part) == share
        )

    def is_worth_keeping(self) -> bool:
        """True if an interrupted preparation has made anything."""
        records = (read_record(path) for path in self._folder.glob("*.part"))
        return any(record is not None and record.num_documents for record in records)

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

    def _unfinished(self, what: str, shares: Sequence[int]) -> DataError:
        commands = ", ".join(f"--part {share}/{self._plan.num_shares}" for share in shares[:8])
        more = " and others" if len(shares) > 8 else ""
        return DataError(
            f"{self._folder} cannot be merged yet: {what}. Run prepare again with {commands}{more}."
        )

    def _end_path(self, number: int) -> Path:
        return self._folder / f"{number:04d}-end.json"


def _write_whole(path: Path, text: str) -> None:
    """Write a small file so that it is there complete or not at all."""
    making = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.making")
    making.write_text(text)
    os.replace(making, path)


def _hash(known: object) -> str:
    return hashlib.blake2b(json.dumps(known).encode(), digest_size=16).hexdigest()
