"""The command line: python -m train.dashboard runs/default."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from configs import derive
from configs.errors import (
    EXIT_DONE,
    EXIT_PEER_FAILED,
    EXIT_USER_INPUT,
    ConfigError,
    DistributedError,
    RecordError,
    RunFolderError,
    UserError,
)
from configs.load import from_yaml
from configs.nearby import without_lines
from configs.records import read_text
from configs.run_files import metrics_line, read_details
from configs.run_lines import whole_lines
from configs.run_paths import CONFIG, METRICS, RunPaths
from configs.schema import Config
from configs.terminal import prepare_streams, tell, visible
from configs.version import VERSION, ShowVersion
from train.dashboard.pages import SAMPLES, Page, pages
from train.dashboard.workspace import Target, saved, specification
from train.detail_values import scalars
from train.failures import may_pass
from train.history.text import history
from train.wandb_account import has_key, kept_run_id

_EXAMPLE = "python -m train.dashboard runs/default"
# Of the run's history, the last ones.
_MOST_EVENTS = 200


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    prepare_streams()
    parser = argparse.ArgumentParser(
        prog="python -m train.dashboard",
        description=(
            "Make the dashboard of a run in Weights & Biases: loss by objective, stability, throughput, data mixture, "
            "reliability. Prints its address."
        ),
    )
    parser.add_argument(VERSION, action=ShowVersion)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument(
        "--print",
        action="store_true",
        dest="prints",
        help="print what would be sent, as JSON, and send nothing",
    )
    options = parser.parse_args(arguments)

    def report(text: str) -> None:
        tell(text, sys.stderr)

    try:
        target, content, events = _dashboard(options.run, report)
        if options.prints:
            text = json.dumps(specification(target, content, events), indent=1)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        else:
            _check_can_be_saved(target, options.run)
            tell(saved(target, content, events))
    except UserError as error:
        report(str(error))
        return EXIT_USER_INPUT
    except DistributedError as error:
        report(str(error))
        return EXIT_PEER_FAILED
    except (
        BrokenPipeError
    ):  # `| head` has seen enough; the rest must not be written when the process exits
        sys.stdout = None
    except OSError as error:
        report(f"{options.run} cannot be read: {error.strerror}.")
        return EXIT_PEER_FAILED if may_pass(error) else EXIT_USER_INPUT
    return EXIT_DONE


def _dashboard(run: Path, report: Callable[[str], None]) -> tuple[Target, list[Page], list[str]]:
    paths = RunPaths(run)
    lines = whole_lines(paths.metrics)
    if not lines:
        raise without_lines(run, METRICS, _EXAMPLE)
    keys = set(metrics_line(lines[-1], f"The last line of {paths.metrics}"))
    for line in read_details(run, report):
        keys.update(scalars(line))
    if whole_lines(paths.samples):
        keys.add(SAMPLES)
    config = _config(paths)
    target = Target(
        config.log.wandb_entity or "",
        config.log.wandb_project,
        derive.run_name(config),
        kept_run_id(run),
    )
    events = visible(history(run, report, None), keep="\n").splitlines()
    return target, pages(keys), events[-_MOST_EVENTS:]


def _config(paths: RunPaths) -> Config:
    try:
        return from_yaml(read_text(paths.config))
    except (FileNotFoundError, RecordError, ConfigError) as error:
        raise RunFolderError(f"{paths.path} has no {CONFIG} that can be read.") from error


def _check_can_be_saved(target: Target, run: Path) -> None:
    """Raise RunFolderError if the dashboard would have no run, or no account."""
    if target.wandb_id is None:
        raise RunFolderError(
            f"{run} does not report to wandb. Continue the run with log.wandb=auto, or type --print to see what a dashboard "
            "would be."
        )
    if not has_key():
        raise RunFolderError(
            "A dashboard is saved in an account of wandb: run `wandb login` or set WANDB_API_KEY. --print shows it without one."
        )


if __name__ == "__main__":
    sys.exit(cli())
