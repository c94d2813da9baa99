"""From `data.paths` to token shards, made once in the user's cache and found again by every rank and every attempt."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from configs.errors import ConfigError, DataError, RecordError, StorageError
from configs.schema import DataConfig
from data_pipeline.cache import Report, cache_folder, make_once
from data_pipeline.preparation.inputs import identity, is_on_hub, read_documents
from data_pipeline.preparation.make_part import Settings
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.progress import console_meter
from data_pipeline.preparation.train_tokenizer import SAMPLE_CHARACTERS, sampled, train_tokenizer
from data_pipeline.preparation.workers import num_cores
from data_pipeline.storage.shard_part import hold_out_tail
from data_pipeline.storage.shards import is_shard, open_stream, read_index, read_info
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from data_pipeline.tokenizer import keep_tokenizer as keep_tokenizer
from data_pipeline.tokenizer_spec import join_spec, split_spec, with_roles

# Part of every key in the cache: raised when the same corpus would now be prepared otherwise.
_FORMAT_VERSION = 6


@dataclass(frozen=True)
class CorpusShard:
    """Where the shards of one corpus are."""

    name: str
    prefix: str
    weight: float | None
    documents: tuple[int, int] | None = None
    """First document to read and one past the last; None: all documents."""


@dataclass(frozen=True)
class Corpora:
    """Everything that training reads."""

    train: list[CorpusShard]
    valid: list[CorpusShard]
    tokenizer: str
    """Spec of the tokenizer that all the shards were made with."""
    instructions: list[CorpusShard] = field(default_factory=list[CorpusShard])
    valid_instructions: list[CorpusShard] = field(default_factory=list[CorpusShard])


_Obtain = Callable[[Path, Callable[[Path], None], Report, Callable[[Path], bool]], Path]
"""As `cache.make_once`."""


def ensure_prepared(
    config: DataConfig,
    vocab_size: int,
    report: Report,
    obtain: _Obtain = make_once,
    typed: Sequence[str] | None = None,
    own: str | None = None,
    held_out_only: bool = False,
) -> Corpora:
    """Find the shards of a run, preparing what is not there yet.

    Every rank calls this: the first one works, the others wait.

    Args:
        config: paths, tokenizer, held-out share.
        vocab_size: `model.vocab_size`: the size of a tokenizer that has to be trained, and the limit for a given one.
        report: called with a line that says what is being made and where.
        obtain: returns a folder of the cache; commands that only read pass a function that makes nothing.
        typed: the overrides on the command line, if `config` comes from a checkpoint or a run: nothing is fetched from
            the hub because a file says so. None: all of `config` is the user's own.
        own: spec of the tokenizer that the run's weights were trained with, used if `config` names none.
        held_out_only: prepare nothing that a held-out loss does not need: training text is left alone, and not named in
            what is returned, if `data.valid_paths` holds the text to be measured.

    Raises:
        DataError: a corpus cannot be used.
        ConfigError: the tokenizer has more tokens than the model.
    """
    needs_training_text = not (held_out_only and config.valid_paths is not None)
    texts = _all_paths(config) if needs_training_text else _held_out_paths(config)
    _check(config, texts, held_out_of=config.paths if needs_training_text else [])
    if not all(map(is_shard, texts)):
        config = replace(config, cache_dir=str(cache_folder(config.cache_dir, report)))

    def obtain_for(key: str, *paths: str) -> _Obtain:
        return _refusing(key, paths, obtain) if _is_foreign(key, paths, typed) else obtain

    spec = (
        config.tokenizer
        or own
        or _trained_tokenizer(config, vocab_size, report, obtain_for("data.paths", *config.paths))
    )
    tokenizer = load_tokenizer(with_roles(spec, named_roles(config)))
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            [
                f"model.vocab_size ({vocab_size:,}) must be at least the tokenizer's ({tokenizer.vocab_size:,}). "
                f"Try model.vocab_size={tokenizer.vocab_size}."
            ]
        )
    # With a validation corpus of its own, nothing needs to be held out.
    held_out = config.valid_fraction if config.valid_paths is None else 0.0
    names = _names(config.paths)
    weights = config.weights or [None] * len(config.paths)
    train: list[CorpusShard] = []
    valid: list[CorpusShard] = []
    for path, name, weight in zip(config.paths, names, weights, strict=True):
        if not needs_training_text:
            continue
        obtained = obtain_for("data.paths", path)
        prefix = _shard(path, config, (config.text_key,), tokenizer, held_out, report, obtained)
        kept = None
        if config.valid_paths is None and _is_plain(path):
            kept, held = hold_out_tail(open_stream(path), held_out)
            report(f"{path}: documents {held[0]:,} to {held[1] - 1:,}, its last, are held out")
            valid.append(CorpusShard(name, path, None, held))
        elif config.valid_paths is None:
            valid.append(CorpusShard(name, f"{prefix}.valid", None))
        train.append(CorpusShard(name, prefix, weight, kept))
    if config.valid_paths is None:
        _tell_overlap(train, report)
    valid_paths = config.valid_paths or []
    for path, name in zip(valid_paths, _names(valid_paths), strict=True):
        obtained = obtain_for("data.valid_paths", path)
        prefix = _shard(path, config, (config.text_key,), tokenizer, 0.0, report, obtained)
        valid.append(CorpusShard(name, prefix, None))
    obtained = obtain_for("data.instructions", *config.instructions)
    shards = _instruction_shards(config, tokenizer, report, obtained)
    return Corpora(train, valid, tokenizer.spec, *shards)


def _is_foreign(key: str, paths: Sequence[str], typed: Sequence[str] | None) -> bool:
    """True if a corpus would be fetched from the hub that the user has not named."""
    if typed is None or any(word.lstrip("+").startswith(f"{key}=") for word in typed):
        return False
    return any(is_on_hub(path) and not is_shard(path) for path in paths)


def _refusing(key: str, paths: Sequence[str], obtain: _Obtain) -> _Obtain:
    """Stand in for `obtain`: return a folder that exists already; nothing is made."""

    def obtain_or_refuse(
        folder: Path,
        make: Callable[[Path], None],
        report: Report,
        is_whole: Callable[[Path], bool],
    ) -> Path:
        if os.path.isdir(folder) and is_whole(folder):
            return obtain(folder, make, report, is_whole)
        names = ",".join(path for path in paths if is_on_hub(path))
        raise DataError(
            f"The stored configuration names data of the hub ({key}: {names}), and nothing is fetched because a file says "
            f"so. To fetch it type {key}=[{','.join(paths)}], or measure texts of your own: data.paths=FILE "
            "data.valid_paths=FILE."
        )

    return obtain_or_refuse


def named_roles(config: DataConfig) -> dict[str, str]:
    """Texts of the special tokens that a configuration names, by role."""
    return {role: text for role, text in asdict(config.special_tokens).items() if text is not None}


def tokenizer_of(prefix: str) -> str:
    """Spec of the tokenizer that a shard was made with.

    Raises:
        DataError: it is a plain Megatron corpus.
    """
    info = read_info(prefix)
    if info is None:
        raise DataError(
            f"{prefix} is a plain Megatron corpus: its tokenizer is not known. Name it: data.tokenizer=hf:FILE."
        )
    kind, name, named = split_spec(info.tokenizer)
    return join_spec(kind, str(Path(prefix).parent / name) if name else "", named)


def _held_out_paths(config: DataConfig) -> list[str]:
    return [*(config.valid_paths or []), *config.instructions]


def _all_paths(config: DataConfig) -> list[str]:
    return [*config.paths, *_held_out_paths(config)]


def check_paths(config: DataConfig) -> None:
    """Check all paths before work on the first one begins.

    Raises:
        DataError: a corpus is not there, or has no held-out part.
    """
    _check(config, _all_paths(config), held_out_of=config.paths)


def _check(config: DataConfig, paths: list[str], held_out_of: list[str]) -> None:
    for path in paths:
        if not is_shard(path):
            identity(path)
    if config.valid_paths is not None:
        return
    for path in held_out_of:
        if _is_plain(path) or not is_shard(path):
            is_held_out = config.valid_fraction > 0
        elif is_shard(f"{path}.valid"):
            is_held_out = True
        else:
            raise DataError(
                f"{path} has no held-out shard ({path}.valid.idx). Name one: data.valid_paths=[PREFIX_OR_FILE]."
            )
        if not is_held_out:
            raise DataError(
                f"Nothing is held out of {path} (data.valid_fraction=0). Try data.valid_fraction=0.05, or name a "
                "validation corpus: data.valid_paths=[PREFIX_OR_FILE]."
            )


def _tell_overlap(train: list[CorpusShard], report: Report) -> None:
    """Warn if a text that one corpus holds out could be trained on because another corpus contains it too.

    A small corpus may hold out more than its share, to hold out anything at all; so this is a warning, not an error.
    """
    infos = [(shard.name, read_info(shard.prefix)) for shard in train]
    below = {
        name: info.held_out_below
        for name, info in infos
        if info is not None and info.held_out_below is not None
    }
    if len(set(below.values())) > 1:
        listed = ", ".join(f"{name} below {threshold:.4g}" for name, threshold in below.items())
        report(
            f"Corpora hold out different shares of texts ({listed}): a text that several of them have may be held out "
            "of one and trained on in another. Prepare them together, with one --valid-fraction, or name a validation "
            "corpus: data.valid_paths=[PREFIX_OR_FILE]"
        )


def _is_plain(path: str) -> bool:
    """True for a corpus of Megatron's, which has nothing but documents: the last of them are held out."""
    return is_shard(path) and not is_shard(f"{path}.valid") and read_info(path) is None


