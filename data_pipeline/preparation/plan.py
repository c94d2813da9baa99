"""The plan of a preparation, which the tasks of a job array share as PREFIX.parts/plan.json."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.errors import DataError, RecordError
from configs.records import Count, ShortText, decode, read_file
from data_pipeline.preparation.inputs import PART_BYTES, identity
from data_pipeline.preparation.make_part import Settings
from data_pipeline.tokenizer import Tokenizer

_FORMAT_VERSION = 1
# Part of every part's fingerprint: raised when the same input would now become other tokens or documents.
_TOKENS_VERSION = 3
_AGAIN = "Run prepare again with the same --part I/N: finished parts are kept."


@dataclass(frozen=True)
class PreparationPlan:
    """The inputs and settings of a preparation; kept in PREFIX.parts/plan.json for `merge`."""

    inputs: tuple[ShortText, ...]
    identities: tuple[ShortText, ...]
    """Hash of each input's identity: size and time of its files, or its name on the hub."""
    tokenizer: ShortText
    tokenizer_fingerprint: ShortText
    settings: Settings
    valid_fraction: float
    num_shares: int

    def fingerprint(self, number: int, part: int | None) -> str:
        """What a part of input `number` depends on; for None, what the number of its parts depends on."""
        settings = asdict(self.settings)
        # A part without bad records is the same whether or not they may be skipped.
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

    @property
    def made_from(self) -> str:
        """Hash of all that the shards depend on, which they keep: not the number of shares, nor who makes them."""
        return _hash(
            [
                _TOKENS_VERSION,
                self.identities,
                self.tokenizer_fingerprint,
                asdict(self.settings),
                self.valid_fraction,
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
    ) -> "PreparationPlan":
        """Make the plan of a preparation.

        Raises:
            DataError: an input is missing.
        """
        return cls(
            tuple(inputs),
            tuple(map(identity_hash, inputs)),
            tokenizer.spec,
            tokenizer.fingerprint,
            settings,
            valid_fraction,
            num_shares,
        )

    @classmethod
    def read(cls, path: Path, prefix: Path) -> "PreparationPlan":
        """Read plan.json.

        Raises:
            DataError: it is not there, damaged, or of a newer version.
        """
        try:
            text = read_file(path)
            version = decode(text, _Version, str(path)).format_version
            if version > _FORMAT_VERSION:
                raise DataError(
                    f"{path} has format version {version}; this program reads up to {_FORMAT_VERSION}. Update it."
                )
            plan = decode(text, cls, str(path))
        except FileNotFoundError as error:
            raise DataError(
                f"{prefix} has no parts to merge ({path} does not exist). Make them: python -m data_pipeline prepare "
                f"INPUT --output {prefix} --tokenizer SPEC --part 1/8"
            ) from error
        except RecordError as error:
            raise DataError(f"{error} {_AGAIN}") from error
        is_whole = 0 < len(plan.inputs) == len(plan.identities) and plan.settings.text_keys
        if not is_whole or not 0 <= plan.valid_fraction < 1 or plan.num_shares < 1:
            raise DataError(
                f"{path} is damaged: its values do not describe a preparation. {_AGAIN}"
            )
        return plan

    def to_dict(self) -> dict[str, Any]:
        """The content of plan.json."""
        return {"format_version": _FORMAT_VERSION, **asdict(self)}


@dataclass(frozen=True)
class _Version:
    format_version: Count


def identity_hash(path: str) -> str:
    """Hash of what makes a corpus the same one.

    Raises:
        DataError: it is missing, or cannot be read.
    """
    return _hash(identity(path))


def _hash(known: object) -> str:
    return hashlib.blake2b(json.dumps(known).encode(), digest_size=16).hexdigest()
