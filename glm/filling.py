"""Fill blanks with a trained model, by the most probable tokens or by sampling, and guess first words.

Every blank is filled in turn, left to right, each with the text and the blanks already filled before it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path

import torch

from configs.errors import CheckpointError, DataError
from configs.run_checkpoints import run_folder_of
from data_pipeline.special_tokens import SpecialTokens
from data_pipeline.tokenizer import Tokenizer, kept_tokenizer, load_tokenizer
from glm.completion import SpanTokens, complete_spans
from glm.load import load_weights, read_checkpoint, stored_config
from glm.model import GLMModel
from glm.prompt import Blanks, Objectives, Prompt, TextPart, span_text
from glm.row_fields import pack_fields
from glm.words import INCOMPLETE, is_whole

# A word that is not complete after this many tokens is given up; byte vocabularies need many.
_LONGEST_WORD = 16
# Number of beams in addition to the number of guesses that was asked for.
_SPARE_WORDS = 5


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0
    """Sampling temperature; 0: always the most probable token."""
    top_p: float = 1.0
    """Choose among the most probable tokens that together have this probability."""
    seed: int = 0
    """Seed for sampling."""


@dataclass(frozen=True)
class Guess:
    """What a blank might begin with."""

    text: str
    """A word, a punctuation mark or white space."""
    probability: float
    """Probability that the blank begins with exactly this word, given that the blank is not empty."""


@dataclass(frozen=True)
class Filled:
    """A text with its blanks filled."""

    parts: list[TextPart]
    """The pieces of the user's text and the model's spans, alternating."""
    guesses: list[list[Guess]]
    """For each blank, the guesses at its first word, best first; empty if none were asked for."""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(part.text for part in self.parts)

    @property
    def spans(self) -> list[str]:
        """What was filled into each blank, in text order, exactly as in the text."""
        return [part.text for part in self.parts if part.is_filled]


@dataclass
class Trained:
    """A trained model with its tokenizer and what it was trained on.

    `Trained.load("runs/default")` loads one.
    """

    model: GLMModel
    """The model, in evaluation mode."""
    tokenizer: Tokenizer
    """The tokenizer that the model was trained with."""
    objectives: Objectives

    @classmethod
    def load(cls, path: str | Path, tokenizer: str | None = None) -> "Trained":
        """Load a run's newest good checkpoint, or the checkpoint given.

        Args:
            path: run folder or checkpoint folder.
            tokenizer: spec of its tokenizer; default: the one kept in the run folder.

        Raises:
            UserError: there is none, it is damaged, or no tokenizer is known.
        """
        path = Path(path)

        def read(folder: Path) -> "Trained":
            config = stored_config(folder)
            loaded = find_tokenizer(path, tokenizer)
            return cls(load_weights(folder, config), loaded, Objectives.of(config))

        return read_checkpoint(path, read)

    @cached_property
    def span_tokens(self) -> SpanTokens:
        """What the tokens of its vocabulary may do in a span."""
        return SpanTokens(self.tokenizer, self.model.embedding.weight.shape[0])

    def fill(
        self,
        text: str,
        max_new_tokens: int = 64,
        sampling: Sampling | None = None,
        num_guesses: int = 0,
    ) -> Filled:
        """Fill every blank of a text.

        Args:
            text: with `[MASK]` blanks, or one `[gMASK]` at its end.
            max_new_tokens: longest span, in tokens.
            sampling: how tokens are chosen; default the most probable.
            num_guesses: how many guesses at each blank's first word to return as well.

        Raises:
            DataError: no usable marker, or a text longer than the model's row.
        """
        sampling = sampling or Sampling()
        generator = torch.Generator().manual_seed(sampling.seed)
        prompt = Prompt.parse(text)
        row = prompt.blanks(self.tokenizer, self.objectives)
        check_length(row, self.model.config.seq_length)
        guesses: list[list[Guess]] = []
        for has_blank in prompt.has_blank:
            row.spans.append([])
            if num_guesses:
                guesses.append(self.guess(row, num_guesses, has_blank, words_only=not row.goes_on))
            row.spans[-1] = self.complete(row, max_new_tokens, sampling, generator)
        spans = [span_text(self.tokenizer, span) for span in row.spans]
        return Filled(prompt.filled(spans), guesses)

    def complete(
        self,
        row: Blanks,
        max_new_tokens: int,
        sampling: Sampling,
        generator: torch.Generator | None = None,
    ) -> list[int]:
        """Generate the tokens of a row's last blank, whose span is still empty; `generator` is used for sampling."""

        def following(rows: Sequence[Blanks]) -> list[int]:
            scores = self._scores(rows)
            self.span_tokens.leave_out_white_space(scores, rows)
            return [choose(each, sampling, generator) for each in scores]

        seq_length, special = self.model.config.seq_length, self.tokenizer.special
        return complete_spans([row], [max_new_tokens], seq_length, special, following)[0]

    def guess(
        self, row: Blanks, number: int, has_blank: bool, words_only: bool = False
    ) -> list[Guess]:
        """Find the most probable first words of a row's last blank, whose span is still empty.

        This is a beam search over tokens, so a word that begins with an improbable token may be missed.

        Args:
            row: text with blanks, all but the last one filled.
            number: number of guesses.
            has_blank: a blank was typed before the marker, so " word" and "word" count as the same word.
            words_only: leave out marks and white space; the probabilities of the rest do not change.
        """
        width = number + _SPARE_WORDS
        ends = [self.tokenizer.special.eop, self.tokenizer.special.eos]
        first = self._scores([row])
        first[:, ends] = float("-inf")
        first = first.log_softmax(-1)
        if words_only:
            first[:, self.span_tokens.begins_no_word] = float("-inf")
        found: dict[str, float] = {}
        words = _best([([], 0.0)], first, width)
        for length in range(1, _LONGEST_WORD + 1):
            growing: list[_Word] = []
            texts: list[str] = []
            for tokens, score in words:
                text = span_text(self.tokenizer, tokens)
                if is_whole(text) or length == _LONGEST_WORD:
                    _add(found, text, score, has_blank)
                else:
                    growing.append((tokens, score))
                    texts.append(text)
            best = sorted(found.values(), reverse=True)[:number]
            if len(best) == number:  # a longer word is never more probable
                still = [math.exp(score) > best[-1] for _, score in growing]
                growing, texts = list(compress(growing, still)), list(compress(texts, still))
            if not growing:
                break
            rows = [
                Blanks(row.context, row.blank_positions, row.goes_on, [*row.spans[:-1], tokens])
                for tokens, _ in growing
            ]
            following = self._scores(rows).log_softmax(-1)
            for (_, score), text, log_chances in zip(growing, texts, following, strict=True):
                if text.strip(" "):
                    is_end = self.span_tokens.starts_something
                    _add(found, text, score + float(log_chances[is_end].logsumexp(-1)), has_blank)
                    log_chances[is_end] = float("-inf")
                else:  # a blank before a word does not end it
                    log_chances[ends] = float("-inf")
            words = _best(growing, following, width)
        ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        return [Guess(text, probability) for text, probability in ranked[:number]]

    def _scores(self, rows: Sequence[Blanks]) -> torch.Tensor:
        """(rows, vocab) logits of the next token of each; -inf for what no span contains."""
        logits = next_token_logits(self.model, rows, self.tokenizer.special)
        self.span_tokens.leave_out_impossible(logits)
        return logits


