"""What to type to fill a blank: a few words of the run's own held-out text, of each of its first sources."""

import re
from collections.abc import Sequence

from configs.objectives import text_shares
from configs.schema import ObjectiveConfig
from data_pipeline.special_tokens import GMASK_TEXT, MASK_TEXT
from data_pipeline.tokenizer import Tokenizer
from train.showcase.sentences import Example, hide_ends, hide_words, in_turn

ANY_TEXT = {True: f"A text with a {MASK_TEXT}", False: f"The beginning of a text {GMASK_TEXT}"}
"""Where there is no text of the run's own: for blanks in a text, and at its end."""
_NUM_SOURCES = 2
_TRIED_SENTENCES = 50
# Around a blank; of a text without blanks between its words so many characters.
_NUM_WORDS, _NUM_CHARACTERS = 3, 8
_SHORTEST = 3
# Letters of any script, with what stands between them: nothing that a shell reads inside of double quotes.
_PLAIN = re.compile(r"(?:[^\W\d_]|[ ,'\u3000-\u3002\uff0c-])*")
# Kana and ideographs are written without blanks between words.
_UNSPACED = re.compile("[\u3040-\u9fff]")


def texts_to_type(
    sources: Sequence[list[list[int]]], tokenizer: Tokenizer, objective: ObjectiveConfig, seed: int
) -> list[str]:
    """Choose texts with a marker, for `python -m glm.generate --text`.

    Args:
        sources: held-out sentences of each source, token ids.
        tokenizer: theirs.
        objective: of the run, which says what blanks the model was trained to fill.
        seed: of the choice.

    Returns:
        One of each of the first sources, short enough for a command line; one that stands for any text if there is none.
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
        # The beginning of a sentence reads best; sorting keeps the order of the others.
        cut.sort(key=lambda pair: not pair[1].startswith(pair[0]))
        found += [text for text, _ in cut[:1]]
        if len(found) == _NUM_SOURCES:
            break
    return found or [ANY_TEXT[has_short]]


def _around(prompt: str, marker: str) -> str:
    """The words next to the marker; "" if they are not plain words, or too few to mean anything."""
    before, _, after = prompt.partition(marker)
    before, after = _last(before), _last(after[::-1])[::-1]
    is_plain = _PLAIN.fullmatch(before + after) is not None
    letters = sum(map(str.isalpha, before + after))
    is_enough = letters >= _SHORTEST and before.strip() and (marker == GMASK_TEXT or after.strip())
    return f"{before}{marker}{after}".strip() if is_plain and is_enough else ""


def _last(text: str) -> str:
    """The last few words of a text, with the blank behind them; of one without blanks the last characters."""
    words = re.findall(r"\S+\s*", text)[-_NUM_WORDS:]
    found = "".join(words)
    return found[-_NUM_CHARACTERS:] if _UNSPACED.search(found) else found
