"""Does generation understand what people type?  python -m benchmarks.typed_blanks runs/default

Hides one whole word in each of 162 held-out sentences of a finished run and has the most probable span filled in,
twice: with the blank before the marker, as README types it, and with the blank removed. As many must be right as typed,
and no filled text may have a doubled blank.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from configs.load import from_yaml
from configs.terminal import visible
from data_pipeline.corpus import ensure_prepared
from data_pipeline.opening import open_shard
from data_pipeline.special_tokens import MASK_TEXT
from glm.filling import Trained, kept_tokenizer
from train.showcase.sentences import Example, held_out_sentences, hide_words, in_turn

NUM_SENTENCES = 162
_DRAWN = 400
_MAX_NEW_TOKENS = 16


@dataclass(frozen=True)
class Counts:
    """Of all sentences, filled as typed and without the blank."""

    right_typed: int
    right_joined: int
    guessed: int
    """The truth is the most probable word."""
    among_five: int
    doubled: int
    """Texts with two blanks side by side, as typed."""
    total: int


def held_out_blanks(run: Path, trained: Trained) -> list[Example]:
    """One whole word hidden in each of the held-out sentences; no sentence has two blanks side by side."""
    config = from_yaml((run / "config.yaml").read_text())
    config.data.tokenizer = kept_tokenizer(run)
    corpora = ensure_prepared(config.data, config.model.vocab_size, print, held_out_only=True)
    stream = open_shard(corpora.valid[0], trained.tokenizer)
    sentences = held_out_sentences(stream, trained.tokenizer, _DRAWN, config.seed)
    made = hide_words(
        in_turn([sentences], trained.tokenizer), trained.tokenizer, _DRAWN, config.seed
    )
    # Text with a marker of its own cannot be typed.
    usable = [each for each in made if each.prompt.count(MASK_TEXT) == 1]
    return [each for each in usable if f" {MASK_TEXT}" in each.prompt][:NUM_SENTENCES]


def count(trained: Trained, blanks: list[Example]) -> Counts:
    """Fill each blank with and without the blank before it."""
    typed, joined, first, five, doubled = 0, 0, 0, 0, 0
    for example in blanks:
        filled = trained.fill(example.prompt, _MAX_NEW_TOKENS, num_guesses=5)
        bare = trained.fill(example.prompt.replace(f" {MASK_TEXT}", MASK_TEXT), _MAX_NEW_TOKENS)
        words = [guess.text for guess in filled.guesses[0]]
        typed += filled.spans[0].strip() == example.truth
        joined += bare.spans[0].strip() == example.truth
        first += words[0] == example.truth
        five += example.truth in words
        doubled += "  " in filled.text
    return Counts(typed, joined, first, five, doubled, len(blanks))


def failures(counts: Counts) -> list[str]:
    """What the figures fall short of, a line each."""
    found = []
    if counts.right_typed < counts.right_joined:
        found.append(
            f"{counts.right_typed} are right as typed, {counts.right_joined} without the blank"
        )
    if counts.doubled:
        found.append(f"{counts.doubled} texts have a doubled blank")
    if counts.total < NUM_SENTENCES:
        found.append(f"{counts.total} sentences were found instead of {NUM_SENTENCES}")
    return found


def report(run: Path) -> int:
    """Print the figures and what they fall short of; returns the exit code."""
    trained = Trained.load(run)
    blanks = held_out_blanks(run, trained)
    counts = count(trained, blanks)
    for name, value in vars(counts).items():
        print(f"{name:<14} {value}")
    for example in blanks[:3]:
        filled = trained.fill(example.prompt, _MAX_NEW_TOKENS)
        print(visible(f"{example.prompt} -> {filled.spans[0]!r}, truth {example.truth!r}", keep=""))
    short = failures(counts)
    for line in short:
        print(f"falls short: {line}")
    return 1 if short else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(report(Path(sys.argv[1])))
