"""The end of a run: how far it got beyond word frequencies, a score on blanks, and examples to read."""

import json
import math
from collections.abc import Callable

from configs import derive
from configs.schema import Config
from data_pipeline.corpus import Corpora
from data_pipeline.dataset import GLMDataset
from data_pipeline.objective import Objective
from data_pipeline.opening import open_shard
from data_pipeline.tokenizer import load_tokenizer
from data_pipeline.unigram import best_unigram_loss, most_frequent, target_weights
from glm.load import load_model
from train.metrics import OBJECTIVE_NAMES
from train.run_folder import RunFolder, replace_file
from train.showcase import (
    NUM_SENTENCES,
    TOP,
    examples,
    held_out_sentences,
    hide_one_token,
    score_blanks,
)

# Training tokens that the most frequent are counted in at most.
_COUNTED_TOKENS = 1_000_000
# A larger model is not loaded into one process's memory unasked.
_LARGEST_SHOWN = 1_000_000_000


def show_what_was_learnt(
    config: Config,
    folder: RunFolder,
    validation: GLMDataset,
    corpora: Corpora,
    say: Callable[[str], None],
) -> None:
    """Print the ending, and keep its figures in summary.json.

    Args:
        config: of the run.
        folder: finished run.
        validation: the rows of the held-out loss.
        corpora: where training and held-out text lie.
        say: prints a line.
    """
    vocab_size = derive.padded_vocab_size(config.model)
    held_out = target_weights((validation[i] for i in range(config.eval.num_samples)), vocab_size)
    last = json.loads(folder.metrics.read_text().splitlines()[-1])
    summary: dict[str, object] = {"samples_seen": last["samples_seen"]}
    say("\nHeld-out loss (nats per token)     model   best unigram model")
    for objective in (Objective.MASK, Objective.GMASK):
        name = OBJECTIVE_NAMES[objective]
        loss = last[f"valid/loss_{name}"]
        if loss is None or objective not in held_out:
            continue
        baseline = best_unigram_loss(held_out[objective])
        summary[f"valid_loss_{name}"] = loss
        summary[f"unigram_loss_{name}"] = baseline
        label = {"mask": "[MASK] short blanks", "gmask": "[gMASK] long blanks"}[name]
        say(f"  {label:<30} {float(loss):7.3f}   {baseline:7.3f}")
    loss = last["train/loss"]
    is_sound = loss is not None and math.isfinite(float(loss))
    if derive.parameters(config.model) <= _LARGEST_SHOWN and is_sound:
        _show_blanks(config, folder, corpora, say, summary)
    replace_file(folder.path / "summary.json", json.dumps(summary, indent=1) + "\n")
    say(f"\nThe run is in {folder.path}:")
    say(f"  curves       python -m train.report {folder.path}")
    say(f'  fill blanks  python -m glm.generate {folder.path} --text "the [MASK] of a list"')
    say("  go on        the same command with a larger optim.total_samples")


def _show_blanks(
    config: Config,
    folder: RunFolder,
    corpora: Corpora,
    say: Callable[[str], None],
    summary: dict[str, object],
) -> None:
    tokenizer = load_tokenizer(corpora.tokenizer)
    model = load_model(folder.path)
    stream = open_shard(corpora.valid[0], tokenizer)
    sentences = held_out_sentences(stream, tokenizer, NUM_SENTENCES, config.seed)
    if not sentences:
        return
    training = open_shard(corpora.train[0], tokenizer)
    frequent = most_frequent(
        training.read(0, min(len(training), _COUNTED_TOKENS)),
        TOP,
        tokenizer.special.to_dict().values(),
    )
    blanks = hide_one_token(sentences, tokenizer.special.mask, config.seed)
    score = score_blanks(model, tokenizer, blanks, frequent)
    summary["top5_model"], summary["top5_most_frequent"] = score.model, score.most_frequent
    summary["num_blanks"] = score.num_blanks
    say(
        f"\nOne hidden token in each of {score.num_blanks} held-out sentences: among five guesses "
        f"{score.model:.0%} (always the five most frequent: {score.most_frequent:.0%})\n"
    )
    for example in examples(model, tokenizer, sentences[-5:], config.seed):
        say(f"  {example.prompt}\n    model: {example.filled!r}\n    truth: {example.truth!r}")
