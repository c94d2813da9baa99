"""What the kinds of tokenizers share: reading a file, a fingerprint, decoding ids that include special tokens."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from configs.errors import DataError, RecordError
from configs.records import read_file
from data_pipeline.special_roles import Roles

_LARGEST_FILE = 2**30


def read_tokenizer_file(path: Path) -> bytes:
    """Content of a tokenizer's file.

    Raises:
        DataError: it is not a file, or cannot be read.
    """
    try:
        return read_file(path, _LARGEST_FILE)
    except RecordError as error:
        raise DataError(f"The tokenizer cannot be read: {error}") from error
    except OSError as error:
        raise DataError(f"The tokenizer file {path} cannot be read: {error.strerror}.") from error


def fingerprint_of(kind: str, content: bytes, roles: Roles, usual: Roles) -> str:
    """A string that changes whenever any id of a tokenizer could change.

    Args:
        kind: kind of tokenizer.
        content: content of its file.
        roles: the roles that are used.
        usual: the roles that it has if the user names none.
    """
    known = f"{kind}-{hashlib.blake2b(content, digest_size=16).hexdigest()}"
    ids = [roles.special.to_dict(), roles.smask]
    if ids == [usual.special.to_dict(), usual.smask]:
        return known
    return f"{known}-{hashlib.blake2b(repr(ids).encode(), digest_size=4).hexdigest()}"


class Decoder:
    """Writes ids as text.

    Args:
        plain: text of ordinary ids; may drop a blank at its beginning.
        roles: of the special tokens, which are written by name.
        anchor: ids of a short text.
    """

    def __init__(
        self, plain: Callable[[list[int]], str], roles: Roles, anchor: Sequence[int]
    ) -> None:
        self._plain = plain
        self._names = roles.names
        self._blanks = {roles.special.mask, roles.special.gmask, roles.smask}
        self._anchor = list(anchor)
        self._anchor_text = plain(self._anchor)

    def decode(self, ids: Sequence[int], *, follows: bool = False) -> str:
        """Text of ids.

        Args:
            ids: special ones among them.
            follows: the text stands behind another one: a blank at its beginning is kept, as behind a blank.
        """
        parts: list[str] = []
        run: list[int] = []
        for token in ids:
            if token not in self._names:
                run.append(int(token))
                continue
            parts += [self._run(run, follows), self._names[token]]
            run, follows = [], token in self._blanks
        return "".join(parts) + self._run(run, follows)

    def _run(self, ids: list[int], follows: bool) -> str:
        if not ids:
            return ""
        if not follows:
            return self._plain(ids)
        # Libraries treat the beginning of a text differently from its middle.
        text = self._plain([*self._anchor, *ids])
        if text.startswith(self._anchor_text):
            return text[len(self._anchor_text) :]
        return self._plain(ids)
