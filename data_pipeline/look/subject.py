"""Opens what `show` and `stats` are asked to look at: a run, a configuration, or one prefix of token shards."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from configs.errors import DataError
from configs.interventions import skipped_by
from configs.load import apply_overrides, load_config
from configs.nearby import did_you_mean, runs_and_shards_near
from configs.percent import percent
from configs.run_paths import CONFIG, RunPaths
from configs.schema import Config
from configs.terminal import tell
from data_pipeline.cache import Report
from data_pipeline.corpus import Corpora, CorpusShard, ensure_prepared, tokenizer_of
from data_pipeline.dataset import GLMDataset
from data_pipeline.look.run_record import (
    changed_data,
    check_same_data,
    step_of,
    stored_config,
)
from data_pipeline.opening import open_dataset
from data_pipeline.sampler import trained_position
from data_pipeline.storage.shards import is_shard, open_stream
from data_pipeline.tokenizer import Tokenizer, kept_tokenizer, load_tokenizer

# The row length for a shard that is opened without a run: rows that fit a screen.
_LENGTH = "model.seq_length"
_SCREEN = f"{_LENGTH}=512"


@dataclass(frozen=True)
class Target:
    """The data set that a command looks at, and where it comes from."""

    name: str
    config: Config
    dataset: GLMDataset
    tokenizer: Tokenizer
    is_validation: bool
    run_folder: Path | None
    has_own_length: bool = False
    """True if the length of the rows is a run's, or was typed; False if it is the default."""
    is_as_trained: bool = True
    """False if the run has drawn other samples than those shown, which the user has asked for."""

    @property
    def remark(self) -> str | None:
        """A note on the default length of the rows and how to change it, for output where nobody has chosen it."""
        if self.has_own_length:
            return None
        length = self.config.model.seq_length
        return (
            f"Rows of {length:,} tokens; for another length type model.seq_length=N, or name a run."
        )

    def facts(self, index: int) -> list[tuple[str, str]]:
        """Why the sample at `index` of the data stream is what it is, and what the run makes of it: (name, text) rows."""
        config, objective = self.config, self.config.objective
        keys = {
            "seed": config.seed,
            "model.seq_length": config.model.seq_length,
            "objective.gmask_share": objective.gmask_share,
            **({"objective.shares": objective.shares} if objective.shares else {}),
            "objective.slice_rule": objective.slice_rule.value,
            "objective.windows_per_row": objective.windows_per_row,
        }
        facts = [("made by", " ".join(f"{key}={value}" for key, value in keys.items()))]
        shares = self.dataset.shares_at(index)
        if len(shares) > 1:
            listed = ", ".join(f"{name} {percent(share, 2)}" for name, share in shares.items())
            facts.append(("mixture", f"{listed} at this index"))
        if self.run_folder is not None or config.data.skip_samples:
            facts.append(("used", self._use(index)))
        return facts

    def _use(self, index: int) -> str:
        """What becomes of a sample in the run."""
        config = self.config
        if not self.is_as_trained:
            return "not by this run, whose data were different"
        if self.is_validation:
            return f"row {index:,} of the held-out set, the same at every evaluation"
        position = trained_position(index, skipped_by(config, self.run_folder))
        if position is None:
            is_typed = trained_position(index, config.data.skip_samples) is None
            where = "a range of data.skip_samples" if is_typed else "what a rollback leaves out"
            return f"never: it lies in {where}"
        if position >= config.optim.total_samples:
            return f"never: the run ends after {config.optim.total_samples:,} samples"
        step = "" if self.run_folder is None else step_of(self.run_folder, position)
        return f"as trained sample {position:,}" + (f", {step}" if step else "")


