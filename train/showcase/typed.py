"""Example texts with a blank to type: a few words of held-out text from each of the run's first sources."""

import re
from collections.abc import Sequence

from configs.objectives import text_shares
from configs.schema import ObjectiveConfig
from data_pipeline.special_tokens import GMASK_TEXT, MASK_TEXT
from data_pipeline.tokenizer import Tokenizer
from train.showcase.sentences import Example, hide_ends, hide_words, in_turn

ANY_TEXT = {True: f"A text with a {MASK_TEXT}", False: f"The beginning of a text {GMASK_TEXT}"}
"""Texts for a run without suitable text of its own: with a blank inside (True), or at the end (False)."""
_NUM_SOURCES = 2
_TRIED_SENTENCES = 50
# How many words to keep on each side of a blank, or characters where words are written without spaces.
_NUM_WORDS, _NUM_CHARACTERS = 3, 8
_SHORTEST = 3
# Letters of any script, spaces and plain punctuation: nothing that a shell interprets inside double quotes.
_PLAIN = re.compile(r"(?:[^\W\d_]|[ ,'\u3000-\u3002\uff0c-])*")
# Kana and ideographs are written without spaces between words.
_UNSPACED = re.compile("[\u3040-\u9fff]")


def texts_to_type(
    sources: Sequence[list[list[int]]], tokenizer: Tokenizer, objective: ObjectiveConfig, seed: int
) -> list[str]:
    """Choose texts with a marker, for `python -m glm.generate --text`.

    Args:
        sources: held-out sentences of each source, as token ids.
        tokenizer: the tokenizer of the sentences.
        objective: the run's objective settings, which determine the blanks that the model was trained to fill.
        seed: seed for the choice of words.

    Returns:
        One text from each of the first sources, short enough for a command line; a general one if there is none.
    """
    blanks = [each.blank for each, share in text_shares(objective) if share > 0]
    has_short = "inside" in blanks or "end" not in blanks

    def examples(source: list[list[int]]) -> list[Example]:
        sentences = in_turn([source], tokenizer)
        if has_short:
            return hide_words(sentences, tokenizer, _TRIED_SENTENCES, seed)
        return hide_ends(sentences, tokenizer, _TRIED_SENTENCES)

    marker = MASK_TEXT if has_short else GMASK_TEXT
    found: list[str] = []
    for source in sources:
        prompts = [example.prompt for example in examples(source)]
        cut = [(text, prompt) for prompt in prompts if (text := _around(prompt, marker))]
        # The beginning of a sentence reads best. The sort is stable, so the others keep their order.
        cut.sort(key=lambda pair: not pair[1].startswith(pair[0]))
        found += [text for text, _ in cut[:1]]
        if len(found) == _NUM_SOURCES:
            break
    return found or [ANY_TEXT[has_short]]


def _around(prompt: str, marker: str) -> str:
    """The words next to the marker; "" if they are not plain words, or too few to be meaningful."""
    before, _, after = prompt.partition(marker)
    before, after = _last(before), _last(after[::-1])[::-1]
    is_plain = _PLAIN.fullmatch(before + after) is not None
    letters = sum(map(str.isalpha, before + after))
    is_enough = letters >= _SHORTEST and before.strip() and (marker == GMASK_TEXT or after.strip())
    return f"{before}{marker}{after}".strip() if is_plain and is_enough else ""


def _last(text: str) -> str:
    """The last few words of a text, with spaces after them; its last characters if words are not separated by spaces."""
    words = re.findall(r"\S+\s*", text)[-_NUM_WORDS:]
    found = "".join(words)
    return found[-_NUM_CHARACTERS:] if _UNSPACED.search(found) else found
