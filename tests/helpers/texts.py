"""Small corpora of text, the same every time."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_VOCABULARY = "the cat sat on a red mat and blue birds sang over seven quiet hills while rain fell"


def sentences(count: int, seed: int = 0) -> list[str]:
    """`count` different documents of 5 to 39 words."""
    rng = np.random.default_rng(seed)
    texts = []
    for number in range(count):
        words = rng.choice(_VOCABULARY.split(), size=int(rng.integers(5, 40)))
        texts.append(f"{number}: {' '.join(words)}.")
    return texts


def write_jsonl(path: Path, texts: Sequence[str]) -> Path:
    """Write a corpus, unless it is there: an unchanged file keeps its time, by which it is known again."""
    content = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    if not path.is_file() or path.read_text() != content:
        path.write_text(content)
    return path


def sentencepiece_model(**options: object) -> bytes:
    """A small SentencePiece model of these words."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(100)),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"vocab_size": 60, **options},
    )
    return model.getvalue()


def shard_bytes(prefix: Path) -> dict[str, bytes]:
    """Content of every file that belongs to a prefix, the held-out shard and the tokenizer included."""
    files = (path for path in prefix.parent.rglob("*") if path.is_file())
    return {str(path.relative_to(prefix.parent)): path.read_bytes() for path in sorted(files)}
