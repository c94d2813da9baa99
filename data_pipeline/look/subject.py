"""Opens what `show` and `stats` are asked to look at: a run, a configuration, or one prefix of token shards."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from configs.errors import DataError
from configs.load import apply_overrides, from_yaml, load_config
from configs.schema import Config
from data_pipeline.cache import Report
from data_pipeline.corpus import Corpora, Shard, ensure_prepared, tokenizer_of
from data_pipeline.dataset import GLMDataset
from data_pipeline.look.run_record import changed_data, check_same_data, kept_tokenizer
from data_pipeline.opening import open_dataset
from data_pipeline.sampler import trained_position
from data_pipeline.storage.shards import is_shard, open_stream
from data_pipeline.tokenizer import Tokenizer, load_tokenizer

# What a shard that belongs to no run is looked at with: rows that fit a screen.
_SCREEN = "model.seq_length=512"


@dataclass(frozen=True)
class Target:
    """What is looked at."""

    name: str
    config: Config
    dataset: GLMDataset
    tokenizer: Tokenizer
    is_validation: bool
    run_folder: Path | None
    is_as_trained: bool = True
    """False if the run has drawn other samples than those shown, which the user has asked for."""

    def facts(self, index: int) -> list[tuple[str, str]]:
        """Why the sample at `index` of the data stream is what it is, and what the run makes of it: (name, text) rows."""
        config, objective = self.config, self.config.objective
        keys = {
            "seed": config.seed,
            "model.seq_length": config.model.seq_length,
            "objective.gmask_share": objective.gmask_share,
            "objective.slice_rule": objective.slice_rule.value,
            "objective.windows_per_row": objective.windows_per_row,
        }
        facts = [("made by", " ".join(f"{key}={value}" for key, value in keys.items()))]
        shares = self.dataset.shares_at(index)
        if len(shares) > 1:
            listed = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
            facts.append(("mixture", f"{listed} at this index"))
        if self.run_folder is not None or config.data.skip_samples:
            facts.append(("used", self._use(index)))
        return facts

    def _use(self, index: int) -> str:
        """What becomes of a sample in the run."""
        config = self.config
        if not self.is_as_trained:
            return "not by this run: its data were others"
        if self.is_validation:
            return f"row {index:,} of the held-out set, the same at every evaluation"
        position = trained_position(index, config.data.skip_samples)
        if position is None:
            return "never: it lies in a range of data.skip_samples"
        if position >= config.optim.total_samples:
            return f"not yet: the run ends after {config.optim.total_samples:,} samples"
        step = None if self.run_folder is None else _step_of(self.run_folder, position)
        return f"as trained sample {position:,}" + ("" if step is None else f", in step {step:,}")


def open_target(name: str, overrides: list[str], *, is_validation: bool) -> Target:
    """Open a run folder, a prefix of token shards, or, if `name` is an override, a configuration as train reads it.

    Args:
        name: the target.
        overrides: `key=value` as in train, changing the run's configuration or how the shard is read.
        is_validation: look at the held-out rows.

    Raises:
        UserError: it is none of these, or the data cannot be used, or are not those of the run.
    """
    if "=" in name:
        config = load_config([name, *overrides])
        return _open(name, config, _prepared(config), is_validation)
    folder = Path(name)
    if (folder / "config.yaml").is_file():
        return _open_run(folder, overrides, is_validation)
    if folder.is_dir() and not is_shard(name):
        raise DataError(
            f"{name} holds no config.yaml: it is no run. Give a run folder or a PREFIX."
        )
    config = load_config([_SCREEN, *overrides])
    # What is missing or damaged is said before anything is asked about its tokenizer.
    stream = open_stream(name)
    spec = config.data.tokenizer or tokenizer_of(name)
    held_out = f"{name}.valid" if is_shard(f"{name}.valid") else name
    train, valid = [Shard(folder.name, name, None)], [Shard(folder.name, held_out, None)]
    if stream.info is None or not stream.index.holds_records:
        return _open(name, config, Corpora(train, valid, spec), is_validation)
    # Nothing is drawn from the source of texts, which a mixture must have.
    config.data.instruction_share = [[0, 1.0]]
    return _open(name, config, Corpora(train, valid, spec, train, valid), is_validation)


def _open_run(folder: Path, overrides: list[str], is_validation: bool) -> Target:
    stored = from_yaml((folder / "config.yaml").read_text())
    stored.data.accept_changed = False  # was said of training, not of looking
    config = apply_overrides(stored, overrides)
    config.data.tokenizer = kept_tokenizer(folder) or config.data.tokenizer
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
    return Target(name, config, dataset, tokenizer, is_validation, None)


def _prepared(config: Config) -> Corpora:
    """Find what train has prepared: to look changes nothing."""
    return ensure_prepared(config.data, config.model.vocab_size, _say, _found)


def _found(folder: Path, make: Callable[[Path], None], report: Report) -> Path:
    """Stand in for `make_once` where nothing may be made."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not there: the corpora were never prepared like this, or have changed or been removed since. "
            "Prepare them as shards of their own and look at these: python -m data_pipeline prepare INPUT --output PREFIX "
            "--tokenizer SPEC."
        )
    return folder


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _step_of(folder: Path, position: int) -> int | None:
    """The step that trained a position, by the run's own record; None if it has not come to it."""
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        return None
    with metrics.open() as lines:
        for line in lines:
            try:
                values = json.loads(line)
            except ValueError:
                return None  # the torn last line of a run that was killed
            if values["samples_seen"] > position:
                return int(values["step"])
    return None