@torch.no_grad()
def next_token_logits(
    model: GLMModel, rows: Sequence[Blanks], special: SpecialTokens
) -> torch.Tensor:
    """Score the token that follows each row.

    Args:
        model: in evaluation mode.
        rows: texts with blanks, whose last span is being generated.
        special: ids of the special tokens.

    Returns:
        (rows, vocab) fp32 logits.
    """
    return model(*layout_of(rows, special)).float()


def layout_of(
    rows: Sequence[Blanks], special: SpecialTokens, seq_length: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Build ids (rows, seq) and fields (rows, 6, seq) that ask for logits at each row's last place.

    Args:
        rows: texts with blanks.
        special: ids of the special tokens.
        seq_length: what rows are padded to at least; the longest one counts where it is longer.
    """
    laid_out = [row.segment(special) for row in rows]
    shape = (len(rows), max(seq_length, *map(len, laid_out)))
    tokens, positions, blocks = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    segments = torch.zeros(shape, dtype=torch.int64)
    is_context, is_target = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
    for index, segment in enumerate(laid_out):
        length = len(segment)
        tokens[index, :length] = torch.from_numpy(segment.tokens)
        positions[index, :length] = torch.from_numpy(segment.position_ids)
        blocks[index, :length] = torch.from_numpy(segment.block_position_ids)
        segments[index, :length] = 1
        is_context[index, :length] = torch.from_numpy(segment.is_context)
        is_target[index, length - 1] = True
    sample_index = torch.arange(len(rows))
    return tokens, pack_fields(segments, is_context, positions, blocks, is_target, sample_index)


def choose(
    logits: torch.Tensor, sampling: Sampling, generator: torch.Generator | None = None
) -> int:
    """Choose one token from (vocab,) logits."""
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    probabilities = (logits / sampling.temperature).softmax(-1)
    ordered, tokens = probabilities.sort(descending=True)
    # Keep a token if those before it do not yet reach top_p: at least one token is kept.
    ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0.0
    return int(tokens[torch.multinomial(ordered, 1, generator=generator)])


def check_length(row: Blanks, seq_length: int) -> None:
    """Raise a DataError if a row has no room left for a span of one token."""
    if len(row.context) + 1 > seq_length:
        raise DataError(
            f"The text has {len(row.context):,} tokens; the model was trained on rows of {seq_length:,}. "
            "Give a shorter --text."
        )


def find_tokenizer(path: str | Path, spec: str | None = None) -> Tokenizer:
    """Load the tokenizer given, or the one kept in the run folder that `path` belongs to.

    Raises:
        CheckpointError: none is given, and none is kept.
        DataError: it cannot be used.
    """
    spec = spec or kept_tokenizer(run_folder_of(Path(path)))
    if spec is None:
        raise CheckpointError(
            f"{path} has no tokenizer beside it. Name the one it was trained with: --tokenizer hf:FILE"
        )
    return load_tokenizer(spec)


_Word = tuple[list[int], float]
"""Tokens and their log-probability."""


def _best(words: Sequence[_Word], following: torch.Tensor, width: int) -> list[_Word]:
    """Extend words by one token, keeping the most probable; `following` is (words, vocab) log-probabilities."""
    longer: list[_Word] = []
    for (tokens, score), row in zip(words, following, strict=True):
        values, ids = row.topk(min(width, len(row)))
        longer += [
            ([*tokens, token], score + value)
            for value, token in zip(values.tolist(), ids.tolist(), strict=True)
            if math.isfinite(value)
        ]
    return sorted(longer, key=lambda word: -word[1])[:width]


def _add(found: dict[str, float], text: str, score: float, has_blank: bool) -> None:
    """Add up the probabilities of equal words that are made of different tokens; parts of characters are not words."""
    key = text.lstrip(" ") if has_blank else text
    if key and INCOMPLETE not in key:
        found[key] = found.get(key, 0.0) + math.exp(score)
