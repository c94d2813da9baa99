"""What a source reads of a shard: all of its documents or a run of them, every token id checked against the vocabulary.

An id that the embedding does not have would otherwise end a run in the middle of the model, on a GPU without a name.
"""

# pyright: basic
# NumPy's index arithmetic has no useful types in strict mode.
import hashlib

import numpy as np

from configs.errors import DataError
from data_pipeline.permutation import Permutation
from data_pipeline.storage.document_index import DocumentIndex, DocumentSlice
from data_pipeline.storage.open_files import FileStamp, readable
from data_pipeline.storage.shards import ShardStream

# Each costs a search in the index. Where a tenth of a corpus's tokens lie in documents without an end, all of these
# looks miss them once in 800 times; where the flag was forgotten or the id is another, the first one tells.
_DOCUMENTS_LOOKED_AT = 64


class ShardPart:
    """Tokens of a run of documents of one shard (a data_pipeline.dataset.TokenStream).

    Args:
        shard: the whole shard.
        vocab_size: every id lies below it.
        documents: first document and one past the last; None: all.
    """

    def __init__(
        self, shard: ShardStream, vocab_size: int, documents: tuple[int, int] | None = None
    ) -> None:
        self.shard = shard
        self.documents = DocumentIndex(shard.prefix, shard.index)
        """The documents' borders in the whole shard."""
        self._vocab_size = vocab_size
        self._start, self._stop = 0, len(shard)
        if documents is not None:
            self._start, self._stop = (self.documents.start_of(border) for border in documents)
            if self._start > self._stop:
                raise DataError(
                    f"{shard.prefix}.idx is damaged: document {documents[1]:,} begins before document {documents[0]:,}. "
                    "Prepare the corpus again, or copy it anew."
                )

    def __len__(self) -> int:
        """Number of tokens."""
        return self._stop - self._start

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop): (stop - start,) of the file's integer type.

        Raises:
            DataError: the file cannot be read, or has become shorter, or an id lies outside of the vocabulary.
        """
        first = self._start + max(start, 0)
        tokens = self.shard.read(first, self._start + min(stop, len(self)))
        place = unknown_id(tokens, self._vocab_size)
        if place is not None:
            found = describe_unknown_id(self.shard, first + place, int(tokens[place]))
            raise DataError(
                f"{found}; the vocabulary has {self._vocab_size:,}. The file is damaged (python -m data_pipeline verify "
                f"{self.shard.prefix}) or was made with another tokenizer: name that one with data.tokenizer=SPEC."
            )
        return tokens

    def pieces(self, start: int, stop: int) -> list[DocumentSlice]:
        """The documents, numbered in the whole shard, that tokens [start, stop) are taken from."""
        return self.documents.pieces(self._start + start, self._start + stop)

    @property
    def stamps(self) -> dict[str, FileStamp]:
        """Size and time of both files when they were opened, by ending."""
        return {"bin": self.shard.stamp, "idx": self.documents.stamp}

    def current_stamps(self) -> dict[str, FileStamp]:
        """Size and time of the same open files now.

        Raises:
            StorageError: the file system failed.
        """
        with readable(f"{self.shard.prefix}.bin or .idx"):
            return {
                "bin": FileStamp.of(self.shard.file),
                "idx": FileStamp.of(self.documents.file),
            }

    def check_ends(self, eos: int) -> None:
        """Look at documents all over a plain Megatron corpus: each must end with `eos`, as ours do.

        Raises:
            DataError: one of them does not.
        """
        if self.shard.info is not None or not len(self):
            return
        place_of = Permutation.of(len(self), 0, "document ends")
        for number in range(min(len(self), _DOCUMENTS_LOOKED_AT)):
            document = self.documents.document_at(self._start + place_of(number))
            end = self.documents.start_of(document + 1)
            last = int(self.shard.read(end - 1, end)[0])
            if last != eos:
                raise DataError(
                    f"objective.documents=isolated needs documents that end with eos ({eos}), but document {document:,} "
                    f"of {self.shard.prefix} ends with token {last}. Make the corpus again with --append-eod, name the "
                    "tokenizer that it was made with (data.tokenizer=SPEC), or let rows go across documents: "
                    "objective.documents=crossed."
                )

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the shard, with the range of the documents."""
        if len(self) == len(self.shard):
            return self.shard.fingerprint
        text = f"{self.shard.fingerprint} {self._start} {self._stop}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def hold_out_tail(shard: ShardStream, share: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """Divide the documents of a shard that has no held-out one: the last of them, by tokens, are held out.

    Args:
        shard: at least two documents with tokens.
        share: of the tokens to hold out, to the nearest document before.

    Returns:
        Documents [first, last) for training, and those held out; neither is empty.

    Raises:
        DataError: there is only one document.
    """
    index = DocumentIndex(shard.prefix, shard.index)
    final = len(shard) - 1
    first, last = (index.document_at(0), index.document_at(final)) if len(shard) else (0, 0)
    if first == last:
        raise DataError(
            f"{shard.prefix} has only one document with text, so none can be held out. Name a validation corpus: "
            "data.valid_paths=[PREFIX_OR_FILE]."
        )
    border = index.document_at(min(int(len(shard) * (1 - share)), final))
    border = min(max(border, first + 1), last)
    return (0, border), (border, shard.num_documents)


def unknown_id(tokens: np.ndarray, vocab_size: int) -> int | None:
    """Find the first id outside of [0, vocab_size): its place in (n,) `tokens`, None if there is none."""
    if not len(tokens) or (int(tokens.min()) >= 0 and int(tokens.max()) < vocab_size):
        return None
    return int(((tokens < 0) | (tokens >= vocab_size)).argmax())


def describe_unknown_id(shard: ShardStream, place: int, token: int) -> str:
    """Begin a message about a token id that is not in the vocabulary, found at token `place` of the shard."""
    offset = place * shard.index.dtype.itemsize
    return f"{shard.prefix}.bin has token id {token} at token {place:,} (byte {offset:,})"
