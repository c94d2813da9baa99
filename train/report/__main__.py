"""The command line: python -m train.report runs/default."""

import argparse
import sys
from pathlib import Path

from configs.errors import EXIT_DONE, EXIT_PEER_FAILED, EXIT_USER_INPUT, UserError
from configs.run_paths import REPORT, RunPaths
from configs.terminal import tell
from configs.version import VERSION, ShowVersion
from train.failures import may_pass
from train.report.page import render, write
from train.report.serve import DEFAULT_PORT, open_server, serve


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.report",
        description=(
            "The curves of a run as one page; several runs are compared. With --serve the page follows runs that train: "
            "it is served to browsers on this machine until Ctrl-C."
        ),
    )
    parser.add_argument(VERSION, action=ShowVersion)
    parser.add_argument("runs", type=Path, nargs="+", metavar="run", help="run folder")
    parser.add_argument(
        "--serve", action="store_true", help="serve the page on this machine while the run trains"
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help=f"of --serve; default: {DEFAULT_PORT}, or any other"
    )
    parser.add_argument(
        "--output", type=Path, help=f"default: {REPORT} in the run folder, the first of several"
    )
    options = parser.parse_args(arguments)
    if options.serve and options.output is not None:
        parser.error("--serve writes no file: leave --output out.")
    if options.port is not None and not (options.serve and 0 <= options.port < 2**16):
        parser.error("--port N goes with --serve; N is a number from 0 (any free port) to 65535.")
    output = options.output or RunPaths(options.runs[0]).report

    def report(text: str) -> None:
        tell(text, sys.stderr)

    try:
        if options.serve:
            serve(open_server(options.runs, options.port, report), tell)
            return EXIT_DONE
        write(output, render(options.runs, report))
    except UserError as error:
        report(str(error))
        return EXIT_USER_INPUT
    except OSError as error:
        names = ", ".join(map(str, options.runs))
        report(f"{names} cannot be read: {error.strerror}.")
        return EXIT_PEER_FAILED if may_pass(error) else EXIT_USER_INPUT
    tell(str(output))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(cli())
