"""Text to token ids and back, through one door: `hf:FILE`, `sp:FILE`, `icetk:FILE` or `bytes`.

Whatever the vocabulary, the six special tokens of blank infilling get ids: those it already has keep theirs, missing
ones are appended after it.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import sentencepiece
import tokenizers

from configs.errors import DataError
from data_pipeline import icetk
from data_pipeline.special_tokens import SMASK_TEXT, SPECIAL_TEXTS, SpecialTokens

SPECS = "hf:FILE, sp:FILE, icetk:FILE or bytes"

# What other vocabularies call these two.
_OTHER_NAMES = {"eos": ("</s>", "<|endoftext|>", "<eod>"), "pad": ("[PAD]", "<|pad|>")}


class Tokenizer(Protocol):
    """What the project asks of a tokenizer."""

    spec: str
    special: SpecialTokens
    smask: int
    """[sMASK], for runs that hide sentences: the vocabulary's own, or the first id after it, `vocab_size`."""
    vocab_size: int
    """One more than the largest id, special tokens included."""
    fingerprint: str
    """Changes when any id could."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; no special tokens are added or recognised."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of several texts, in parallel where the library can."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; special tokens are written as [MASK], <sop>, ..."""
        ...


def load_tokenizer(spec: str, num_threads: int = -1) -> Tokenizer:
    """Load a tokenizer.

    Args:
        spec: hf:FILE, sp:FILE, icetk:FILE or bytes.
        num_threads: of `encode_batch` with SentencePiece; -1: all cores. Hugging Face's library takes its number from
            the environment (RAYON_NUM_THREADS).

    Raises:
        DataError: the spec is of no known form, or its file cannot be read.
    """
    kind, _, name = spec.partition(":")
    if spec == "bytes":
        return ByteTokenizer()
    if kind not in ("hf", "sp", "icetk") or not name:
        raise DataError(f'The tokenizer "{spec}" is of no known form. Type data.tokenizer={SPECS}.')
    if not Path(name).is_file():
        raise DataError(f"The tokenizer file {name} does not exist. Check data.tokenizer={spec}.")
    if kind == "hf":
        return HuggingFaceTokenizer(Path(name))
    sentencepiece_kind = SentencePieceTokenizer if kind == "sp" else IceTokenizer
    return sentencepiece_kind(Path(name), num_threads)


def keep_tokenizer(spec: str, folder: Path) -> None:
    """Copy a tokenizer's file into `folder`, with a spec.txt that names it there."""
    folder.mkdir(parents=True, exist_ok=True)
    name = spec.partition(":")[2]
    kept = folder / Path(name).name
    if name and Path(name).resolve() != kept.resolve():
        shutil.copyfile(name, kept)
    (folder / "spec.txt").write_text(spec_in(spec, ".") + "\n")


def spec_in(spec: str, folder: str) -> str:
    """Spec of the same tokenizer when its file lies in `folder`."""
    kind, _, name = spec.partition(":")
    return f"{kind}:{Path(folder) / Path(name).name}" if name else kind


class HuggingFaceTokenizer:
    """A `tokenizer.json` of the Hugging Face tokenizers library."""

    def __init__(self, path: Path) -> None:
        self.spec = f"hf:{path}"
        content = _read(path)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"{path} is not a tokenizer.json ({error}).") from error
        # A published file may cut at 512 tokens, fill up, and turn "[MASK]" in a text into the token.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        # The largest id, not the count: published vocabularies have gaps.
        size = max(self._tokenizer.get_vocab().values(), default=-1) + 1
        self.special, self.vocab_size = _with_specials(self._tokenizer.token_to_id, size)
        self.smask = _smask(self._tokenizer.token_to_id, self.vocab_size)
        self.fingerprint = _fingerprint("hf", content)
        self._cut = _cut_inside(self._encode, self.special)

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return _encode_apart(self._encode, text, self._cut)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Tokenizer."""
        if self._cut is not None:
            return [self.encode(text) for text in texts]
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return _decode(
            ids,
            self.special,
            self.smask,
            lambda plain: self._tokenizer.decode(plain, skip_special_tokens=False),
        )

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids


class SentencePieceTokenizer:
    """A SentencePiece model."""

    def __init__(self, path: Path, num_threads: int = -1) -> None:
        self.spec = f"sp:{path}"
        content = _read(path)
        self._model = _load_sentencepiece(path, content)
        self._num_threads = num_threads
        size = self._model.get_piece_size()
        pieces = {self._model.id_to_piece(token): token for token in range(size)}
        self.special, self.vocab_size = _with_specials(pieces.get, size)
        self.smask = _smask(pieces.get, self.vocab_size)
        self.fingerprint = _fingerprint("sp", content)
        self._cut = _cut_inside(self._model.encode, self.special)

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return _encode_apart(self._model.encode, text, self._cut)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Tokenizer."""
        if self._cut is not None:
            return [self.encode(text) for text in texts]
        return self._model.encode(list(texts), num_threads=self._num_threads)

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return _decode(ids, self.special, self.smask, self._model.decode)


