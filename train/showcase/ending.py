"""The summary at the end of a run: losses beside a unigram model's, a score on blanks, and examples to read.

The run is finished before this starts. So a failure here only leaves out examples, and is reported in one line.
"""

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path

from configs import derive
from configs.errors import RecordError
from configs.objectives import Objective, imported
from configs.run_files import MetricsLine, metrics_line
from configs.run_lines import whole_lines
from configs.schema import Config, Wandb
from data_pipeline.corpus import Corpora
from data_pipeline.dataset import GLMDataset
from data_pipeline.opening import open_shard
from data_pipeline.tokenizer import load_tokenizer
from data_pipeline.unigram import best_unigram_loss, target_weights
from glm.filling import Trained
from glm.load import load_model
from glm.prompt import Objectives
from train.loss_table import HEADING, row
from train.run_folder import RunFolder, replace_file
from train.showcase.examples import ExampleContext
from train.showcase.sentences import NUM_SENTENCES, TOKENS_READ, sentences_of_sources
from train.showcase.typed import ANY_TEXT, texts_to_type
from train.wandb_account import records_offline

# A model with more parameters is not loaded into one process's memory while the other ranks wait.
_LARGEST_SHOWN = 500_000_000

_Log = Callable[[str], None]


def show_what_was_learnt(
    config: Config,
    folder: RunFolder,
    validation: GLMDataset,
    corpora: Corpora,
    log: _Log,
) -> None:
    """Print the summary, and write its figures to summary.json.

    Args:
        config: configuration of the run.
        folder: folder of the finished run.
        validation: the rows of the held-out loss.
        corpora: shards of the training and held-out text.
        log: prints a line.
    """
    summary: dict[str, object] = {}
    texts = [ANY_TEXT[True]]
    try:
        last = _last_line(folder.metrics)
        summary["samples_seen"] = last["samples_seen"]
        measured = _show_losses(config, last, validation, log, summary)
        tokenizer = load_tokenizer(corpora.tokenizer)
        sources = sentences_of_sources(corpora, tokenizer, config.seed, NUM_SENTENCES, TOKENS_READ)
        texts = texts_to_type(sources, tokenizer, config.objective, config.seed)
        is_small = derive.parameters(config.model) <= _LARGEST_SHOWN
        loss = last["train/loss"]
        if is_small and loss is not None and math.isfinite(float(loss)):
            trained = Trained(load_model(folder.path), tokenizer, Objectives.of(config))
            training = [open_shard(shard, tokenizer) for shard in corpora.train]
            context = ExampleContext(config, trained, sources, training, validation, log, summary)
            for objective in measured:
                imported(objective.examples)(objective, context)
    except KeyboardInterrupt:
        log("\nInterrupted: the rest of the examples is left out. The run is finished.")
    except Exception as error:  # a failure here must not make the finished run fail
        reason = f"{type(error).__name__}: {error}"
        log(f"\nWhat was learnt cannot be shown in full ({reason}). The run is finished.")
    try:
        replace_file(folder.summary, json.dumps(summary, indent=1) + "\n")
    except OSError as error:
        log(f"\n{folder.summary.name} cannot be written: {error.strerror}.")
    path = shlex.quote(str(folder.path))
    log(f"\nThe run is in {folder.path}:")
    log(f"  curves       python -m train.report {path}")
    for number, text in enumerate(texts):
        name = "" if number else "fill blanks"
        # The shell joins the lines: one would be cut at the edge of most terminals.
        log(f'  {name:<11}  python -m glm.generate {path} \\\n{"":<15}--text "{text}"')
    log("  go on        the same command with a larger optim.total_samples")
    # The message at the start has scrolled far up by now.
    if config.log.wandb is not Wandb.off and records_offline(folder):
        log(f"  send wandb   bash {shlex.quote(str(folder.wandb_sync))}")


def _last_line(metrics: Path) -> MetricsLine:
    lines = whole_lines(metrics)
    if not lines:
        raise RecordError(f"{metrics} has no line.")
    return metrics_line(lines[-1], f"The last line of {metrics}")


def _show_losses(
    config: Config,
    last: MetricsLine,
    validation: GLMDataset,
    log: _Log,
    summary: dict[str, object],
) -> list[Objective]:
    """Print the held-out loss of each objective that has one; returns these objectives."""
    vocab_size = derive.padded_vocab_size(config.model)
    held_out = target_weights((validation[i] for i in range(config.eval.num_samples)), vocab_size)
    measured: list[Objective] = []
    is_better = False
    for number, objective in enumerate(validation.objectives):
        loss = last.get(f"valid/{objective.loss}")
        if loss is None or number not in held_out:
            continue
        if not measured:
            log(f"\n{HEADING}")
        measured.append(objective)
        baseline = best_unigram_loss(held_out[number])
        summary[f"valid_{objective.loss}"] = loss
        summary[f"unigram_{objective.loss}"] = baseline
        log(row(objective.title, float(loss), baseline))
        is_better = is_better or float(loss) < baseline
    if measured and not is_better:
        log(
            f"After {last['samples_seen']:,} samples the model is not better than word frequencies yet: the examples "
            "below mean little."
        )
    return measured
