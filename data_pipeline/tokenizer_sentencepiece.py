"""A SentencePiece model, and GLM-130B's tokenizer, which is one with pieces added.

A text that continues another one, and a text that would become a special token, are normalised first; what comes of it
is then tokenized as it stands. The model for that is the same file with another normaliser appended: a protocol buffer
of which the last value of a field holds.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import sentencepiece

from configs.errors import DataError
from data_pipeline import icetk
from data_pipeline.special_roles import Roles, assign_roles
from data_pipeline.tokenizer_parts import Decoder, fingerprint_of, read_tokenizer_file

_BLANK = "\N{LOWER ONE EIGHTH BLOCK}"

# Of ModelProto: fields and, in NormalizerSpec, the ones that are set anew.
_NORMALIZER_FIELD, _SELF_TEST_FIELD = 3, 4
_NO_PREFIX = b"\x18\x00"  # add_dummy_prefix (3): false
_KEEP_BLANKS = b"\x20\x00"  # remove_extra_whitespaces (4): false
_IDENTITY = b"\x12\x00"  # precompiled_charsmap (2): empty
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class PieceModel:
    """A SentencePiece model that knows which of its pieces no text may become.

    Args:
        path: path of the file, for messages.
        content: content of the file.
        guarded: ids of the pieces that no text may become.

    Raises:
        DataError: it is not such a model.
    """

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        self._model = _load(path, content)
        bare = _without_field(path, content, _SELF_TEST_FIELD)
        self._normaliser = _load(path, bare + _normaliser(_NO_PREFIX + _KEEP_BLANKS))
        self._raw = _load(path, bare + _normaliser(_IDENTITY + _NO_PREFIX + _KEEP_BLANKS))
        self.size: int = self._model.get_piece_size()
        try:
            self.ids = {self._model.id_to_piece(token): token for token in range(self.size)}
            self._squeezes = self._model.encode("a  b") == self._model.encode("a b")
            unknown = self._model.unk_id()
            self.unknown = self._model.id_to_piece(unknown) if unknown >= 0 else None
        except (RuntimeError, ValueError, IndexError, UnicodeError) as error:
            raise DataError(f"{path} is not a SentencePiece model ({error}).") from error
        self._guarded: frozenset[int] = frozenset()
        self._cut: re.Pattern[str] | None = None

    def find(self, text: str) -> int | None:
        """Id of a piece."""
        return self.ids.get(text)

    def guard(self, ids: frozenset[int]) -> None:
        """Let no text become one of these.

        Raises:
            DataError: there is no other way to write one.
        """
        # No text becomes a control piece.
        self._guarded = frozenset(
            token for token in ids if token < self.size and not self._model.is_control(token)
        )
        texts = sorted(self._model.id_to_piece(token) for token in self._guarded)
        for text in texts:
            if len(text) < 2:
                raise DataError(
                    f'{self._path} has no other way to write "{text}" than the token itself, which a text must not '
                    "become. Give that role to another token."
                )
        pattern = "|".join(f"(?<={re.escape(text[0])})(?={re.escape(text[1:])})" for text in texts)
        self._cut = re.compile(pattern) if texts else None

    def encode(self, text: str, is_continuation: bool = False) -> list[int]:
        """Ids of a text, or of one that continues another."""
        if is_continuation:
            return self._encode_normal(self._continuing(text))
        ids: list[int] = self._model.encode(text)
        if self._guarded.isdisjoint(ids):
            return ids
        return self._encode_normal(self._model.normalize(text))

    def encode_batch(self, texts: Sequence[str], num_threads: int) -> list[list[int]]:
        """Ids of several texts."""
        encoded: list[list[int]] = self._model.encode(list(texts), num_threads=num_threads)
        if not self._guarded:
            return encoded
        return [
            ids if self._guarded.isdisjoint(ids) else self.encode(text)
            for text, ids in zip(texts, encoded, strict=True)
        ]

    def decode(self, ids: list[int]) -> str:
        """Text of ids of pieces."""
        return self._model.decode(ids)

    def _continuing(self, text: str) -> str:
        """Normal form of a text that continues another one: a blank at its beginning separates the two."""
        normal: str = self._normaliser.normalize(text)
        if not self._squeezes:
            return normal
        return re.sub(f"{_BLANK}+", _BLANK, normal).removesuffix(_BLANK)

    def _encode_normal(self, normal: str) -> list[int]:
        parts = [normal] if self._cut is None else self._cut.split(normal)
        return [token for part in parts for token in self._raw.encode(part)]


class SentencePieceTokenizer:
    """A SentencePiece model; see data_pipeline.tokenizer.Tokenizer."""

    notes: list[str]

    def __init__(
        self, path: Path, spec: str, named: Mapping[str, str], num_threads: int = -1
    ) -> None:
        self.spec, self.notes = spec, []
        content = read_tokenizer_file(path)
        self._model = PieceModel(path, content)
        self._num_threads = num_threads
        self.roles = assign_roles(self._model.find, self._model.size, named, self._model.unknown)
        self.special, self.smask = self.roles.special, self.roles.smask
        self.vocab_size = self.roles.vocab_size
        usual = assign_roles(self._model.find, self._model.size, {})
        self.fingerprint = fingerprint_of("sp", content, self.roles, usual)
        self._model.guard(self.roles.own_ids)
        self._decoder = Decoder(self._model.decode, self.roles, self.encode("a"))

    def find(self, text: str) -> int | None:
        """Id of a piece that may have a role."""
        return None if text == self._model.unknown else self._model.find(text)

    def encode(self, text: str, is_continuation: bool = False) -> list[int]:
        """See Tokenizer."""
        return self._model.encode(text, is_continuation)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Tokenizer."""
        return self._model.encode_batch(texts, self._num_threads)

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return self._decoder.decode(ids)

    def decode_span(self, ids: Sequence[int], follows: bool) -> str:
        """See Tokenizer."""
        return self._decoder.decode(ids, follows=follows)


