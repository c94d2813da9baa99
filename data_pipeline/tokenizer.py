"""Text to token ids and back, for every kind of tokenizer: `hf:FILE`, `sp:FILE`, `icetk:FILE` or `bytes`.

Whatever the vocabulary, the six special tokens of blank infilling get ids: those it already has keep theirs, missing
ones are appended after it.
"""

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from configs.errors import DataError
from configs.run_paths import TOKENIZER_SPEC, RunPaths
from data_pipeline.special_roles import Roles, assign_roles, describe_roles
from data_pipeline.special_tokens import SpecialTokens
from data_pipeline.tokenizer_hf import HuggingFaceTokenizer
from data_pipeline.tokenizer_parts import Decoder
from data_pipeline.tokenizer_sentencepiece import IceTokenizer, SentencePieceTokenizer
from data_pipeline.tokenizer_spec import (
    KINDS,
    SPECS,
    file_in,
    join_spec,
    read_kept_spec,
    roles_beside,
    spec_in,
    split_spec,
)


class Tokenizer(Protocol):
    """The interface of all tokenizers."""

    spec: str
    special: SpecialTokens
    smask: int
    """[sMASK], for runs that hide sentences: the vocabulary's own, or the first id after it, `vocab_size`."""
    vocab_size: int
    """One more than the largest id, special tokens included."""
    fingerprint: str
    """A string that changes whenever any id could change."""
    roles: Roles
    """The special tokens by role, and which of them were added."""
    notes: list[str]
    """Changes that were made to the tokenizer so that it can be used, one sentence each."""

    def encode(self, text: str, is_continuation: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            text: any text; it never becomes a special token.
            is_continuation: the text follows other text, so a blank at its beginning is kept and none is added: its ids
                are those that it has within a longer text.
        """
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of several texts, in parallel where the library can."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; special tokens are written as [MASK], <sop>, ..."""
        ...

    def decode_span(self, ids: Sequence[int], follows: bool) -> str:
        """Text of token ids that were predicted; if it `follows` other text, a blank at its beginning is kept."""
        ...


def load_tokenizer(spec: str, num_threads: int = -1) -> Tokenizer:
    """Load a tokenizer.

    Args:
        spec: hf:FILE, sp:FILE, icetk:FILE or bytes; also hf:FOLDER and sp:FOLDER of a published model. The roles of
            special tokens may follow (data_pipeline/tokenizer_spec.py).
        num_threads: of `encode_batch` with SentencePiece; -1: all cores. Hugging Face's library takes its number from
            the environment (RAYON_NUM_THREADS).

    Raises:
        DataError: the spec has an unknown form, or its file cannot be read.
    """
    kind, name, named = split_spec(spec)
    if spec == "bytes":
        return ByteTokenizer()
    if kind not in KINDS or not name:
        raise DataError(f'The tokenizer "{spec}" has an unknown form. Type data.tokenizer={SPECS}.')
    path = Path(name).expanduser()
    if path.is_dir():
        path = file_in(kind, path)
        loaded = _load(kind, path, named, num_threads)
        named = {**roles_beside(path, loaded.find), **named} if kind != "icetk" else named
    elif not path.is_file():
        raise DataError(f"The tokenizer file {name} does not exist. Check data.tokenizer={spec}.")
    return _load(kind, path, named, num_threads)


def _load(
    kind: str, path: Path, named: dict[str, str], num_threads: int
) -> "HuggingFaceTokenizer | SentencePieceTokenizer | IceTokenizer":
    spec = join_spec(kind, str(path), named)
    if kind == "hf":
        return HuggingFaceTokenizer(path, spec, named)
    sentencepiece_kind = SentencePieceTokenizer if kind == "sp" else IceTokenizer
    return sentencepiece_kind(path, spec, named, num_threads)


def describe_tokenizer(tokenizer: Tokenizer) -> str:
    """A tokenizer in a line: its size, which token has which role, and what was changed of it."""
    words = f"Tokenizer {tokenizer.spec}: {tokenizer.vocab_size:,} tokens; {describe_roles(tokenizer.roles)}"
    return "; ".join([words, *tokenizer.notes])


def keep_tokenizer(spec: str, folder: Path) -> None:
    """Copy a tokenizer's file into `folder`, with a spec.txt that names it there; each appears when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    _, name, _ = split_spec(spec)
    kept = folder / Path(name).name
    if name and Path(name).resolve() != kept.resolve():
        partial = folder / f"{kept.name}.{uuid.uuid4().hex[:8]}.part"
        shutil.copyfile(name, partial)
        partial.replace(kept)
    partial = folder / f"{TOKENIZER_SPEC}.{uuid.uuid4().hex[:8]}.part"
    partial.write_text(spec_in(spec, ".") + "\n")
    partial.replace(folder / TOKENIZER_SPEC)


def kept_tokenizer(folder: Path) -> str | None:
    """Spec of the tokenizer that is kept in a run folder, or beside its second copies; None if there is none.

    Raises:
        RecordError: what is kept there names no tokenizer.
    """
    kept = RunPaths(folder).tokenizer
    try:
        return spec_in(read_kept_spec(kept / TOKENIZER_SPEC), str(kept))
    except FileNotFoundError:
        return None


class ByteTokenizer:
    """UTF-8 bytes, ids 0 to 255: no file, no training."""

    spec = "bytes"
    fingerprint = "bytes-1"
    notes: list[str]

    def __init__(self) -> None:
        self.notes = []
        self.roles = assign_roles(lambda text: None, 256, {})
        self.special, self.smask = self.roles.special, self.roles.smask
        self.vocab_size = self.roles.vocab_size
        self._decoder = Decoder(lambda ids: bytes(ids).decode(errors="replace"), self.roles, b"a")

    def encode(self, text: str, is_continuation: bool = False) -> list[int]:
        """See Tokenizer."""
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Tokenizer."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return self._decoder.decode(ids)

    def decode_span(self, ids: Sequence[int], follows: bool) -> str:
        """See Tokenizer."""
        return self._decoder.decode(ids, follows=follows)
