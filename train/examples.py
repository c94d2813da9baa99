"""What the end of a run shows of each objective; the record of an objective names its function here, or its package's.

Each takes the objective and the ground that examples are made on, and prints; figures go into the run's summary.
"""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from configs.objectives import Objective
from configs.schema import Config
from configs.terminal import visible
from data_pipeline.dataset import GLMDataset, TokenStream
from data_pipeline.unigram import most_frequent
from glm.filling import Trained
from train.showcase import (
    TOP,
    Example,
    best_words,
    continuation,
    held_out_questions,
    hide_ends,
    hide_one_token,
    hide_words,
    score_blanks,
)

# Training tokens that the most frequent are counted in at most.
_COUNTED_TOKENS = 1_000_000
_NUM_WORDS, _NUM_ENDS, _NUM_ANSWERS = 5, 2, 2
_WIDTH = 79
# Of a long prompt the part before the blank is shown.
_LONGEST_PROMPT = 300


@dataclass(frozen=True)
class Ground:
    """What examples are made on."""

    config: Config
    trained: Trained
    sentences: list[list[int]]
    """Held-out ones, token ids."""
    training: TokenStream
    """Text of the first training source."""
    validation: GLMDataset
    """The rows of the held-out loss."""
    say: Callable[[str], None]
    """Prints a line."""
    summary: dict[str, object]
    """Figures that summary.json keeps."""


def show_short_blanks(objective: Objective, ground: Ground) -> None:
    """Score single hidden tokens, and show whole hidden words with the most probable ones."""
    if not ground.sentences:
        return
    training, special = ground.training, ground.trained.tokenizer.special
    frequent = most_frequent(
        training.read(0, min(len(training), _COUNTED_TOKENS)), TOP, special.to_dict().values()
    )
    seed = ground.config.seed
    blanks = hide_one_token(ground.sentences, special.mask, seed)
    score = score_blanks(ground.trained, blanks, frequent)
    ground.summary["top5_model"] = score.model
    ground.summary["top5_most_frequent"] = score.most_frequent
    ground.summary["num_blanks"] = score.num_blanks
    ground.say(
        f"\nOne hidden token in each of {score.num_blanks} held-out sentences: among five guesses "
        f"{score.model:.0%}\n(always the five most frequent: {score.most_frequent:.0%})"
    )
    shown = hide_words(ground.sentences, ground.trained.tokenizer, _NUM_WORDS, seed)
    if shown:
        ground.say(f"\n{objective.label}, one whole word hidden, and the five most probable words:")
    for example in shown:
        guesses = best_words(ground.trained, example)
        words = [f"{guess.text!r} {guess.probability:.0%}" for guess in guesses]
        _show(example, ", ".join(words), ground)


def show_continuations(objective: Objective, ground: Ground) -> None:
    """Continue sentences whose end is hidden."""
    examples = hide_ends(ground.sentences[::-1], ground.trained.tokenizer, _NUM_ENDS)
    if examples:
        ground.say(f"\n{objective.label}, the end of a sentence hidden:")
    for example in examples:
        _show(example, repr(continuation(ground.trained, example)), ground)


def show_answers(objective: Objective, ground: Ground) -> None:
    """Fill the first blank of some held-out rows of the objective."""
    validation = ground.validation
    rows = (validation[index] for index in range(ground.config.eval.num_samples))
    which = validation.objectives.index(objective)
    examples = held_out_questions(rows, which, ground.trained.tokenizer, _NUM_ANSWERS)
    if examples:
        title = objective.title[:1].upper() + objective.title[1:]
        ground.say(f"\n{title}, the answer hidden:")
    for example in examples:
        _show(example, repr(continuation(ground.trained, example)), ground)


def _show(example: Example, answer: str, ground: Ground) -> None:
    prompt = visible(example.prompt, keep="")
    clipped = prompt if len(prompt) <= _LONGEST_PROMPT else f"... {prompt[-_LONGEST_PROMPT:]}"
    ground.say(_wrapped("", clipped))
    ground.say(_wrapped("  truth: ", repr(example.truth)))
    ground.say(_wrapped("  model: ", answer))


def _wrapped(label: str, text: str) -> str:
    indent = "  "
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=indent + label,
        subsequent_indent=indent + " " * len(label),
        break_on_hyphens=False,
    )
