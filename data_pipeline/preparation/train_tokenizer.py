"""Training a tokenizer, for any mixture of languages: byte-level BPE, or a unigram model like GLM-130B's.

Both know the special tokens of blank infilling and every text: what is not in the vocabulary is written as bytes. The
same texts in the same order give the same file, whatever the number of cores.
"""

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from configs.errors import DataError
from data_pipeline.special_tokens import SPECIAL_TEXTS

KINDS = ("bpe", "unigram")
# Characters that a tokenizer is trained on at most, if nothing else is asked for: more change little, and both
# trainers hold the text in memory.
SAMPLE_CHARACTERS = 50_000_000

_SMALLEST = 256 + len(SPECIAL_TEXTS)
# Both trainers count in 32 bits.
_LARGEST = 2**31 - 1
# Scripts without blanks between words are cut off from what stands beside them: a name in Latin letters within a
# Chinese sentence is a word of its own.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]+"
# The expected counts are summed by thread: their number is part of the result.
_UNIGRAM_THREADS = 4
_LONGEST_LINE = 4000
# A word is merged pair by pair, for each token that is learnt: one of a million blanks would take hours. No language has
# such a word; texts are cut inside of it.
_LONGEST_WORD = 1000
_LONG_WORD = re.compile(rf"\s{{{_LONGEST_WORD}}}(?=\s)|\S{{{_LONGEST_WORD}}}(?=\S)")


def train_tokenizer(
    texts: Iterable[str],
    output: Path,
    vocab_size: int,
    corpus: str = "the corpus",
    kind: str = "bpe",
    report: Callable[[str], None] = lambda _: None,
    kept_in: Path | None = None,
) -> int:
    """Train a tokenizer and write its file.

    Args:
        texts: the corpus, or a sample of it.
        output: file to write; its folder exists. It appears when it is complete.
        vocab_size: size wanted, special tokens included; a small corpus may yield less.
        corpus: name of the corpus in messages.
        kind: bpe (a tokenizer.json, to be named hf:FILE) or unigram (a SentencePiece model, sp:FILE).
        report: called with a line when the work begins, and if the vocabulary is smaller than asked for.
        kept_in: folder where the tokenizer will be kept, for that line; None: the user has named `output`.

    Returns:
        Size of the vocabulary.

    Raises:
        DataError: the vocabulary cannot even hold the bytes, there is no text, or the file cannot be written.
    """
    if vocab_size < _SMALLEST:
        raise DataError(
            f"A vocabulary of {vocab_size} cannot hold 256 bytes and {len(SPECIAL_TEXTS)} special tokens. Try "
            f"model.vocab_size={_SMALLEST} or more."
        )
    if vocab_size > _LARGEST:
        raise DataError(
            f"A vocabulary of {vocab_size:,} is more than a token id can count. Try --vocab-size {_LARGEST} or less."
        )
    with_text = (text for text in texts if text.strip())
    first = next(with_text, None)
    if first is None:
        raise DataError(f"There is no text in {corpus} to train a tokenizer on. Check its path.")
    where = " ..." if kept_in is None else f"; it is kept in {kept_in}"
    report(f"Training a tokenizer of {vocab_size:,} tokens on {corpus}{where}")
    trainer: Callable[[Iterable[str], int], tuple[bytes, int]]
    trainer = _train_bpe if kind == "bpe" else _train_unigram
    content, size = trainer(chain([first], with_text), vocab_size)
    partial = output.with_name(f"{output.name}.part")
    try:
        partial.write_bytes(content)
        os.replace(partial, output)
    except OSError as error:
        raise DataError(
            f"The tokenizer {output} cannot be written ({error.strerror}). Choose another place."
        ) from error
    if size < vocab_size:
        report(
            f"The tokenizer has {size:,} tokens instead of {vocab_size:,}: the text holds no more pieces that repeat."
        )
    return size


def sampled(corpora: list[Iterator[str]], characters: int) -> Iterator[str]:
    """The beginning of each corpus, in equal shares, so that a language with little text is represented as well."""
    for texts in corpora:
        left = characters // len(corpora)
        for text in texts:
            yield text[:left]
            left -= len(text)
            if left <= 0:
                break


def _train_bpe(texts: Iterable[str], vocab_size: int) -> tuple[bytes, int]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_UNSPACED), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TEXTS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_pieces(texts), trainer)
    return tokenizer.to_str(pretty=True).encode(), tokenizer.get_vocab_size()


def _train_unigram(texts: Iterable[str], vocab_size: int) -> tuple[bytes, int]:
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=written,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=True,
            # Text comes back as it was: nothing is normalised, no blank is added or dropped.
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            control_symbols=list(SPECIAL_TEXTS.values()),
            user_defined_symbols=["\n", "\t"],
            max_sentence_length=4 * _LONGEST_LINE,
            num_threads=_UNIGRAM_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        needed = re.search(r"(\d+) vs (\d+)", str(error))
        if needed is None:
            raise
        raise DataError(
            f"A unigram vocabulary of {vocab_size:,} cannot hold the characters of this text. Try --vocab-size "
            f"{needed[2]} or more."
        ) from error
    model = sentencepiece.SentencePieceProcessor()
    model.load_from_serialized_proto(written.getvalue())
    return written.getvalue(), model.get_piece_size()


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """Texts, cut inside of words that are too long to learn from."""
    for text in texts:
        start = 0
        for word in _LONG_WORD.finditer(text):
            yield text[start : word.end()]
            start = word.end()
        yield text[start:]


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """What the trainer takes as sentences; it would pass over longer ones."""
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), _LONGEST_LINE):
                yield line[start : start + _LONGEST_LINE]
