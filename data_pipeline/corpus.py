"""From `data.paths` to token shards, made once in the user's cache and found again by every rank and every life."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig
from data_pipeline import python_docs
from data_pipeline.cache import cache_folder, make_once
from data_pipeline.documents import is_file_name, read_documents
from data_pipeline.prepare import prepare
from data_pipeline.shards import read_info
from data_pipeline.tokenizer import load_tokenizer
from data_pipeline.train_tokenizer import train_tokenizer

_FORMAT_VERSION = 1
# Characters that a tokenizer is trained on at most.
_TOKENIZER_SAMPLE = 50_000_000

Report = Callable[[str], None]


@dataclass(frozen=True)
class Shard:
    """Where one corpus lies."""

    name: str
    prefix: str
    weight: float | None


@dataclass(frozen=True)
class Corpora:
    """Everything that training reads."""

    train: list[Shard]
    valid: list[Shard]
    tokenizer: str
    """Spec of the tokenizer of all of them."""


def ensure_prepared(config: DataConfig, vocab_size: int, report: Report) -> Corpora:
    """Find the shards of a run, preparing what is not there yet.

    Every rank calls this: the first one works, the others wait.

    Args:
        config: paths, tokenizer, held-out share.
        vocab_size: `model.vocab_size`: of a tokenizer that has to be trained, and the limit for a given one.
        report: told, in one line, what is being made and where.

    Raises:
        DataError: a corpus cannot be used.
        ConfigError: the tokenizer has more tokens than the model.
    """
    tokenizer = config.tokenizer or _trained_tokenizer(config, vocab_size, report)
    loaded = load_tokenizer(tokenizer)
    if loaded.vocab_size > vocab_size:
        raise ConfigError(
            [
                f"model.vocab_size ({vocab_size:,}) must be at least the tokenizer's ({loaded.vocab_size:,}). "
                f"Try model.vocab_size={loaded.vocab_size}."
            ]
        )
    names = _names(config.paths)
    weights = config.weights or [None] * len(config.paths)
    train, valid = [], []
    for path, name, weight in zip(config.paths, names, weights, strict=True):
        prefix = _shard(path, config, tokenizer, config.valid_fraction, report)
        train.append(Shard(name, prefix, weight))
        if config.valid_paths is None:
            valid.append(Shard(name, _held_out(prefix), None))
    for path in config.valid_paths or []:
        valid.append(Shard(Path(path).name, _shard(path, config, tokenizer, 0.0, report), None))
    return Corpora(train, valid, tokenizer)


def is_shard_prefix(path: str) -> bool:
    """True if PREFIX.idx exists."""
    return Path(f"{path}.idx").is_file()


def keep_tokenizer(spec: str, folder: Path) -> None:
    """Copy a tokenizer's file into `folder`, with a spec.txt that names it there."""
    folder.mkdir(parents=True, exist_ok=True)
    kind, _, name = spec.partition(":")
    if name:
        shutil.copyfile(name, folder / Path(name).name)
    (folder / "spec.txt").write_text(f"{kind}:{Path(name).name}\n" if name else f"{kind}\n")


def _trained_tokenizer(config: DataConfig, vocab_size: int, report: Report) -> str:
    """Spec of the tokenizer that belongs to `paths`: the shards' own, or a BPE trained on the texts."""
    for path in config.paths:
        if is_shard_prefix(path):
            return _tokenizer_of(path)
    key = _key("tokenizer", [_identity(path) for path in config.paths], config.text_key, vocab_size)

    def make(folder: Path) -> None:
        report(f"Training a tokenizer of {vocab_size:,} tokens in {folder.parent}")
        texts = chain.from_iterable(read_documents(path, config.text_key) for path in config.paths)
        sample = list(_limited(texts, _TOKENIZER_SAMPLE))
        if not any(text.strip() for text in sample):
            raise DataError(f"{', '.join(config.paths)} has no text. Check data.paths.")
        train_tokenizer(sample, folder / "tokenizer.json", vocab_size)

    folder = make_once(cache_folder(config.cache_dir) / f"tokenizer-{key}", make)
    return f"hf:{folder / 'tokenizer.json'}"


def _shard(
    path: str, config: DataConfig, tokenizer: str, valid_fraction: float, report: Report
) -> str:
    """Prefix of a corpus's shards."""
    if is_shard_prefix(path):
        info = read_info(path)
        if info is not None and info.tokenizer_fingerprint != load_tokenizer(tokenizer).fingerprint:
            raise DataError(
                f"{path} was made with the tokenizer {info.tokenizer}, not {tokenizer}. Prepare it again, or leave "
                "data.tokenizer out."
            )
        return path
    fingerprint = load_tokenizer(tokenizer).fingerprint
    key = _key("corpus", _identity(path), config.text_key, fingerprint, valid_fraction)

    def make(folder: Path) -> None:
        report(f"Preparing {path} in {folder.parent}")
        prepare(
            read_documents(path, config.text_key),
            folder / "tokens",
            load_tokenizer(tokenizer),
            tokenizer,
            valid_fraction,
        )

    folder = make_once(cache_folder(config.cache_dir) / f"corpus-{key}", make)
    return str(folder / "tokens")


def _held_out(prefix: str) -> str:
    if not is_shard_prefix(f"{prefix}.valid"):
        raise DataError(
            f"{prefix} has no held-out shard ({prefix}.valid.idx). Name one: data.valid_paths=PREFIX_OR_FILE"
        )
    return f"{prefix}.valid"


def _tokenizer_of(prefix: str) -> str:
    info = read_info(prefix)
    if info is None:
        raise DataError(
            f"{prefix} is a plain Megatron corpus: its tokenizer is not known. Name it: data.tokenizer=hf:FILE"
        )
    kind, _, name = info.tokenizer.partition(":")
    return f"{kind}:{Path(prefix).parent / name}" if name else kind


def _identity(path: str) -> list[str | int]:
    """What makes a corpus the same one: size and time of a file, the Python version for its documentation."""
    if path == python_docs.NAME:
        return [path, sys.version]
    if is_file_name(path):
        if not Path(path).is_file():
            raise DataError(f"The corpus {path} does not exist. Check data.paths.")
        status = Path(path).stat()
        return [str(Path(path).resolve()), status.st_size, status.st_mtime_ns]
    return [path]


def _names(paths: list[str]) -> list[str]:
    """Short unique names: they key the order of samples, so they must not depend on folders."""
    names: list[str] = []
    for path in paths:
        name, number = Path(path).name, 1
        while name in names:
            number += 1
            name = f"{Path(path).name}-{number}"
        names.append(name)
    return names


def _key(*parts: object) -> str:
    text = json.dumps([_FORMAT_VERSION, *parts])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _limited(texts: Iterator[str], characters: int) -> Iterator[str]:
    for text in texts:
        yield text
        characters -= len(text)
        if characters < 0:
            return
