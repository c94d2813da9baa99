"""Fill blanks with a trained GLM:  python -m glm.generate runs/default --text "the [MASK] of a list"

Every `[MASK]` is filled in turn, left to right, each with the text and the blanks already filled before it; a
`[gMASK]` at the end continues the text. GLM (Du et al. 2022) section 2.1; GLM-130B (Zeng et al. 2022) section 2.2.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from configs.errors import EXIT_DONE, EXIT_USER_INPUT, CheckpointError, DataError, UserError
from data_pipeline.special_tokens import SpecialTokens
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from glm.layout import pack_layout
from glm.load import load_model, run_folder_of
from glm.model import GLMModel

MASK_TEXT = "[MASK]"
GMASK_TEXT = "[gMASK]"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0
    """0: the most probable token."""
    top_p: float = 1.0
    """Choose among the most probable tokens that together have this probability."""
    seed: int = 0
    """Seed of the random choice."""


@dataclass(frozen=True)
class Filled:
    """A text with its blanks filled."""

    text: str
    spans: list[str]
    """What was filled into each blank, in text order."""


@dataclass
class Blanks:
    """Token ids of a text with blanks, and what was generated so far.

    The context comes first, then `<sop> + span` for every blank in order: the row that training builds, without the
    targets that are not known yet.
    """

    context: list[int]
    blank_positions: list[int]
    is_gmask: bool
    spans: list[list[int]]

    @classmethod
    def from_text(cls, text: str, tokenizer: Tokenizer) -> "Blanks":
        """Tokenize `text`; its markers become mask tokens.

        Raises:
            DataError: no marker, both kinds, or a `[gMASK]` that is not the end.
        """
        has_mask, has_gmask = MASK_TEXT in text, GMASK_TEXT in text
        if has_mask == has_gmask:
            raise DataError(
                f'The text ("{text}") must have either {MASK_TEXT} blanks or one {GMASK_TEXT} at its end. '
                f'For example --text "Paris is the {MASK_TEXT} of France" or --text "Once upon a time {GMASK_TEXT}".'
            )
        if has_gmask and not (text.rstrip().endswith(GMASK_TEXT) and text.count(GMASK_TEXT) == 1):
            raise DataError(
                f"{GMASK_TEXT} continues a text, so it may stand only once, at the end."
            )
        marker = GMASK_TEXT if has_gmask else MASK_TEXT
        token = tokenizer.special.gmask if has_gmask else tokenizer.special.mask
        context: list[int] = []
        positions: list[int] = []
        pieces = text.rstrip().split(marker)
        for index, piece in enumerate(pieces):
            context += tokenizer.encode(piece, is_continuation=index > 0)
            if index < len(pieces) - 1:
                positions.append(len(context))
                context.append(token)
        return cls(context, positions, has_gmask, [])

    def arrays(self, sop: int) -> tuple[list[int], list[int], list[int]]:
        """Lay out the row: tokens, position ids, block position ids, each (seq,)."""
        tokens, positions = list(self.context), list(range(len(self.context)))
        blocks = [0] * len(self.context)
        for blank, span in zip(self.blank_positions, self.spans, strict=False):
            length = 1 + len(span)
            tokens += [sop, *span]
            start = len(self.context)
            positions += range(start, start + length) if self.is_gmask else [blank] * length
            blocks += range(1, length + 1)
        return tokens, positions, blocks


@torch.no_grad()
def next_token_logits(model: GLMModel, rows: Sequence[Blanks], sop: int) -> torch.Tensor:
    """Score the token that follows each row.

    Args:
        model: in evaluation mode.
        rows: blanks whose last span is being generated.
        sop: id of `<sop>`.

    Returns:
        (rows, vocab) fp32 logits.
    """
    arrays = [row.arrays(sop) for row in rows]
    longest = max(len(tokens) for tokens, _, _ in arrays)
    shape = (len(rows), longest)
    tokens, positions, blocks = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    segments = torch.zeros(shape, dtype=torch.int64)
    is_context, is_target = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
    for index, (row, (ids, position_ids, block_ids)) in enumerate(zip(rows, arrays, strict=True)):
        length = len(ids)
        tokens[index, :length] = torch.tensor(ids)
        positions[index, :length] = torch.tensor(position_ids)
        blocks[index, :length] = torch.tensor(block_ids)
        segments[index, :length] = 1
        is_context[index, : len(row.context)] = True
        is_target[index, length - 1] = True
    sample_index = torch.arange(len(rows))
    layout = pack_layout(segments, is_context, positions, blocks, is_target, sample_index)
    return model(tokens, layout).float()


def fill(
    model: GLMModel,
    tokenizer: Tokenizer,
    text: str,
    max_new_tokens: int = 64,
    sampling: Sampling | None = None,
) -> Filled:
    """Fill every blank of `text`.

    Args:
        model: in evaluation mode.
        tokenizer: the one that the model was trained with.
        text: with `[MASK]` blanks, or one `[gMASK]` at its end.
        max_new_tokens: longest span, in tokens.
        sampling: how tokens are chosen; default the most probable.

    Raises:
        DataError: no usable marker, or a text longer than the model's row.
    """
    sampling = sampling or Sampling()
    generator = torch.Generator().manual_seed(sampling.seed)
    row = Blanks.from_text(text, tokenizer)
    if len(row.context) + 1 > model.config.seq_length:
        raise DataError(
            f"The text has {len(row.context)} tokens; the model was trained on rows of "
            f"{model.config.seq_length}. Give a shorter --text."
        )
    for _ in row.blank_positions:
        row.spans.append([])
        room = model.config.seq_length - len(row.arrays(tokenizer.special.sop)[0])
        for token in _generate(model, row, tokenizer, sampling, generator):
            row.spans[-1].append(token)
            if len(row.spans[-1]) >= min(max_new_tokens, max(room, 0)):
                break
    spans = [
        tokenizer.decode_span(span, follows=blank > 0)
        for blank, span in zip(row.blank_positions, row.spans, strict=True)
    ]
    return Filled(_splice(text, spans, GMASK_TEXT if row.is_gmask else MASK_TEXT), spans)


def _generate(
    model: GLMModel,
    row: Blanks,
    tokenizer: Tokenizer,
    sampling: Sampling,
    generator: torch.Generator,
) -> Iterator[int]:
    special = tokenizer.special
    while True:
        logits = next_token_logits(model, [row], special.sop)[0]
        token = choose(_allowed(logits, special, tokenizer.vocab_size), sampling, generator)
        if token in (special.eop, special.eos):
            return
        yield token


def _allowed(logits: torch.Tensor, special: SpecialTokens, vocab_size: int) -> torch.Tensor:
    """Rule out what no span contains: markers, padding, and rows beyond the tokenizer."""
    logits = logits.clone()
    logits[vocab_size:] = float("-inf")
    logits[[special.mask, special.gmask, special.sop, special.pad]] = float("-inf")
    return logits


def choose(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Choose one token from (vocab,) logits."""
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    probabilities = (logits / sampling.temperature).softmax(-1)
    ordered, tokens = probabilities.sort(descending=True)
    # Keep a token if those before it do not yet reach top_p: at least one stays.
    ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0.0
    return int(tokens[torch.multinomial(ordered, 1, generator=generator)])


