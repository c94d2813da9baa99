"""A tokenizer of one's own: byte-level BPE with the special tokens of blank infilling, trained in seconds.

The same texts in the same order give the same file.
"""

import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from configs.errors import DataError
from data_pipeline.special_tokens import SPECIAL_TEXTS

_SMALLEST = 256 + len(SPECIAL_TEXTS)


def train_tokenizer(
    texts: Iterable[str], output: Path, vocab_size: int, corpus: str = "the corpus"
) -> int:
    """Train a byte-level BPE and write it as a tokenizer.json.

    Args:
        texts: the corpus, or a sample of it.
        output: file to write; its folder exists. It appears when it is complete.
        vocab_size: size wanted, special tokens included; a small corpus may yield less.
        corpus: what it is called in a message.

    Returns:
        Size of the vocabulary.

    Raises:
        DataError: the vocabulary cannot even hold the bytes, there is no text, or the file cannot be written.
    """
    if vocab_size < _SMALLEST:
        raise DataError(
            f"A vocabulary of {vocab_size} cannot hold 256 bytes and {len(SPECIAL_TEXTS)} special tokens. Try "
            f"model.vocab_size={_SMALLEST} or more (--vocab-size)."
        )
    with_text = (text for text in texts if text.strip())
    first = next(with_text, None)
    if first is None:
        raise DataError(f"There is no text in {corpus} to train a tokenizer on. Check its path.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TEXTS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain([first], with_text), trainer)
    partial = output.with_name(f"{output.name}.part")
    try:
        partial.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        os.replace(partial, output)
    except OSError as error:
        raise DataError(
            f"The tokenizer {output} cannot be written ({error.strerror}). Choose another place."
        ) from error
    return tokenizer.get_vocab_size()
