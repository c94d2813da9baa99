"""The examples that the end of a run shows for each objective.

The record of an objective names its function, in this file or in an installed package. Each function takes the
objective and an `ExampleContext`, prints examples, and adds figures to the run's summary.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from configs.objectives import Objective
from configs.percent import percent
from configs.schema import Config
from configs.terminal import visible
from data_pipeline.dataset import GLMDataset, TokenStream
from data_pipeline.unigram import most_frequent
from glm.filling import Trained
from train.showcase.sentences import (
    TOP,
    Example,
    best_words,
    continuation,
    held_out_questions,
    hide_ends,
    hide_one_token,
    hide_words,
    in_turn,
    score_blanks,
)

# The most frequent tokens are counted in at most this many training tokens.
_COUNTED_TOKENS = 1_000_000
_NUM_WORDS, _NUM_ENDS, _NUM_ANSWERS = 5, 2, 2
_WIDTH = 79
# A space at which no line is broken.
_UNBROKEN = "\xa0"
# Of a longer prompt only the last characters are shown, which come before the blank.
_LONGEST_PROMPT = 300


@dataclass(frozen=True)
class ExampleContext:
    """What the functions that make examples need."""

    config: Config
    trained: Trained
    sources: list[list[list[int]]]
    """Held-out sentences of each source, as token ids."""
    training: Sequence[TokenStream]
    """Training text of each source."""
    validation: GLMDataset
    """The rows of the held-out loss."""
    log: Callable[[str], None]
    """Prints a line."""
    summary: dict[str, object]
    """Figures for summary.json."""


def show_short_blanks(objective: Objective, context: ExampleContext) -> None:
    """Score single hidden tokens, and show whole hidden words beside the model's most probable words."""
    sentences = [tokens for source in context.sources for tokens in source]
    if not sentences:
        return
    special, each = context.trained.tokenizer.special, _COUNTED_TOKENS // len(context.training)
    counted = [text.read(0, min(len(text), each)) for text in context.training]
    frequent = most_frequent(np.concatenate(counted), TOP, special.to_dict().values())
    seed = context.config.seed
    blanks = hide_one_token(sentences, special.mask, seed)
    score = score_blanks(context.trained, blanks, frequent)
    context.summary["top5_model"] = score.model
    context.summary["top5_most_frequent"] = score.most_frequent
    context.summary["num_blanks"] = score.num_blanks
    context.log(
        f"\nOne hidden token in each of {score.num_blanks} held-out sentences: among five guesses "
        f"{percent(score.model)}\n(always the five most frequent: {percent(score.most_frequent)})"
    )
    shown = hide_words(
        in_turn(context.sources, context.trained.tokenizer),
        context.trained.tokenizer,
        _NUM_WORDS,
        seed,
    )
    if shown:
        context.log(
            f"\n{objective.label}, one whole word hidden, and the five most probable words:"
        )
    for example in shown:
        guesses = best_words(context.trained, example)
        words = [f"{guess.text!r} {percent(guess.probability)}" for guess in guesses]
        words = [word.replace(" ", _UNBROKEN) for word in words]
        _show(example, ", ".join(words), context)


def show_continuations(objective: Objective, context: ExampleContext) -> None:
    """Continue sentences whose end is hidden."""
    tokenizer = context.trained.tokenizer
    last_first = in_turn((source[::-1] for source in context.sources), tokenizer)
    examples = hide_ends(last_first, tokenizer, _NUM_ENDS)
    if examples:
        context.log(f"\n{objective.label}, the end of a sentence hidden:")
    for example in examples:
        _show(example, _quoted(continuation(context.trained, example)), context)


def show_answers(objective: Objective, context: ExampleContext) -> None:
    """Fill the first blank of some held-out rows of the objective."""
    validation = context.validation
    rows = (validation[index] for index in range(context.config.eval.num_samples))
    which = validation.objectives.index(objective)
    examples = held_out_questions(rows, which, context.trained.tokenizer, _NUM_ANSWERS)
    if examples:
        title = objective.title[:1].upper() + objective.title[1:]
        context.log(f"\n{title}, the answer hidden:")
    for example in examples:
        _show(example, _quoted(continuation(context.trained, example)), context)


def _show(example: Example, answer: str, context: ExampleContext) -> None:
    prompt = visible(example.prompt, keep="")
    clipped = prompt if len(prompt) <= _LONGEST_PROMPT else f"... {prompt[-_LONGEST_PROMPT:]}"
    context.log(_wrapped("", clipped))
    context.log(_wrapped("  truth: ", repr(example.truth)))
    context.log(_wrapped("  model: ", answer))


def _quoted(text: str) -> str:
    return repr(text) if text else "(nothing but white space)"


def _wrapped(label: str, text: str) -> str:
    indent = "  "
    filled = textwrap.fill(
        text,
        _WIDTH,
        initial_indent=indent + label,
        subsequent_indent=indent + " " * len(label),
        break_on_hyphens=False,
    )
    return filled.replace(_UNBROKEN, " ")
