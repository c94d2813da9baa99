"""The command line: python -m train.history runs/default."""

import argparse
import sys
from pathlib import Path

from configs.errors import EXIT_DONE, EXIT_PEER_FAILED, EXIT_USER_INPUT, UserError
from configs.terminal import columns, prepare_streams, tell
from configs.version import VERSION, ShowVersion
from train.failures import may_pass
from train.history.text import history


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    prepare_streams()
    parser = argparse.ArgumentParser(
        prog="python -m train.history",
        description=(
            "What happened to a run, in order: starts and resumes with their layouts, changes of the configuration and "
            "the schedules, spikes, rollbacks and what they left out, slow ranks, weights that differ, hangs, errors. "
            "Checkpoints and steps that were left out are summed up. Times are in UTC."
        ),
    )
    parser.add_argument(VERSION, action=ShowVersion)
    parser.add_argument("run", type=Path, help="run folder")
    options = parser.parse_args(arguments)

    def report(text: str) -> None:
        tell(text, sys.stderr)

    try:
        tell(history(options.run, report, columns()))
    except UserError as error:
        report(str(error))
        return EXIT_USER_INPUT
    except OSError as error:
        report(f"{options.run} cannot be read: {error.strerror}.")
        return EXIT_PEER_FAILED if may_pass(error) else EXIT_USER_INPUT
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(cli())
