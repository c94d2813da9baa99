"""Held-out loss of a checkpoint in one process, whatever layout trained it; see train/evaluate.py for the command."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from configs import derive
from configs.load import apply_overrides
from configs.run_checkpoints import run_folder_of
from configs.schema import Config, LossWeighting
from data_pipeline.batch import collate
from data_pipeline.continuity import read_description
from data_pipeline.corpus import Corpora, ensure_prepared
from data_pipeline.dataset import GLMDataset
from data_pipeline.opening import open_dataset, open_shard
from data_pipeline.packing import Sample
from data_pipeline.tokenizer import Tokenizer, kept_tokenizer, load_tokenizer
from data_pipeline.unigram import best_unigram_loss, target_weights
from glm.checkpoint.manifest import Manifest
from glm.checkpoint.reader import read_manifest
from glm.load import load_weights, read_checkpoint, stored_config
from glm.loss import GLMLoss
from glm.model import GLMModel
from train.batches import row_weights, to_micro_batch
from train.counted import settle
from train.metrics import loss_metrics


@dataclass(frozen=True)
class Measured:
    """The held-out loss of a checkpoint, and what it was measured on."""

    checkpoint: str
    step: int
    samples_seen: int
    num_rows: int
    num_targets: int
    """Tokens that were predicted."""
    losses: dict[str, float | None]
    """By the names of metrics.jsonl: `valid/loss`, `valid/loss_mask`, ...; None where no row has the objective."""
    unigram: dict[str, float]
    """Loss of the best unigram model on the same targets, by the same names; of single objectives only."""


def measure(
    path: Path,
    overrides: list[str],
    report: Callable[[str], None],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Compute the held-out loss, overall and per objective.

    Args:
        path: run folder or checkpoint.
        overrides: changes to the checkpoint's configuration, such as `eval.num_samples=256`.
        report: called with a line about what is being prepared.
        advance: called with the number of rows done, and of all rows.

    Raises:
        UserError: the checkpoint, an override or the data cannot be used.
    """

    def read(folder: Path) -> tuple[Path, Manifest, Config, GLMModel]:
        stored = stored_config(folder)
        return folder, read_manifest(folder), stored, load_weights(folder, stored)

    folder, manifest, stored, model = read_checkpoint(path, read)
    # Where prepared corpora are kept depends on this machine, not on the checkpoint.
    stored.data.cache_dir = None
    # The tokenizer of the model, not one that would be trained on the text as it is now.
    named, stored.data.tokenizer = stored.data.tokenizer, None
    own = kept_tokenizer(run_folder_of(folder)) or named
    config = apply_overrides(stored, overrides)
    is_as_trained = replace(config.data, cache_dir=None) == stored.data
    corpora = ensure_prepared(
        config.data,
        config.model.vocab_size,
        report,
        typed=overrides,
        own=own,
        held_out_only=True,
    )
    tokenizer = load_tokenizer(corpora.tokenizer)
    if is_as_trained:
        _report_changes(manifest, corpora, tokenizer, report)
    dataset = open_dataset(config, corpora, tokenizer, is_validation=True)
    objectives, counted = dataset.objectives, settle([dataset], manifest)
    loss, num_targets, num_rows = GLMLoss(len(objectives)), 0, config.eval.num_samples
    targets: dict[int, np.ndarray] = {}
    for samples in _batches(dataset, config):
        _add_losses(model, samples, loss)
        num_targets += sum(int(sample.loss_mask.sum()) for sample in samples)
        for number, weights in target_weights(
            samples, derive.padded_vocab_size(config.model)
        ).items():
            targets[number] = targets.get(number, 0.0) + weights
        advance(samples[-1].index + 1, num_rows)
    return Measured(
        checkpoint=str(folder),
        step=manifest.step,
        samples_seen=manifest.progress.get("samples_seen", 0),
        num_rows=num_rows,
        num_targets=num_targets,
        losses=loss_metrics("valid", loss.take(), objectives, counted),
        unigram={
            f"valid/{objectives[number].loss}": best_unigram_loss(weights)
            for number, weights in sorted(targets.items())
        },
    )


def _report_changes(
    manifest: Manifest, corpora: Corpora, tokenizer: Tokenizer, report: Callable[[str], None]
) -> None:
    """Report which corpora have changed since training; called if the held-out rows come from the run's own corpora."""
    if "dataset" not in manifest.data_state:
        return  # a checkpoint that was not written by a run does not describe its data
    trained = read_description(manifest.data_state["dataset"])
    known = {source.name: source.fingerprint for source in trained.sources}
    changed = [
        shard.name
        for shard in corpora.train
        if shard.name in known and known[shard.name] != open_shard(shard, tokenizer).fingerprint
    ]
    if changed:
        report(
            f"{', '.join(changed)}: changed since the checkpoint was trained. The held-out rows are not those that "
            "training was measured on, and the checkpoint may have been trained on some of them."
        )


def _batches(dataset: GLMDataset, config: Config) -> Iterator[list[Sample]]:
    rows = config.optim.micro_batch_size
    for start in range(0, config.eval.num_samples, rows):
        stop = min(start + rows, config.eval.num_samples)
        yield [dataset[index] for index in range(start, stop)]


@torch.no_grad()
def _add_losses(model: GLMModel, samples: list[Sample], loss: GLMLoss) -> None:
    batch = collate(samples)
    # The rows of a shorter last batch must not get more weight.
    weights = row_weights(batch, LossWeighting.row, 0.0) * len(samples)
    (tokens, layout), labels = to_micro_batch(batch, weights)
    loss.add_logits(model(tokens, layout), labels)