def _trained_tokenizer(config: DataConfig, vocab_size: int, report: Report, obtain: _Obtain) -> str:
    """Spec of the tokenizer that belongs to `paths`: the shards' own, or a BPE trained on the texts."""
    for path in config.paths:
        if is_shard(path):
            return tokenizer_of(path)
    key = _key("tokenizer", [identity(path) for path in config.paths], config.text_key, vocab_size)
    folder = Path(str(config.cache_dir)) / f"tokenizer-{key}"

    def make(making: Path) -> None:
        listed = ", ".join(config.paths)
        read = [_texts(path, config.text_key) for path in config.paths]
        sample = sampled(read, SAMPLE_CHARACTERS)
        file = making / "tokenizer.json"
        train_tokenizer(sample, file, vocab_size, listed, report=report, kept_in=folder)

    def is_whole(made: Path) -> bool:
        return _is_usable(lambda: load_tokenizer(f"hf:{made / 'tokenizer.json'}"))

    return f"hf:{obtain(folder, make, report, is_whole) / 'tokenizer.json'}"


def _instruction_shards(
    config: DataConfig, tokenizer: Tokenizer, report: Report, obtain: _Obtain
) -> tuple[list[CorpusShard], list[CorpusShard]]:
    """Training and held-out records; the held-out share does not depend on the validation corpus of the text."""
    train: list[CorpusShard] = []
    valid: list[CorpusShard] = []
    keys = (config.prompt_key, config.target_key)
    for path, name in zip(config.instructions, _names(config.instructions), strict=True):
        prefix = _shard(path, config, keys, tokenizer, config.valid_fraction, report, obtain)
        train.append(CorpusShard(name, prefix, None))
        if is_shard(f"{prefix}.valid"):
            valid.append(CorpusShard(name, f"{prefix}.valid", None))
        elif config.valid_fraction > 0:
            raise DataError(
                f"{path} has no held-out shard ({path}.valid.idx). Prepare it with --valid-fraction 0.05, or measure no "
                "held-out loss of instructions: data.valid_fraction=0 and data.valid_paths=[PREFIX_OR_FILE]."
            )
    return train, valid


