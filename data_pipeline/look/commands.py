"""The commands that inspect data without changing it: show, stats, verify."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from configs.errors import DataError, RecordError
from configs.objectives import BUILT_IN, Objective, find, installed_keys, keys
from configs.records import read_file
from configs.terminal import columns, visible, wrapped
from configs.words import CONFIG_DIR
from data_pipeline.dataset import GLMDataset
from data_pipeline.look.explain import explain
from data_pipeline.look.show import render
from data_pipeline.look.show_html import MARK, render_page
from data_pipeline.look.stats import chosen_indices, gather
from data_pipeline.look.stats import render as render_statistics
from data_pipeline.look.subject import (
    Target,
    absence,
    is_run,
    open_target,
    shards_of_run,
)
from data_pipeline.storage.shards import is_shard, open_stream
from data_pipeline.storage.verify import problems

AddCommand = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]

# Far more than the distance between two samples of one kind at any sensible share.
_SEARCHED_SAMPLES = 100_000
# The same of samples that must be built to see what their windows hold.
_BUILT_SAMPLES = 2_000
_LARGEST_PAGE = 2**27
_TARGET = "a run folder, a prefix of token shards, or key=value as in train"


def show(options: argparse.Namespace) -> None:
    """Print one sample, or write it as a page."""
    if options.index < 0:
        raise DataError(f"--index ({options.index:,}) must be at least 0.")
    target = _open(options)
    index = options.index
    if options.objective is not None:
        index = _next_of(target, find(options.objective), index)
    found = explain(target.dataset, index, target.config.objective, target.tokenizer)
    facts = target.facts(index)
    if options.html is None:
        _print_remark(target)
        _print(render(found, target.tokenizer, facts, columns()))
        return
    page = Path(options.html)
    _refuse_strange(page)
    try:
        page.write_text(render_page(found, target.tokenizer, facts), "utf-8")
    except OSError as error:
        raise DataError(
            f"{options.html} cannot be written ({error.strerror}). Choose another --html FILE."
        ) from error
    _print(options.html)


def _refuse_strange(page: Path) -> None:
    """Refuse to replace a file that `show` has not written."""
    if not os.path.lexists(page):
        return
    try:
        is_ours = MARK in read_file(page, _LARGEST_PAGE).decode("utf-8", "replace")
    except (OSError, RecordError):
        is_ours = False
    if not is_ours:
        raise DataError(
            f"{page} was not written by show, and would be replaced. Choose another --html FILE."
        )


def stats(options: argparse.Namespace) -> None:
    """Print the statistics of a range of samples."""
    start, stop = options.start, options.stop
    if not 0 <= start < stop:
        raise DataError(f"--from ({start:,}) must be at least 0 and below --to ({stop:,}).")
    if options.samples < 1:
        raise DataError(f"--samples ({options.samples:,}) must be at least 1.")
    target = _open(options)
    indices = chosen_indices(start, stop, options.samples)
    sampled = "" if len(indices) == stop - start else f", {len(indices):,} of them looked at"
    _print_remark(target)
    _print_sentence(f"{visible(target.name, keep='')}: samples {start:,} to {stop:,}{sampled}\n")
    _print(render_statistics(gather(target.dataset, indices), columns()))


def verify(options: argparse.Namespace) -> None:
    """Check shards, including held-out ones, or all shards of a run; every problem is printed."""
    found: list[str] = []
    for name in options.prefix:
        if missing := absence(name):
            found.append(missing)
            continue
        for prefix, vocab_size in _shards(name, options.vocab_size):
            new = problems(prefix, vocab_size)
            found += new
            if not new:
                _say_whole(prefix)
    if found:
        raise DataError("\n".join(found))


def _shards(name: str, vocab_size: int | None) -> list[tuple[str, int | None]]:
    """The shards that verify reads for an argument, and the number that their ids must lie below."""
    if is_run(name) and not is_shard(name):
        prefixes, size = shards_of_run(name)
        return [(prefix, vocab_size or size) for prefix in prefixes]
    held_out = f"{name}.valid"
    return [(each, vocab_size) for each in (name, held_out) if each == name or is_shard(each)]


def add_commands(command: AddCommand) -> None:
    """Declare the commands and their options."""
    made = command("show", show, "one training sample as a human reads it")
    _add_target(made)
    made.add_argument(
        "--index",
        type=int,
        default=0,
        metavar="N",
        help="in the data stream, from 0; default: %(default)s",
    )
    made.add_argument(
        "--objective",
        choices=sorted({*keys(BUILT_IN), *installed_keys()}),
        help="the next sample of this kind; default: of any",
    )
    made.add_argument("--html", metavar="FILE", help="write a page with a picture of the mask")

    made = command("stats", stats, "lengths, shares and targets of a range of samples")
    _add_target(made)
    made.add_argument(
        "--from",
        dest="start",
        type=int,
        default=0,
        metavar="A",
        help="first sample; default: %(default)s",
    )
    made.add_argument(
        "--to",
        dest="stop",
        type=int,
        default=1000,
        metavar="B",
        help="the sample after the last; default: %(default)s",
    )
    made.add_argument(
        "--samples",
        type=int,
        default=10_000,
        metavar="N",
        help="look at most at N of them; default: %(default)s",
    )

    made = command("verify", verify, "check shards; name the damaged file and offset")
    made.add_argument(
        "prefix", metavar="PREFIX|RUN", nargs="+", help="of token shards, or a run folder"
    )
    made.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help="for a plain Megatron corpus: ids must be below it",
    )


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="PREFIX|RUN", help=_TARGET)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        default=[],  # without it argparse calls them required
        help="as in train, such as model.seq_length=2048",
    )
    parser.add_argument("--valid", action="store_true", help="the held-out rows")
    parser.add_argument(CONFIG_DIR, metavar="DIR", help="groups of your own, as in train")


def _open(options: argparse.Namespace) -> Target:
    folder = [] if options.config_dir is None else [f"{CONFIG_DIR}={options.config_dir}"]
    return open_target(options.target, folder + options.overrides, is_validation=options.valid)


def _next_of(target: Target, wanted: Objective, index: int) -> int:
    """The first sample at or after `index` that is of an objective, or has a window that is."""
    places = range(index, index + _SEARCHED_SAMPLES)
    rows = (at for at in places if target.dataset.locate(at)[1].objective.key == wanted.key)
    if wanted.part_of is not None:
        rows = _with_windows(target.dataset, wanted, places)
    found = next(rows, None)
    if found is None:
        raise DataError(
            f"{target.name} has no --objective {wanted.key} sample at or after --index {index:,}. See which it has: python -m "
            f"data_pipeline stats {target.name}"
        )
    return found


def _print_remark(target: Target) -> None:
    if target.remark is not None:
        _print_sentence(f"{target.remark}\n")


def _with_windows(dataset: GLMDataset, wanted: Objective, places: range) -> Iterator[int]:
    """Those of the samples that have a window of an objective, as far as they are looked at."""
    if wanted not in dataset.objectives:
        return
    number = dataset.objectives.index(wanted)
    hosts = (at for at in places if dataset.locate(at)[1].objective.key == wanted.part_of)
    for at in islice(hosts, _BUILT_SAMPLES):
        sample = dataset[at]
        if (sample.objectives[sample.loss_mask] == number).any():
            yield at


def _say_whole(prefix: str) -> None:
    stream = open_stream(prefix)
    limits = "" if stream.info is not None else " (no checksums: a plain Megatron corpus)"
    name = visible(prefix, keep="")
    _print_sentence(
        f"{name}: whole{limits}, {stream.num_documents:,} documents, {len(stream):,} tokens"
    )


def _print_sentence(text: str) -> None:
    """Print prose, which a terminal gets in lines of its width."""
    _print(text if columns() is None else wrapped(text))


def _print(text: str) -> None:
    """Print the result; a failure to write is an error, but a reader that closes the pipe (`| head`) is not.

    Raises:
        DataError: standard output fails.
    """
    try:
        sys.stdout.write(visible(text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The rest of the output, and Python's flush at exit, are discarded.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise DataError(f"Standard output cannot be written: {error.strerror}.") from error