def _splice(text: str, spans: list[str], marker: str) -> str:
    pieces = text.rstrip().split(marker)
    filled = pieces[0]
    for span, piece in zip(spans, pieces[1:], strict=True):
        filled += span + piece
    return filled


def find_tokenizer(path: Path | str, spec: str | None = None) -> Tokenizer:
    """Load the tokenizer given, or the one kept in the run folder that `path` belongs to."""
    if spec is not None:
        return load_tokenizer(spec)
    folder = run_folder_of(Path(path)) / "tokenizer"
    spec_file = folder / "spec.txt"
    if not spec_file.is_file():
        raise CheckpointError(
            f"{path} has no tokenizer beside it. Name the one it was trained with: --tokenizer hf:FILE"
        )
    kind, _, name = spec_file.read_text().strip().partition(":")
    return load_tokenizer(f"{kind}:{folder / name}" if name else kind)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m glm.generate", description="Fill [MASK] blanks, or continue at [gMASK]."
    )
    parser.add_argument("checkpoint", type=Path, help="run folder or checkpoint folder")
    parser.add_argument("--text", required=True, action="append", help="may be repeated")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="per blank")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: most probable token")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", help="hf:FILE, sp:FILE, icetk:FILE or bytes")
    return parser


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        model = load_model(options.checkpoint)
        tokenizer = find_tokenizer(options.checkpoint, options.tokenizer)
        sampling = Sampling(options.temperature, options.top_p, options.seed)
        for text in options.text:
            filled = fill(model, tokenizer, text, options.max_new_tokens, sampling)
            sys.stdout.write(filled.text + "\n")
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USER_INPUT
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(cli())
