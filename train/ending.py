"""The end of a run: how far it got beyond word frequencies, a score on blanks, and examples to read.

The run is finished before it begins: whatever fails here costs an example, and is said in a line.
"""

import json
import math
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs import derive
from configs.files import read_text
from configs.records import decode
from configs.schema import Config, MipPositions
from configs.terminal import visible
from data_pipeline.corpus import Corpora
from data_pipeline.dataset import GLMDataset
from data_pipeline.objective import Objective
from data_pipeline.opening import open_shard
from data_pipeline.tokenizer import load_tokenizer
from data_pipeline.unigram import best_unigram_loss, most_frequent, target_weights
from glm.filling import Trained
from glm.load import load_model
from glm.prompt import Objectives
from train.metrics import OBJECTIVE_NAMES
from train.run_folder import RunFolder, replace_file
from train.showcase import (
    NUM_SENTENCES,
    TOP,
    best_words,
    continuation,
    held_out_questions,
    held_out_sentences,
    hide_ends,
    hide_one_token,
    hide_words,
    score_blanks,
)

LABELS = {
    Objective.MASK: "[MASK] short blanks",
    Objective.GMASK: "[gMASK] long blanks",
    Objective.MIP: "instructions (MIP)",
}
# Training tokens that the most frequent are counted in at most.
_COUNTED_TOKENS = 1_000_000
# A larger model is not loaded into one process's memory unasked, while the other ranks wait.
_LARGEST_SHOWN = 500_000_000
_NUM_WORDS, _NUM_ENDS, _NUM_QUESTIONS = 5, 2, 2
_LARGEST_METRICS = 2**40
_WIDTH = 79
# Of a long prompt the part before the blank is shown.
_LONGEST_PROMPT = 300

_Say = Callable[[str], None]


def show_what_was_learnt(
    config: Config,
    folder: RunFolder,
    validation: GLMDataset,
    corpora: Corpora,
    say: _Say,
) -> None:
    """Print the ending, and keep its figures in summary.json.

    Args:
        config: of the run.
        folder: finished run.
        validation: the rows of the held-out loss.
        corpora: where training and held-out text lie.
        say: prints a line.
    """
    summary: dict[str, object] = {}
    try:
        last = _last_line(folder.metrics)
        summary["samples_seen"] = last["samples_seen"]
        measured = _show_losses(config, last, validation, say, summary)
        is_small = derive.parameters(config.model) <= _LARGEST_SHOWN
        loss = last["train/loss"]
        if is_small and loss is not None and math.isfinite(float(loss)):
            _show_examples(config, folder, validation, corpora, measured, say, summary)
    except KeyboardInterrupt:
        say("\nInterrupted: the rest of the examples is left out. The run is finished.")
    except Exception as error:  # none of them may take the run with it
        reason = f"{type(error).__name__}: {error}"
        say(f"\nWhat was learnt cannot be shown in full ({reason}). The run is finished.")
    try:
        replace_file(folder.path / "summary.json", json.dumps(summary, indent=1) + "\n")
    except OSError as error:
        say(f"\nsummary.json cannot be written: {error.strerror}.")
    path = shlex.quote(str(folder.path))
    say(f"\nThe run is in {folder.path}:")
    say(f"  curves       python -m train.report {path}")
    say(f'  fill blanks  python -m glm.generate {path} --text "the [MASK] of a list"')
    say("  go on        the same command with a larger optim.total_samples")


def _last_line(metrics: Path) -> dict[str, Any]:
    lines = read_text(metrics, _LARGEST_METRICS).rstrip("\n")
    return decode(lines.rpartition("\n")[2], dict[str, Any], f"The last line of {metrics}")