def _shard(
    path: str,
    config: DataConfig,
    text_keys: tuple[str, ...],
    tokenizer: Tokenizer,
    valid_fraction: float,
    report: Report,
    obtain: _Obtain,
) -> str:
    """Prefix of a corpus's shards."""
    if is_shard(path):
        info = read_info(path)
        if info is not None and info.tokenizer_fingerprint != tokenizer.fingerprint:
            raise DataError(
                f"{path} was made with the tokenizer {info.tokenizer}, not {tokenizer.spec}. Prepare it again with "
                f"--tokenizer {tokenizer.spec}"
                + (
                    ", or leave data.tokenizer out."
                    if config.tokenizer
                    else ", which is the run's own."
                )
            )
        # A Megatron corpus of two sentences a document has the same form, but no PREFIX.json of ours.
        if len(text_keys) == 1 and info is not None and read_index(path).holds_records:
            raise DataError(
                f"{path} holds instruction records, whose prompts and targets would be trained as text. Name it "
                f"elsewhere: data.paths=CORPUS data.instructions=[{path}]"
            )
        return path
    fingerprint = tokenizer.fingerprint
    keys = text_keys[0] if len(text_keys) == 1 else text_keys
    key = _key("corpus", identity(path), keys, fingerprint, valid_fraction)
    folder = Path(str(config.cache_dir)) / f"corpus-{key}"

    def make(making: Path) -> None:
        report(f"Preparing {path}; its token shards are kept in {folder}")
        prepare(
            [path],
            making / "tokens",
            tokenizer,
            valid_fraction,
            Settings(text_keys=text_keys),
            workers=num_cores(),
            meter=console_meter(),
            parts_folder=folder.with_suffix(".parts"),  # found again if this start is killed
        )

    def is_whole(made: Path) -> bool:
        prefixes = [made / "tokens", *([made / "tokens.valid"] if valid_fraction else [])]
        return _is_usable(lambda: [_check_shard(str(prefix), tokenizer) for prefix in prefixes])

    return str(obtain(folder, make, report, is_whole) / "tokens")


def _check_shard(prefix: str, tokenizer: Tokenizer) -> None:
    info = open_stream(prefix).info
    if info is None or info.tokenizer_fingerprint != tokenizer.fingerprint:
        raise DataError(f"{prefix} is not what was prepared.")


def _is_usable(check: Callable[[], object]) -> bool:
    """True if something that was made can be read; a failing disk does not count as damage."""
    try:
        check()
    except StorageError:
        raise
    except (DataError, RecordError):
        return False
    return True


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


def _texts(path: str, text_key: str) -> Iterator[str]:
    return (text for (text,) in read_documents(path, [text_key]))
