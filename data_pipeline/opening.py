"""From a configuration to the data set that a run trains or is measured on: the same one for every program that asks."""

from configs.schema import Config
from data_pipeline.corpus import Corpora, Shard
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.mixture import stages_of
from data_pipeline.shard_part import ShardPart
from data_pipeline.shards import open_stream
from data_pipeline.tokenizer import Tokenizer


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
        DataError: a shard cannot be read or is too short.
    """
    shards = corpora.valid if is_validation else corpora.train
    # Held-out loss is measured on a fixed mixture: stages are of training.
    rows = None if is_validation else config.data.stages
    return GLMDataset(
        [Source(shard.name, open_shard(shard, tokenizer), shard.weight) for shard in shards],
        tokenizer.special,
        config.objective,
        config.model.seq_length,
        config.seed,
        stages=None if rows is None else stages_of(rows, len(shards)),
        ramp_samples=0 if rows is None else config.data.stage_ramp_samples,
        is_validation=is_validation,
    )


def open_shard(shard: Shard, tokenizer: Tokenizer) -> ShardPart:
    """Open what a source reads of its shard.

    Raises:
        DataError: a file is missing, damaged, or does not belong to the others.
    """
    return ShardPart(open_stream(shard.prefix), tokenizer.vocab_size, shard.documents)