def _show_losses(
    config: Config,
    last: dict[str, Any],
    validation: GLMDataset,
    say: _Say,
    summary: dict[str, object],
) -> list[Objective]:
    """Print the held-out loss of each objective that the run has; returns these."""
    vocab_size = derive.padded_vocab_size(config.model)
    held_out = target_weights((validation[i] for i in range(config.eval.num_samples)), vocab_size)
    measured: list[Objective] = []
    is_better = False
    heading = "\nHeld-out loss (nats per token)     model   best unigram model"
    for objective, label in LABELS.items():
        name = OBJECTIVE_NAMES[objective]
        loss = last[f"valid/loss_{name}"]
        if loss is None or objective not in held_out:
            continue
        if not measured:
            say(heading)
        measured.append(objective)
        baseline = best_unigram_loss(held_out[objective])
        summary[f"valid_loss_{name}"] = loss
        summary[f"unigram_loss_{name}"] = baseline
        say(f"  {label:<30} {float(loss):7.3f}   {baseline:7.3f}")
        is_better = is_better or float(loss) < baseline
    if measured and not is_better:
        say(
            f"After {last['samples_seen']:,} samples the model is not better than word frequencies yet: what follows "
            "means little."
        )
    return measured


def _show_examples(
    config: Config,
    folder: RunFolder,
    validation: GLMDataset,
    corpora: Corpora,
    measured: list[Objective],
    say: _Say,
    summary: dict[str, object],
) -> None:
    tokenizer = load_tokenizer(corpora.tokenizer)
    trained = Trained(load_model(folder.path), tokenizer, Objectives.of(config))
    held_out = open_shard(corpora.valid[0], tokenizer)
    sentences = held_out_sentences(held_out, tokenizer, NUM_SENTENCES, config.seed)
    if Objective.MASK in measured and sentences:
        training = open_shard(corpora.train[0], tokenizer)
        frequent = most_frequent(
            training.read(0, min(len(training), _COUNTED_TOKENS)),
            TOP,
            tokenizer.special.to_dict().values(),
        )
        blanks = hide_one_token(sentences, tokenizer.special.mask, config.seed)
        score = score_blanks(trained, blanks, frequent)
        summary["top5_model"], summary["top5_most_frequent"] = score.model, score.most_frequent
        summary["num_blanks"] = score.num_blanks
        say(
            f"\nOne hidden token in each of {score.num_blanks} held-out sentences: among five guesses "
            f"{score.model:.0%}\n(always the five most frequent: {score.most_frequent:.0%})"
        )
        _show_words(trained, sentences, config.seed, say)
    if Objective.GMASK in measured:
        ends = hide_ends(sentences[::-1], tokenizer, _NUM_ENDS)
        if ends:
            say("\n[gMASK], the end of a sentence hidden:")
        for example in ends:
            _show(example.prompt, [continuation(trained, example)], example.truth, say)
    if Objective.MIP in measured:
        rows = (validation[index] for index in range(config.eval.num_samples))
        goes_on = config.objective.mip_positions is MipPositions.consecutive
        say("\nInstructions, the answer hidden:")
        for example in held_out_questions(rows, tokenizer, goes_on, _NUM_QUESTIONS):
            _show(example.prompt, [continuation(trained, example)], example.truth, say)


def _show_words(trained: Trained, sentences: list[list[int]], seed: int, say: _Say) -> None:
    shown = hide_words(sentences, trained.tokenizer, _NUM_WORDS, seed)
    if shown:
        say("\n[MASK], one whole word hidden, and the five most probable words:")
    for example in shown:
        guesses = best_words(trained, example)
        words = [f"{guess.text!r} {guess.probability:.0%}" for guess in guesses]
        say(_wrapped("", _clipped(example.prompt)))
        say(_wrapped("  truth: ", repr(example.truth)))
        say(_wrapped("  model: ", ", ".join(words)))


def _show(prompt: str, answers: list[str], truth: str, say: _Say) -> None:
    say(_wrapped("", _clipped(prompt)))
    say(_wrapped("  truth: ", repr(truth)))
    for answer in answers:
        say(_wrapped("  model: ", repr(answer)))


def _clipped(prompt: str) -> str:
    shown = visible(prompt, keep="")
    return shown if len(shown) <= _LONGEST_PROMPT else f"... {shown[-_LONGEST_PROMPT:]}"


def _wrapped(label: str, text: str) -> str:
    indent = "  "
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=indent + label,
        subsequent_indent=indent + " " * len(label),
        break_on_hyphens=False,
    )
