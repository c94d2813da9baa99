"""The few blanks of held-out sentences that a run fills again and again: functions of its corpora, tokenizer and seed.

Each is a text as a user would type it, and its row is the one that `python -m glm.generate` makes of that text.
"""

from dataclasses import dataclass

from configs.objectives import text_shares
from configs.schema import Config
from data_pipeline.corpus import Corpora
from data_pipeline.special_tokens import GMASK_TEXT, MASK_TEXT, SMASK_TEXT
from data_pipeline.tokenizer import Tokenizer
from glm.prompt import Blanks, Objectives, Prompt
from train.showcase.sentences import (
    Example,
    hide_ends,
    hide_words,
    in_turn,
    sentences_of_sources,
)

NUM_WORDS, NUM_ENDS = 4, 2
"""Blanks inside a sentence, and at its end."""
LONGEST_WORD, LONGEST_END = 16, 32
"""Most tokens that each is filled with."""
# Fewer than the showcase reads: a handful of sentences is chosen, by rank 0 while the others wait.
_NUM_SENTENCES, _TOKENS_READ = 60, 30_000


@dataclass(frozen=True)
class HeldOutBlank:
    """A held-out sentence with one blank."""

    objective: str
    """Key of the objective that teaches to fill it."""
    text: str
    """With its marker."""
    truth: str
    """What was hidden."""
    row: Blanks
    """Its span is still empty."""
    max_new_tokens: int

    def filled(self, span: str) -> str:
        """What stands in the text's place of the blank.

        Args:
            span: decoded tokens.
        """
        (found,) = (part for part in Prompt.parse(self.text).filled([span]) if part.is_filled)
        return found.text


def held_out_blanks(config: Config, corpora: Corpora, tokenizer: Tokenizer) -> list[HeldOutBlank]:
    """Choose them; sentences of all held-out sources take turns.

    Args:
        config: of the run. Only objectives with a share have blanks.
        corpora: its held-out text is read.
        tokenizer: of the run.

    Raises:
        DataError: a shard cannot be read.
    """
    sources = sentences_of_sources(corpora, tokenizer, config.seed, _NUM_SENTENCES, _TOKENS_READ)
    seq_length = config.model.seq_length
    usable = [
        [each for each in one if len(each) < seq_length and _has_no_marker(each, tokenizer)]
        for one in sources
    ]
    # From the two ends of each list: unless it is short, no sentence has both kinds of blanks.
    words = hide_words(in_turn(usable, tokenizer), tokenizer, NUM_WORDS, config.seed)
    ends = hide_ends(in_turn((one[::-1] for one in usable), tokenizer), tokenizer, NUM_ENDS)
    taught = {
        each.blank: each.key for each, share in reversed(text_shares(config.objective)) if share > 0
    }
    return [
        _posed(example, taught[blank], most, config, tokenizer)
        for blank, examples, most in (("inside", words, LONGEST_WORD), ("end", ends, LONGEST_END))
        if blank in taught
        for example in examples
    ]


def _has_no_marker(tokens: list[int], tokenizer: Tokenizer) -> bool:
    text = tokenizer.decode(tokens)
    return not any(marker in text for marker in (MASK_TEXT, GMASK_TEXT, SMASK_TEXT))


def _posed(
    example: Example, objective: str, most: int, config: Config, tokenizer: Tokenizer
) -> HeldOutBlank:
    row = Prompt.parse(example.prompt).blanks(tokenizer, Objectives.of(config))
    row.spans.append([])
    return HeldOutBlank(objective, example.prompt, example.truth, row, most)
