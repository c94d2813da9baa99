"""Text to token ids and back, through one door: `hf:FILE`, `sp:FILE`, `icetk:FILE` or `bytes`.

Whatever the vocabulary, the six special tokens of blank infilling get ids: those it already has keep theirs, missing
ones are appended after it.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import sentencepiece
import tokenizers

from configs.errors import DataError
from data_pipeline.special_tokens import SPECIAL_TEXTS, SpecialTokens

SPECS = "hf:FILE, sp:FILE, icetk:FILE or bytes"

# GLM-130B's vocabulary: SentencePiece ids are shifted by the 20,000 image tokens, specials follow the 150,000.
_ICETK_OFFSET = 20000
_ICETK_NUM_TOKENS = 150000
_ICETK_SPECIAL = SpecialTokens(
    mask=150000, gmask=150001, sop=150004, eop=150005, eos=20002, pad=0
)


class Tokenizer(Protocol):
    """What the project asks of a tokenizer."""

    spec: str
    special: SpecialTokens
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


def load_tokenizer(spec: str) -> Tokenizer:
    """Load a tokenizer.

    Raises:
        DataError: the spec is of no known form, or its file cannot be read.
    """
    kind, _, name = spec.partition(":")
    loaders = {"hf": HuggingFaceTokenizer, "sp": SentencePieceTokenizer, "icetk": IceTokenizer}
    if spec == "bytes":
        return ByteTokenizer()
    if kind not in loaders or not name:
        raise DataError(f'The tokenizer "{spec}" is of no known form. Type data.tokenizer={SPECS}.')
    if not Path(name).is_file():
        raise DataError(f"The tokenizer file {name} does not exist. Check data.tokenizer={spec}.")
    return loaders[kind](Path(name))


class HuggingFaceTokenizer:
    """A `tokenizer.json` of the Hugging Face tokenizers library."""

    def __init__(self, path: Path) -> None:
        self.spec = f"hf:{path}"
        content = _read(path)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"{path} is not a tokenizer.json: {error}") from error
        size = self._tokenizer.get_vocab_size()
        known = {
            name: self._tokenizer.token_to_id(text) for name, text in SPECIAL_TEXTS.items()
        }
        self.special, self.vocab_size = _with_specials(known, size)
        self.fingerprint = _fingerprint("hf", content)

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Tokenizer."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return _decode(
            ids,
            self.special,
            lambda plain: self._tokenizer.decode(plain, skip_special_tokens=False),
        )


class SentencePieceTokenizer:
    """A SentencePiece model."""

    def __init__(self, path: Path) -> None:
        self.spec = f"sp:{path}"
        content = _read(path)
        self._model = _load_sentencepiece(path, content)
        pieces = {self._model.id_to_piece(i): i for i in range(self._model.get_piece_size())}
        known = {name: pieces.get(text) for name, text in SPECIAL_TEXTS.items()}
        self.special, self.vocab_size = _with_specials(known, len(pieces))
        self.fingerprint = _fingerprint("sp", content)

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return self._model.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Tokenizer."""
        return self._model.encode(list(texts))

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return _decode(ids, self.special, self._model.decode)


class IceTokenizer:
    """GLM-130B's `ice_text.model`, given as a local file, with the ids of the released weights.

    Newlines become `<n>`, tabs and runs of blanks their own pieces, as the original tokenizer does before
    SentencePiece sees the text.
    """

    special = _ICETK_SPECIAL
    vocab_size = 150528

    def __init__(self, path: Path) -> None:
        self.spec = f"icetk:{path}"
        content = _read(path)
        self._model = _load_sentencepiece(path, content)
        self.fingerprint = _fingerprint("icetk", content)

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return [token + _ICETK_OFFSET for token in self._model.encode(_to_ice(text))]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Tokenizer."""
        encoded = self._model.encode([_to_ice(text) for text in texts])
        return [[token + _ICETK_OFFSET for token in ids] for ids in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        text_ids = range(_ICETK_OFFSET, _ICETK_NUM_TOKENS)

        def plain(part: Sequence[int]) -> str:
            return self._model.decode([i - _ICETK_OFFSET for i in part if i in text_ids])

        return _from_ice(_decode(ids, self.special, plain))


class ByteTokenizer:
    """UTF-8 bytes, ids 0 to 255: no file, no training."""

    spec = "bytes"
    fingerprint = "bytes-1"

    def __init__(self) -> None:
        self.special, self.vocab_size = _with_specials(dict.fromkeys(SPECIAL_TEXTS), 256)

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See Tokenizer."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return _decode(ids, self.special, lambda part: bytes(part).decode(errors="replace"))


def _with_specials(known: dict[str, int | None], size: int) -> tuple[SpecialTokens, int]:
    """Give every special token an id, new ones from `size` on."""
    ids: dict[str, int] = {}
    for name in SPECIAL_TEXTS:
        token = known[name]
        if token is None:
            token, size = size, size + 1
        ids[name] = token
    return SpecialTokens(**ids), size


def _decode(ids: Sequence[int], special: SpecialTokens, plain: Callable[[list[int]], str]) -> str:
    """Decode runs of ordinary tokens, and write special ones by name."""
    names = {token: SPECIAL_TEXTS[name] for name, token in special.to_dict().items()}
    text, run = "", []
    for token in ids:
        if token in names:
            text += (plain(run) if run else "") + names[token]
            run = []
        else:
            run.append(int(token))
    return text + (plain(run) if run else "")


def _load_sentencepiece(path: Path, content: bytes) -> sentencepiece.SentencePieceProcessor:
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.load_from_serialized_proto(content)
    except RuntimeError as error:
        raise DataError(f"{path} is not a SentencePiece model: {error}") from error
    return model


def _to_ice(text: str) -> str:
    text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
    for count in range(80, 1, -1):
        text = text.replace(" " * count, f"<|blank_{count}|>")
    return text


def _from_ice(text: str) -> str:
    text = text.replace("<n>", "\n").replace("<|tab|>", "\t")
    for count in range(80, 1, -1):
        text = text.replace(f"<|blank_{count}|>", " " * count)
    return text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"The tokenizer file {path} cannot be read: {error.strerror}.") from error


def _fingerprint(kind: str, content: bytes) -> str:
    return f"{kind}-{hashlib.blake2b(content, digest_size=16).hexdigest()}"
