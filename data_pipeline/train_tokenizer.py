"""A tokenizer of one's own: byte-level BPE with the special tokens of blank infilling, trained in seconds."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from configs.errors import DataError
from data_pipeline.special_tokens import SPECIAL_TEXTS

_SMALLEST = 256 + len(SPECIAL_TEXTS)


def train_tokenizer(texts: Iterable[str], output: Path, vocab_size: int) -> None:
    """Train a byte-level BPE and write it as a tokenizer.json.

    Args:
        texts: the corpus, or a sample of it.
        output: file to write; its folder exists.
        vocab_size: size wanted, special tokens included; a small corpus may yield less.

    Raises:
        DataError: the vocabulary cannot even hold the bytes.
    """
    if vocab_size < _SMALLEST:
        raise DataError(
            f"A vocabulary of {vocab_size} cannot hold 256 bytes and {len(SPECIAL_TEXTS)} special tokens. "
            f"Try model.vocab_size={_SMALLEST} or more."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TEXTS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(output))