class IceTokenizer:
    """GLM-130B's tokenizer, from a local `ice_text.model`, with the ids of the released weights."""

    special = icetk.SPECIAL
    smask = icetk.SMASK
    vocab_size = icetk.VOCAB_SIZE
    notes: list[str]

    def __init__(
        self, path: Path, spec: str, named: Mapping[str, str], num_threads: int = -1
    ) -> None:
        self.spec, self.notes = spec, []
        if named:
            raise DataError(
                f"{spec} has the special tokens of the released weights. Leave data.special_tokens out."
            )
        content = read_tokenizer_file(path)
        self._num_threads = num_threads
        num_pieces = _load(path, content).get_piece_size()
        if num_pieces != icetk.NUM_PIECES:
            raise DataError(
                f"{path} has {num_pieces:,} pieces; GLM-130B's ice_text.model has {icetk.NUM_PIECES:,}. Use sp:{path} "
                "for another SentencePiece model."
            )
        self._model = PieceModel(path, icetk.with_added_pieces(content))
        self.roles = Roles(self.special, self.smask, self.vocab_size, icetk.ROLE_TEXTS)
        ids = {*self.special.to_dict().values(), self.smask}
        self._model.guard(frozenset(id - icetk.OFFSET for id in ids if id >= icetk.OFFSET))
        self.fingerprint = fingerprint_of("icetk", content, self.roles, self.roles)
        self._decoder = Decoder(self._decode_plain, self.roles, self.encode("a"))

    def find(self, text: str) -> int | None:
        """Id of a piece that may have a role."""
        return None if text == self._model.unknown else self._model.find(text)

    def encode(self, text: str, is_continuation: bool = False) -> list[int]:
        """See Tokenizer."""
        return _shifted(self._model.encode(icetk.mark_whitespace(text), is_continuation))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Tokenizer."""
        marked = [icetk.mark_whitespace(text) for text in texts]
        return [_shifted(ids) for ids in self._model.encode_batch(marked, self._num_threads)]

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer; image tokens have no text."""
        return icetk.unmark_whitespace(self._decoder.decode(ids))

    def decode_span(self, ids: Sequence[int], follows: bool) -> str:
        """See Tokenizer."""
        return icetk.unmark_whitespace(self._decoder.decode(ids, follows=follows))

    def _decode_plain(self, ids: Sequence[int]) -> str:
        text_ids = range(icetk.OFFSET, icetk.VOCAB_SIZE)
        return self._model.decode([token - icetk.OFFSET for token in ids if token in text_ids])


def _shifted(ids: list[int]) -> list[int]:
    return [token + icetk.OFFSET for token in ids]


def _load(path: Path, content: bytes) -> sentencepiece.SentencePieceProcessor:
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.load_from_serialized_proto(content)
    except (RuntimeError, ValueError, IndexError, UnicodeError) as error:
        raise DataError(f"{path} is not a SentencePiece model ({error}).") from error
    return model


def _normaliser(fields: bytes) -> bytes:
    """What is appended to a model's file to change its normaliser."""
    return bytes([_NORMALIZER_FIELD << 3 | _BYTES, len(fields)]) + fields


def _without_field(path: Path, content: bytes, field: int) -> bytes:
    """A protocol buffer without one of its fields: the samples with which a model tests its own normaliser."""
    kept: list[bytes] = []
    at = 0
    while at < len(content):
        start = at
        key, at = _varint(content, at)
        kind = key & 7
        if kind == _VARINT:
            _, at = _varint(content, at)
        elif kind == _BYTES:
            length, at = _varint(content, at)
            at += length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise DataError(f"{path} is not a SentencePiece model (byte {start:,}).")
        if key >> 3 != field:
            kept.append(content[start:at])
    return b"".join(kept)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(content):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, at
