"""The command line: python -m train.profile runs/default."""

import argparse
import sys
from pathlib import Path

from configs.errors import (
    EXIT_DONE,
    EXIT_PEER_FAILED,
    EXIT_USER_INPUT,
    RecordError,
    UserError,
)
from configs.terminal import prepare_streams, tell
from configs.version import VERSION, ShowVersion
from train.failures import may_pass
from train.profile.shares import shares_of
from train.profile.summary import summary
from train.profile.trace import read_trace, traces_of


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    prepare_streams()
    parser = argparse.ArgumentParser(
        prog="python -m train.profile",
        description=(
            "Where the time of profiled steps goes, from the traces that log.profile_steps=[a,b] has written: parts of the "
            "model, communication, pipeline bubble, operators. The traces open in ui.perfetto.dev as well."
        ),
    )
    parser.add_argument(VERSION, action=ShowVersion)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--rank", type=int, help="one rank; default: all that were profiled")
    options = parser.parse_args(arguments)
    try:
        damaged = profile(options.run, options.rank)
    except UserError as error:
        tell(str(error), sys.stderr)
        return EXIT_USER_INPUT
    except OSError as error:
        tell(f"{options.run} cannot be read: {error.strerror}.", sys.stderr)
        return EXIT_PEER_FAILED if may_pass(error) else EXIT_USER_INPUT
    return EXIT_USER_INPUT if damaged else EXIT_DONE


def profile(run: Path, rank: int | None) -> bool:
    """Print the summaries of a run's newest traces; returns whether one of them could not be read.

    Args:
        run: run folder.
        rank: one rank; None: all.

    Raises:
        RunFolderError: there is no such trace.
        OSError: the file system failed.
    """
    damaged, blank = False, list[str]()
    for path in traces_of(run, rank):
        try:
            trace = read_trace(path)
            shares = shares_of(trace)
            if not shares.steps:
                raise RecordError(f"{path} has no whole step in it. Profile the steps again.")
        except RecordError as error:
            tell(str(error), sys.stderr)
            damaged = True
            continue
        for line in (*blank, *summary(shares, trace.rank)):
            tell(line)
        blank = [""]
    return damaged


if __name__ == "__main__":
    sys.exit(cli())
