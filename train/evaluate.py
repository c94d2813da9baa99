"""Held-out loss of a checkpoint:  python -m train.evaluate runs/default [eval.num_samples=256 data.valid_paths=FILE]

One process, whatever layout trained it; the configuration is the checkpoint's, changed by the overrides.
"""

import sys
from pathlib import Path

import torch

from configs.errors import EXIT_DONE, EXIT_USER_INPUT, UserError
from configs.load import apply_overrides
from configs.schema import LossWeighting
from data_pipeline.batch import collate
from data_pipeline.corpus import ensure_prepared
from data_pipeline.opening import open_dataset
from data_pipeline.tokenizer import kept_tokenizer, load_tokenizer
from glm.load import find_checkpoint, load_model, run_folder_of, stored_config
from glm.loss import GLMLoss, ObjectiveSums
from train.batches import row_weights, to_micro_batch
from train.metrics import loss_metrics

_USAGE = "python -m train.evaluate RUN_OR_CHECKPOINT [key=value ...]"


def evaluate(path: Path, overrides: list[str]) -> dict[str, float | None]:
    """Compute the held-out loss, overall and per objective.

    Args:
        path: run folder or checkpoint.
        overrides: of the checkpoint's configuration, such as `eval.num_samples=256`.

    Raises:
        UserError: the checkpoint, an override or the data cannot be used.
    """
    checkpoint = find_checkpoint(path)
    stored = stored_config(checkpoint)
    # Where this machine prepares corpora is not the checkpoint's business.
    stored.data.cache_dir = None
    named, stored.data.tokenizer = stored.data.tokenizer, None
    own = kept_tokenizer(run_folder_of(checkpoint)) or named
    config = apply_overrides(stored, overrides)
    corpora = ensure_prepared(config.data, config.model.vocab_size, _say, own=own)
    tokenizer = load_tokenizer(corpora.tokenizer)
    dataset = open_dataset(config, corpora, tokenizer, is_validation=True)
    model = load_model(checkpoint)
    sums = ObjectiveSums()
    loss = GLMLoss(sums)
    rows = config.optim.micro_batch_size
    with torch.no_grad():
        for start in range(0, config.eval.num_samples, rows):
            stop = min(start + rows, config.eval.num_samples)
            batch = collate([dataset[index] for index in range(start, stop)])
            # A shorter last batch must not weigh its rows more.
            weights = row_weights(batch, LossWeighting.row, 0.0) * (stop - start)
            (tokens, layout), labels = to_micro_batch(batch, weights)
            loss(model(tokens, layout), labels)
    return loss_metrics("valid", sums)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_USAGE + "\n")
        return EXIT_DONE if words else EXIT_USER_INPUT
    try:
        for name, value in evaluate(Path(words[0]), words[1:]).items():
            if value is not None:
                sys.stdout.write(f"{name}  {value:.4f}\n")
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USER_INPUT
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(cli())
