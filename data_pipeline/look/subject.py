"""Opens what `show` and `stats` are asked to look at: a run, a configuration, or one prefix of token shards."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from configs.errors import DataError
from configs.load import apply_overrides, from_yaml, load_config
from configs.schema import Config
from data_pipeline.corpus import Corpora, Shard, ensure_prepared, tokenizer_of
from data_pipeline.dataset import GLMDataset
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
        UserError: it is none of these, or the data cannot be used.
    """
    if "=" in name:
        config = load_config([name, *overrides])
        return _open(name, config, _prepared(config), is_validation, None)
    folder = Path(name)
    if (folder / "config.yaml").is_file():
        config = apply_overrides(from_yaml((folder / "config.yaml").read_text()), overrides)
        return _open(name, config, _prepared(config), is_validation, folder)
    if folder.is_dir() and not is_shard(name):
        raise DataError(
            f"{name} holds no config.yaml: it is no run. Give a run folder or a PREFIX."
        )
    config = load_config([_SCREEN, *overrides])
    open_stream(
        name
    )  # what is missing or damaged is said before anything is asked about its tokenizer
    spec = config.data.tokenizer or tokenizer_of(name)
    held_out = f"{name}.valid" if is_shard(f"{name}.valid") else name
    shards = Corpora([Shard(folder.name, name, None)], [Shard(folder.name, held_out, None)], spec)
    return _open(name, config, shards, is_validation, None)


def _open(
    name: str, config: Config, corpora: Corpora, is_validation: bool, folder: Path | None
) -> Target:
    tokenizer = load_tokenizer(corpora.tokenizer)
    dataset = open_dataset(config, corpora, tokenizer, is_validation=is_validation)
    return Target(name, config, dataset, tokenizer, is_validation, folder)


def _prepared(config: Config) -> Corpora:
    return ensure_prepared(config.data, config.model.vocab_size, _say)


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
