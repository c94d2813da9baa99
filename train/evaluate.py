"""Held-out loss of a checkpoint:  python -m train.evaluate runs/default [eval.num_samples=256 data.valid_paths=FILE]

The configuration is the checkpoint's, changed by the overrides; the tokenizer is the run's. This file reads the command
line and prints; train/held_out.py measures. It is imported after the first message is printed, because importing
PyTorch takes seconds.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USER_INPUT, UserError
from configs.terminal import LOADING, prepare_streams, tell, visible
from configs.version import VERSION, ShowVersion

if TYPE_CHECKING:
    from train.held_out import Measured

_SECONDS_BETWEEN_LINES = 10.0


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    prepare_streams()
    options = _parser().parse_intermixed_args(arguments)
    progress = _Progress()
    try:
        _check(options.checkpoint, options.overrides)
        progress.log(LOADING)
        from train.held_out import measure

        measured = measure(options.checkpoint, options.overrides, progress.log, progress.advance)
        progress.clear()
        sys.stdout.write(_as_json(measured) if options.json else _as_text(measured))
        sys.stdout.flush()
    except UserError as error:
        progress.clear()
        tell(str(error), sys.stderr)
        return EXIT_USER_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_DONE


def _check(checkpoint: Path, overrides: list[str]) -> None:
    """Report typing mistakes before PyTorch is imported."""
    from configs.load import apply_overrides
    from glm.checkpoint.presence import check_presence, early_config

    check_presence(checkpoint)
    stored = early_config(checkpoint)
    if stored is not None:
        stored.data.cache_dir = stored.data.tokenizer = None
        apply_overrides(stored, overrides)


class _Progress:
    """Progress on standard error: one line that changes on a terminal, a new line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._last_printed = time.monotonic()

    def log(self, text: str) -> None:
        """Print a message."""
        self.clear()
        tell(text, sys.stderr)

    def advance(self, done: int, total: int) -> None:
        """Show how many of how many rows are done."""
        text = f"{done:,} of {total:,} held-out rows"
        if self._is_terminal:
            sys.stderr.write(f"\r{text}")
            sys.stderr.flush()
        elif time.monotonic() - self._last_printed >= _SECONDS_BETWEEN_LINES:
            self._last_printed = time.monotonic()
            tell(text, sys.stderr)

    def clear(self) -> None:
        """Erase the changing line."""
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _as_text(measured: "Measured") -> str:
    from train.loss_table import HEADING, row, title_of

    lines = [
        f"checkpoint  {visible(measured.checkpoint, keep='')}",
        f"            step {measured.step:,}, {measured.samples_seen:,} samples seen",
        f"held out    {measured.num_rows:,} rows, {measured.num_targets:,} tokens predicted",
        "",
        HEADING,
    ]
    for name, loss in measured.losses.items():
        if loss is not None:
            lines.append(row(title_of(name), loss, measured.unigram.get(name), digits=4))
    return "".join(f"{line}\n" for line in lines)


def _as_json(measured: "Measured") -> str:
    from train.metrics import to_json_value

    record = dataclasses.asdict(measured)
    losses = {name: to_json_value(value) for name, value in measured.losses.items()}
    return json.dumps(record | {"losses": losses}) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description="Held-out loss of a checkpoint, overall and per objective, beside the best unigram model's.",
        epilog="For example: python -m train.evaluate runs/default eval.num_samples=256 data.valid_paths=mine.jsonl",
    )
    parser.add_argument(VERSION, action=ShowVersion)
    parser.add_argument("checkpoint", type=Path, help="run folder or checkpoint folder")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        default=[],  # without it argparse calls them required
        help="changes to the checkpoint's configuration; python -m train --help lists the keys",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(cli())
