"""What a preparation writes at PREFIX, and what it may replace there: only what a preparation has made.

A shard is ours if its PREFIX.json is: that file is written first and removed last. The files of PREFIX.tokenizer are
ours if its spec.txt names them, or if they hold the same bytes already.
"""

import filecmp
import os
from collections.abc import Sequence
from pathlib import Path

from configs.errors import DataError, RecordError, StorageError
from configs.records import read_text
from configs.run_paths import TOKENIZER_SPEC
from data_pipeline.preparation.inputs import is_file_name
from data_pipeline.storage.shards import ShardInfo, read_info, withdraw

_ENDINGS = ("json", "bin", "idx")
_KINDS = ("bytes", "hf", "sp", "icetk")
_LONGEST_SPEC = 2**16
_ADVICE = "Move it, or choose another place (--output PREFIX)."


class Outputs:
    """The files of a preparation's result.

    Args:
        prefix: path without ending.
        parts_folder: where parts are kept meanwhile.
    """

    def __init__(self, prefix: Path, parts_folder: Path) -> None:
        self.train = prefix
        self.valid = Path(f"{prefix}.valid")
        self.tokenizer = Path(f"{prefix}.tokenizer")
        self._parts_folder = parts_folder

    def check(self, inputs: Sequence[str], tokenizer: str) -> None:
        """Refuse a place where something would be lost.

        Args:
            inputs: the corpora.
            tokenizer: spec of the tokenizer that will be kept.

        Raises:
            DataError: an input would be replaced, or a file that no preparation has made.
        """
        if self.train.name in ("", ".."):
            raise DataError(
                f"--output {self.train} is not a PREFIX: it does not end in the beginning of a file name. Try --output "
                f"{self.train / 'corpus'}."
            )
        for path in inputs:
            self._check_input(path)
        for prefix in (self.train, self.valid):
            _check_shard(prefix)
        if (info := _info(self.valid)) is not None and info.held_out_below == 0:
            raise DataError(
                f"{self.valid} was prepared by itself, not held out of {self.train}, and would be replaced. {_ADVICE}"
            )
        name = Path(tokenizer.partition(":")[2]).name
        self._check_tokenizer(Path(tokenizer.partition(":")[2]), name)

    def publish_tokenizer(self, staged: Path) -> None:
        """Move a tokenizer's files to their place.

        Args:
            staged: folder of them, with a spec.txt.

        Raises:
            DataError: a file there is not ours.
        """
        files = sorted(staged.iterdir(), key=lambda file: file.name != TOKENIZER_SPEC)
        for file in files:
            self._check_tokenizer(file, file.name)
        self.tokenizer.mkdir(exist_ok=True)
        for file in files:  # spec.txt first: it shows that the other files are ours
            place = self.tokenizer / file.name
            if not _is_same(file, place):
                os.replace(file, place)

    def withdraw(self) -> None:
        """Remove the shards that are about to be replaced."""
        for prefix in (self.train, self.valid):
            withdraw(prefix)

    def _check_input(self, path: str) -> None:
        if not is_file_name(path) and not os.path.isdir(path):
            return
        for prefix in (self.train, self.valid):
            for ending in _ENDINGS:
                if _is_one(path, output := f"{prefix}.{ending}"):
                    raise DataError(
                        f"The corpus {path} is {output}, which would be replaced. Choose another --output PREFIX."
                    )
        real, folder = (Path(os.path.realpath(each)) for each in (path, self._parts_folder))
        if folder == real or folder in real.parents:
            raise DataError(
                f"The corpus {path} lies in {self._parts_folder}, which prepare makes and removes. Move it, or choose "
                "another --output PREFIX."
            )

    def _check_tokenizer(self, source: Path, name: str) -> None:
        """Refuse to replace the file `name` by `source` if it is not ours."""
        if not os.path.lexists(self.tokenizer):
            return
        if not self.tokenizer.is_dir():
            raise DataError(f"{self.tokenizer} is not a folder made by prepare. {_ADVICE}")
        spec = self.tokenizer / TOKENIZER_SPEC
        named = _named_by(spec)
        if named is None and os.path.lexists(spec):
            raise DataError(f"{spec} was not made by prepare, and would be replaced. {_ADVICE}")
        place = self.tokenizer / name
        if (
            name in ("", TOKENIZER_SPEC, named)
            or not os.path.lexists(place)
            or _is_same(source, place)
        ):
            return
        raise DataError(f"{place} was not made by prepare, and would be replaced. {_ADVICE}")


def _check_shard(prefix: Path) -> None:
    """Refuse to replace the files of a shard that is not ours."""
    found = [Path(f"{prefix}.{ending}") for ending in _ENDINGS]
    found = [path for path in found if os.path.lexists(path)]
    if not found:
        return
    strange = next((path for path in found if not path.is_file()), None)
    reason = "is not a file" if strange else ""
    if strange is None:
        if _info(prefix) is not None:
            return
        is_there = Path(f"{prefix}.json") in found
        reason = "was not made by prepare"
        reason += ", or is damaged" if is_there else f" (no {prefix}.json says so)"
    raise DataError(f"{strange or found[0]} {reason}, and would be replaced. {_ADVICE}")


def _info(prefix: Path) -> ShardInfo | None:
    try:
        return read_info(str(prefix))
    except StorageError:
        raise
    except DataError:
        return None


def _named_by(spec: Path) -> str | None:
    """Name of the file that a spec.txt of ours names, "" for none; None if it is not there or not ours."""
    try:
        text = read_text(spec, _LONGEST_SPEC)
    except (OSError, RecordError):
        return None
    kind, _, name = text.strip().partition(":")
    return Path(name).name if kind in _KINDS and "\n" not in name else None


def _is_one(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _is_same(file: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(file, other, shallow=False)
    except OSError:
        return False
