"""Fill blanks with a trained GLM:  python -m glm.generate runs/default --text "Return a [MASK] of the list."

    python -m glm.generate runs/default --text "Return a [MASK] of the list." --top 5    the best guesses, too
    python -m glm.generate runs/default --json < prompts.txt                             one JSON object a line

Every `[MASK]` is filled in turn, left to right, each with the text and the blanks already filled before it; a
`[gMASK]` at the end continues the text. This file reads the command line and prints; glm/filling.py runs the model,
and is imported only after the command line has been checked: importing PyTorch takes seconds.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_USER_INPUT,
    DataError,
    UserError,
)
from configs.option_names import as_options
from configs.percent import percent
from configs.terminal import LOADING, prepare_streams, shows_colours, tell, visible
from configs.version import VERSION, ShowVersion

if TYPE_CHECKING:
    from glm.filling import Filled, Guess

_FILLED, _PLAIN = "\x1b[1;4m", "\x1b[0m"
_MOST_GUESSES = 100
_LARGEST_SEED = 2**63 - 1
# Outside of this range the probabilities of all tokens are 0 and 1, or equal.
_TEMPERATURES = (1e-3, 1e3)


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    prepare_streams()
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except UserError as error:
        tell(as_options(str(error), {"data.tokenizer": "--tokenizer"}), sys.stderr)
        return EXIT_USER_INPUT
    except BrokenPipeError:
        # The reader has gone; what is still in the buffer must not be written again when the process exits.
        sys.stdout = None
        return EXIT_DONE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_DONE


def _run(options: argparse.Namespace) -> None:
    given = options.text or (["-"] if not _is_terminal(sys.stdin) else [])
    if not given:
        raise DataError(
            'Nothing to fill. Type --text "Return a [MASK] of the list.", or give texts on standard input, one a line.'
        )
    # Mistakes are reported before PyTorch is imported and the model is loaded, which takes seconds.
    from data_pipeline.tokenizer import load_tokenizer
    from glm.checkpoint.presence import check_presence
    from glm.prompt import Prompt

    for text in given:
        if text != "-":
            Prompt.parse(text)
    check_presence(options.checkpoint)
    if options.tokenizer is not None:
        load_tokenizer(options.tokenizer)
    if _is_terminal(sys.stderr):
        tell(LOADING, sys.stderr)
    from glm.filling import Sampling, Trained

    trained = Trained.load(options.checkpoint, options.tokenizer)
    sampling = Sampling(options.temperature, options.top_p, options.seed)
    show = _print_json if options.json else _print_text
    is_first = True
    for text, where in _texts(given):
        try:
            filled = trained.fill(text, options.max_new_tokens, sampling, options.top)
        except DataError as error:
            raise DataError(f"{where}{error}") from error
        if not (is_first or options.json):
            sys.stdout.write("\n")
        show(text, filled)
        sys.stdout.flush()
        is_first = False


def _texts(given: list[str]) -> Iterator[tuple[str, str]]:
    """Each text, and its place for messages; "-" means the lines of standard input."""
    for text in given:
        if text != "-":
            yield text, ""
            continue
        try:
            for number, line in enumerate(sys.stdin, start=1):
                if line.strip():
                    yield line.rstrip("\r\n"), f"Standard input, line {number}: "
        except UnicodeDecodeError as error:
            raise DataError(f"Standard input is not UTF-8 text ({error.reason}).") from error


def _print_text(text: str, filled: "Filled") -> None:
    """The text, what was filled in marked on a terminal and without white space at its end; then the guesses."""
    before, after = (_FILLED, _PLAIN) if shows_colours(sys.stdout) else ("", "")
    follows = [part.text for part in filled.parts[1:]] + [""]
    for part, following in zip(filled.parts, follows, strict=True):
        # White space at the end of a span is dropped, except before a word, where it separates the two.
        is_cut = part.is_filled and not following[:1].isalnum()
        shown = visible(part.text.rstrip() if is_cut else part.text)
        sys.stdout.write(f"{before}{shown}{after}" if part.is_filled and shown else shown)
    sys.stdout.write("\n")
    for number, guesses in enumerate(filled.guesses, start=1):
        name = f"blank {number}" if len(filled.guesses) > 1 else "blank"
        sys.stdout.write(f"  {name}: {', '.join(map(_guess_text, guesses))}\n")


def _guess_text(guess: "Guess") -> str:
    return f"{guess.text!r} {percent(guess.probability, 1)}"


def _print_json(text: str, filled: "Filled") -> None:
    """One object a line."""
    record: dict[str, Any] = {
        "prompt": text,
        "text": filled.text,
        "spans": filled.spans,
        "guesses": [
            [{"text": guess.text, "probability": guess.probability} for guess in guesses]
            for guesses in filled.guesses
        ],
    }
    sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")


def _is_terminal(stream: Any) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # the process was started without one, or it is closed
        return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m glm.generate",
        description="Fill [MASK] blanks, or continue a text at [gMASK].",
        epilog='For example: python -m glm.generate runs/default --text "Return a [MASK] of the list." --top 5',
    )
    parser.add_argument(VERSION, action=ShowVersion)
    parser.add_argument("checkpoint", type=Path, help="run folder or checkpoint folder")
    parser.add_argument(
        "--text",
        action="append",
        help='a text with [MASK] blanks or a [gMASK] at its end; may be repeated; "-" (default where nothing is typed): '
        "the lines of standard input",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=_count(1, 2**31),
        default=64,
        metavar="N",
        help="per blank; default 64",
    )
    parser.add_argument(
        "--temperature",
        type=_temperature,
        default=0.0,
        metavar="T",
        help="0 (default): the most probable token; 1: as the model has it; higher: bolder",
    )
    parser.add_argument(
        "--top-p",
        type=_share,
        default=1.0,
        metavar="P",
        help="draw among the most probable tokens that together have this probability; default 1, all",
    )
    parser.add_argument(
        "--seed",
        type=_count(0, _LARGEST_SEED),
        default=0,
        metavar="N",
        help="of what is drawn; default 0",
    )
    parser.add_argument(
        "--top",
        type=_count(1, _MOST_GUESSES),
        default=0,
        metavar="N",
        help="also show the N best guesses at each blank's first word, with their probabilities",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line: prompt, text, spans, guesses",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="SPEC",
        help="hf:FILE, sp:FILE, icetk:FILE or bytes; default: the run's own",
    )
    return parser


def _count(least: int, most: int) -> Any:
    def read(text: str) -> int:
        number = int(text) if text.lstrip("+-").isdecimal() and len(text) < 25 else None
        if number is None or not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f'"{text}" is not a whole number from {least} to {most:,}'
            )
        return number

    return read


def _temperature(text: str) -> float:
    number = _number(text)
    least, most = _TEMPERATURES
    if number != 0.0 and not least <= number <= most:
        raise argparse.ArgumentTypeError(f'"{text}" is neither 0 nor from {least:g} to {most:g}')
    return number


def _share(text: str) -> float:
    number = _number(text)
    if not 0.0 < number <= 1.0:
        raise argparse.ArgumentTypeError(f'"{text}" is not above 0 and at most 1')
    return number


def _number(text: str) -> float:
    """A number; nan for anything else, which is in no range."""
    try:
        return float(text)
    except ValueError:
        return math.nan


if __name__ == "__main__":
    sys.exit(cli())