class IceTokenizer:
    """GLM-130B's tokenizer, from a local `ice_text.model`, with the ids of the released weights."""

    special = icetk.SPECIAL
    smask = icetk.SMASK
    vocab_size = icetk.VOCAB_SIZE

    def __init__(self, path: Path, num_threads: int = -1) -> None:
        self.spec = f"icetk:{path}"
        content = _read(path)
        self._num_threads = num_threads
        num_pieces = _load_sentencepiece(path, content).get_piece_size()
        if num_pieces != icetk.NUM_PIECES:
            raise DataError(
                f"{path} has {num_pieces:,} pieces; GLM-130B's ice_text.model has {icetk.NUM_PIECES:,}. Use sp:{path} "
                "for another SentencePiece model."
            )
        self._model = _load_sentencepiece(path, icetk.with_added_pieces(content))
        self.fingerprint = _fingerprint("icetk", content)

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Tokenizer."""
        marked = [icetk.mark_whitespace(text) for text in texts]
        encoded = self._model.encode(marked, num_threads=self._num_threads)
        return [[token + icetk.OFFSET for token in ids] for ids in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer; image tokens have no text."""
        return icetk.unmark_whitespace(_decode(ids, self.special, self.smask, self._decode_plain))

    def _decode_plain(self, ids: Sequence[int]) -> str:
        text_ids = range(icetk.OFFSET, icetk.VOCAB_SIZE)
        return self._model.decode([token - icetk.OFFSET for token in ids if token in text_ids])


class ByteTokenizer:
    """UTF-8 bytes, ids 0 to 255: no file, no training."""

    spec = "bytes"
    fingerprint = "bytes-1"

    def __init__(self) -> None:
        self.special, self.vocab_size = _with_specials(lambda text: None, 256)
        self.smask = self.vocab_size

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Tokenizer."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return _decode(
            ids, self.special, self.smask, lambda part: bytes(part).decode(errors="replace")
        )


def _with_specials(find: Callable[[str], int | None], size: int) -> tuple[SpecialTokens, int]:
    """Give every special token an id: the vocabulary's own, or a new one from `size` on."""
    ids: dict[str, int] = {}
    for name, text in SPECIAL_TEXTS.items():
        found = [find(other) for other in (text, *_OTHER_NAMES.get(name, ()))]
        ids[name] = next((token for token in found if token is not None), size)
        size = max(size, ids[name] + 1)
    return SpecialTokens(**ids), size


def _smask(find: Callable[[str], int | None], vocab_size: int) -> int:
    own = find(SMASK_TEXT)
    return vocab_size if own is None else own


def _cut_inside(
    encode: Callable[[str], list[int]], special: SpecialTokens
) -> re.Pattern[str] | None:
    """Pattern that cuts inside of the words that `encode` would turn into a special token; None if there are none.

    A text that speaks of "[MASK]" must not become a blank. Few vocabularies need this: those that list the word as
    an ordinary or user-defined piece.
    """
    texts = {*SPECIAL_TEXTS.values(), *(text for texts in _OTHER_NAMES.values() for text in texts)}
    ids = set(special.to_dict().values())
    read = [text for text in sorted(texts) if not ids.isdisjoint(encode(f"a {text} b"))]
    if not read:
        return None
    return re.compile(
        "|".join(f"(?<={re.escape(text[0])})(?={re.escape(text[1:])})" for text in read)
    )


def _encode_apart(
    encode: Callable[[str], list[int]], text: str, cut: re.Pattern[str] | None
) -> list[int]:
    if cut is None:
        return encode(text)
    return [token for part in cut.split(text) for token in encode(part)]


def _decode(
    ids: Sequence[int], special: SpecialTokens, smask: int, plain: Callable[[list[int]], str]
) -> str:
    """Decode runs of ordinary tokens, and write special ones by name."""
    names = {token: SPECIAL_TEXTS[name] for name, token in special.to_dict().items()}
    names[smask] = SMASK_TEXT
    parts: list[str] = []
    run: list[int] = []
    for token in ids:
        if token in names:
            parts += [plain(run) if run else "", names[token]]
            run = []
        else:
            run.append(int(token))
    return "".join(parts) + (plain(run) if run else "")


def _load_sentencepiece(path: Path, content: bytes) -> sentencepiece.SentencePieceProcessor:
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.load_from_serialized_proto(content)
    except RuntimeError as error:
        raise DataError(f"{path} is not a SentencePiece model ({error}).") from error
    return model


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"The tokenizer file {path} cannot be read: {error.strerror}.") from error


def _fingerprint(kind: str, content: bytes) -> str:
    return f"{kind}-{hashlib.blake2b(content, digest_size=16).hexdigest()}"
