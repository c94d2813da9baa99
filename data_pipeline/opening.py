"""From a configuration to the data set that a run trains on or is evaluated on; used by every program."""

import sys
from dataclasses import replace

from configs import derive
from configs.errors import ConfigError
from configs.schema import Config, Documents
from configs.terminal import tell
from data_pipeline.cache import Report
from data_pipeline.corpus import Corpora, CorpusShard, ensure_prepared
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.instructions import Instructions, InstructionSet, mean_tokens
from data_pipeline.mip_windows import records_per_window
from data_pipeline.mixing.mixture import stages_of
from data_pipeline.sampler import samples_drawn
from data_pipeline.sentences import SentenceBlanks, sentence_ends
from data_pipeline.storage.shard_part import ShardPart
from data_pipeline.storage.shards import open_stream
from data_pipeline.tokenizer import Tokenizer, load_tokenizer


def open_data(
    config: Config, *, is_validation: bool = False, report: Report | None = None
) -> tuple[GLMDataset, Tokenizer]:
    """Open the samples of a configuration and their tokenizer, preparing the corpora that are not yet prepared.

    Args:
        config: as `configs.load.load_config` makes it.
        is_validation: the held-out samples.
        report: called with a line about what is being prepared; default: print to standard error.

    Raises:
        DataError: a corpus cannot be used.
        ConfigError: the tokenizer does not fit the model.
    """
    corpora = ensure_prepared(config.data, config.model.vocab_size, report or _report)
    tokenizer = load_tokenizer(corpora.tokenizer)
    return open_dataset(config, corpora, tokenizer, is_validation=is_validation), tokenizer


def open_dataset(
    config: Config, corpora: Corpora, tokenizer: Tokenizer, *, is_validation: bool
) -> GLMDataset:
    """Open the training samples of a run, or the held-out ones.

    Args:
        config: objective, row length, seed.
        corpora: where the shards lie.
        tokenizer: of all of them.
        is_validation: the fixed rows of the held-out shards, see `GLMDataset.validation`.

    Raises:
        DataError: a shard cannot be read or is too short, or its documents do not end as isolating them needs.
        ConfigError: the embedding has no row for [sMASK], which the objective asks for.
    """
    shards = corpora.valid if is_validation else corpora.train
    # Held-out loss is measured on a fixed mixture: stages apply to training only.
    rows = None if is_validation else config.data.stages
    parts = [open_shard(shard, tokenizer) for shard in shards]
    if config.objective.documents is Documents.isolated:
        for part in parts:
            part.check_ends(tokenizer.special.eos)
    return GLMDataset(
        [Source(shard.name, part, shard.weight) for shard, part in zip(shards, parts, strict=True)],
        tokenizer.special,
        config.objective,
        config.model.seq_length,
        config.seed,
        stages=None if rows is None else stages_of(rows, len(shards)),
        ramp_samples=0 if is_validation else config.data.stage_ramp_samples,
        sentences=_sentences(config, tokenizer),
        locality_rows=0 if is_validation else config.data.locality_rows,
        instructions=_instructions(config, corpora, tokenizer, is_validation=is_validation),
        instruction_shares=_instruction_shares(config, is_validation=is_validation),
        is_validation=is_validation,
        num_samples=_num_samples(config, is_validation=is_validation),
    )


def _num_samples(config: Config, *, is_validation: bool) -> int:
    """Drawn samples at the end of the run; for held-out data, the samples that an evaluation reads."""
    if is_validation:
        return config.eval.num_samples
    return samples_drawn(config.optim.total_samples, config.data.skip_samples)


def _report(text: str) -> None:
    tell(text, sys.stderr)


def open_shard(shard: CorpusShard, tokenizer: Tokenizer) -> ShardPart:
    """Open what a source reads of its shard.

    Raises:
        DataError: a file is missing, damaged, or does not belong to the others.
    """
    return ShardPart(open_stream(shard.prefix), tokenizer.vocab_size, shard.documents)


def _instructions(
    config: Config, corpora: Corpora, tokenizer: Tokenizer, *, is_validation: bool
) -> Instructions | None:
    """Open the instruction records; None if there are none."""
    shards = corpora.valid_instructions if is_validation else corpora.instructions
    if not shards:
        return None
    eos, cap = tokenizer.special.eos, config.data.instruction_cap
    sets = [InstructionSet(shard.name, open_shard(shard, tokenizer), eos) for shard in shards]
    mean = mean_tokens(sets, cap)
    per_window = records_per_window(derive.window_length(config), mean, config.objective)
    per_row = per_window * config.objective.windows_per_row
    return Instructions(sets, cap, per_row, config.seed, "valid" if is_validation else "train")


def _instruction_shares(config: Config, *, is_validation: bool) -> list[tuple[int, float]]:
    shares = derive.instruction_shares(config.data)
    # Held-out loss is measured on a fixed mixture: one with as many instructions as the run ever has.
    return [(0, max(share for _, share in shares))] if is_validation else shares


def _sentences(config: Config, tokenizer: Tokenizer) -> SentenceBlanks | None:
    """What hiding sentences needs; None if the objective hides none."""
    if config.objective.smask_share == 0:
        return None
    if tokenizer.smask >= config.model.vocab_size:
        raise ConfigError(
            [
                f"model.vocab_size ({config.model.vocab_size:,}) must be above the id of [sMASK] ({tokenizer.smask:,}), "
                f"which objective.smask_share ({config.objective.smask_share}) needs. Try "
                f"model.vocab_size={tokenizer.smask + 1}; a tokenizer that is trained for the run takes up all of "
                "model.vocab_size: train one first (python -m data_pipeline train-tokenizer) and name it with "
                "data.tokenizer."
            ]
        )
    special = replace(tokenizer.special, mask=tokenizer.smask)
    return SentenceBlanks(
        special, sentence_ends(tokenizer.decode, tokenizer.vocab_size, tokenizer.special)
    )