def open_target(
    name: str | os.PathLike[str], overrides: Sequence[str] = (), *, is_validation: bool = False
) -> Target:
    """Open a run folder, a prefix of token shards, or, if `name` is an override, a configuration as train reads it.

    Args:
        name: the target.
        overrides: `key=value` as in train, changing the run's configuration or how the shard is read.
        is_validation: look at the held-out rows.

    Raises:
        UserError: it is none of these, or the data cannot be used, or are not those of the run.
    """
    name = os.fspath(name)
    if is_override(name):
        config = load_config([name, *overrides])
        return _open(name, config, _prepared(config), is_validation)
    folder = Path(name)
    if is_run(name):
        return _open_run(folder, list(overrides), is_validation)
    if missing := absence(name):
        raise DataError(missing)
    config = load_config([_SCREEN, *overrides])
    is_chosen = any(word.startswith(f"{_LENGTH}=") for word in overrides)
    # What is missing or damaged is said before anything is asked about its tokenizer.
    stream = open_stream(name)
    spec = config.data.tokenizer or tokenizer_of(name)
    held_out = f"{name}.valid" if is_shard(f"{name}.valid") else name
    train, valid = (
        [CorpusShard(folder.name, name, None)],
        [CorpusShard(folder.name, held_out, None)],
    )
    if stream.info is None or not stream.index.holds_records:
        target = _open(name, config, Corpora(train, valid, spec), is_validation)
        return replace(target, has_own_length=is_chosen)
    # Nothing is drawn from the source of texts, which a mixture must have.
    config.data.instruction_share = [[0, 1.0]]
    target = _open(name, config, Corpora(train, valid, spec, train, valid), is_validation)
    return replace(target, has_own_length=is_chosen)


def is_override(word: str) -> bool:
    """True for key=value, and not for a path with such a name: a sweep names its runs by what they change."""
    key, equals, _ = word.partition("=")
    return bool(equals) and "/" not in key and not os.path.lexists(word) and not is_shard(word)


def absence(name: str) -> str:
    """What is said of a name that is neither a run's nor that of any file of a shard; "" if it is one's."""
    if is_run(name) or any(
        os.path.lexists(f"{name}.{ending}") for ending in ("idx", "bin", "json")
    ):
        return ""
    advice = did_you_mean(runs_and_shards_near(name))
    if os.path.isdir(name):
        return (
            f"{name} has no {CONFIG}: it is not a run. {advice or 'Give a run folder or a PREFIX.'}"
        )
    return f"There is no run or token shard named {name}. " + (
        advice or "Type a run folder, such as runs/default, or a PREFIX."
    )


def is_run(name: str) -> bool:
    """True if there is a run folder of this name, whole or not."""
    return os.path.lexists(RunPaths(Path(name)).config)


def shards_of_run(folder: str) -> tuple[list[str], int]:
    """Prefixes of all shards that a run reads, and the size of their vocabulary.

    Raises:
        UserError: the run or its data cannot be used.
    """
    config = _run_config(Path(folder), [])
    corpora = _prepared(config)
    groups = (corpora.train, corpora.valid, corpora.instructions, corpora.valid_instructions)
    prefixes = dict.fromkeys(shard.prefix for group in groups for shard in group)
    return list(prefixes), load_tokenizer(corpora.tokenizer).vocab_size


def _run_config(folder: Path, overrides: list[str]) -> Config:
    stored = stored_config(folder)
    stored.data.accept_changed = False  # this was reported when training, and does not matter here
    config = apply_overrides(stored, overrides)
    config.data.tokenizer = kept_tokenizer(folder) or config.data.tokenizer
    return config


def _open_run(folder: Path, overrides: list[str], is_validation: bool) -> Target:
    config = _run_config(folder, overrides)
    corpora = _prepared(config)
    target = _open(str(folder), config, corpora, is_validation)
    training = target.dataset
    if is_validation:
        training = open_dataset(config, corpora, target.tokenizer, is_validation=False)
    changes = changed_data(folder, training)
    if not config.data.accept_changed:
        check_same_data(folder, changes, overrides)
    return replace(target, run_folder=folder, is_as_trained=not changes)


def _open(name: str, config: Config, corpora: Corpora, is_validation: bool) -> Target:
    tokenizer = load_tokenizer(corpora.tokenizer)
    dataset = open_dataset(config, corpora, tokenizer, is_validation=is_validation)
    return Target(name, config, dataset, tokenizer, is_validation, None, has_own_length=True)


def _prepared(config: Config) -> Corpora:
    """Find what train has prepared: to look changes nothing."""
    return ensure_prepared(config.data, config.model.vocab_size, _log, _found)


def _found(
    folder: Path,
    make: Callable[[Path], None],
    report: Report,
    is_whole: Callable[[Path], bool],
) -> Path:
    """Replacement for `make_once` in commands that must not make anything."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} does not exist: the corpora were never prepared with these settings, or have been changed or removed "
            "since. Prepare them as shards and inspect those: python -m data_pipeline prepare INPUT --output PREFIX "
            "--tokenizer SPEC."
        )
    return folder


def _log(text: str) -> None:
    tell(text, sys.stderr)
