"""Token shards as our writer makes them, and as Megatron's does."""

from pathlib import Path

import numpy as np
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from data_pipeline.storage.shard_writer import ShardWriter
from data_pipeline.storage.shards import withdraw
from data_pipeline.tokenizer import ByteTokenizer

EOS = 260  # of the byte tokenizer
DOCUMENTS = [[1, 2, 3], [4], [], [5, 6, 7, 8, 9]]


def write(prefix: Path, documents: list[list[int]] = DOCUMENTS, vocab_size: int = 262) -> None:
    """Publish a shard of these documents, each with its EOS."""
    tokenizer = ByteTokenizer()
    tokenizer.vocab_size = vocab_size
    writer = ShardWriter(prefix, tokenizer, "bytes", ["here.txt"], Path(f"{prefix}.making"))
    for document in documents:
        writer.append(np.array([*document, EOS]), np.array([[len(document) + 1]]))
    writer.finish({"empty": 2})
    withdraw(prefix)
    writer.publish()
    writer.discard()


def write_with_megatron(prefix: Path, documents: list[list[list[int]]], dtype=np.int32) -> None:
    """Write documents of sentences."""
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for sentences in documents:
        for sentence in sentences:
            builder.add_item(torch.tensor(sentence))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")
