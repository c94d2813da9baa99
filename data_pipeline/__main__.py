"""The data commands: `python -m data_pipeline prepare | merge | train-tokenizer | show | stats | verify`."""

import argparse
import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from configs.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USER_INPUT, DataError, UserError
from configs.home import expanded
from configs.option_names import as_options
from configs.terminal import prepare_streams, tell
from configs.version import VERSION, ShowVersion
from data_pipeline.corpus import tokenizer_of
from data_pipeline.look.commands import add_commands
from data_pipeline.look.subject import is_override, is_run
from data_pipeline.preparation.again import already_prepared
from data_pipeline.preparation.documents import OnError, Skipped, stop
from data_pipeline.preparation.filters import Filters
from data_pipeline.preparation.inputs import check_input, read_documents
from data_pipeline.preparation.job_array import parse_share
from data_pipeline.preparation.join import Prepared
from data_pipeline.preparation.make_part import Settings
from data_pipeline.preparation.options import add_prepare_options, add_tokenizer_options
from data_pipeline.preparation.prepare import merge, prepare, prepare_share
from data_pipeline.preparation.progress import console_meter
from data_pipeline.preparation.train_tokenizer import (
    SAMPLE_CHARACTERS,
    sampled,
    train_tokenizer,
)
from data_pipeline.storage.shards import read_index, read_info
from data_pipeline.tokenizer import Tokenizer, describe_tokenizer, load_tokenizer
from data_pipeline.tokenizer_spec import parse_role, with_roles

# What stands for keys of train on the command lines of the commands that make shards and tokenizers ...
_MAKING = {
    "data.special_tokens.": "--special-token ",
    "data.special_tokens": "--special-token",
    "data.tokenizer": "--tokenizer",
    "data.text_key": "--text-key",
    "data.valid_fraction": "--valid-fraction",
    "data.paths": "INPUT",
    "model.vocab_size": "--vocab-size",
}
# ... and of those that look at a prefix; the rest of train's keys these take themselves.
_LOOKING = {"data.paths": "PREFIX"}


def _prepare(options: argparse.Namespace) -> None:
    if not 0 <= options.valid_fraction < 1:
        raise DataError(
            f"--valid-fraction ({options.valid_fraction}) must be at least 0 and below 1. Try --valid-fraction 0.05."
        )
    if options.workers < 1:
        raise DataError(
            f"--workers ({options.workers}) must be at least 1. Leave it out for all cores."
        )
    settings = Settings(
        text_keys=_text_keys(options),
        filters=Filters(
            options.min_characters,
            options.max_characters,
            options.min_letters,
            tuple(options.scripts.split(",")) if options.scripts else (),
        ),
        deduplicate=options.dedup,
        skip_bad_records=options.on_error == "skip",
    )
    share = parse_share(options.part) if options.part else None
    inputs, output = options.input, Path(options.output)
    named = dict(parse_role(word) for word in options.special_token)
    tokenizer = load_tokenizer(with_roles(options.tokenizer, named))
    for path in inputs:  # before a folder is made for a mistyped name
        check_input(path)
    _report_repeated(inputs)
    _make_folder(output.parent)
    if share is None and _is_done(inputs, output, tokenizer, options.valid_fraction, settings):
        return
    _report_replaced(output)
    work = (inputs, output, tokenizer, options.valid_fraction, settings)
    workers, meter = options.workers, console_meter()
    if share is None:
        prepared = prepare(*work, workers=workers, meter=meter)
        tell(describe_tokenizer(tokenizer))
        _report_prepared(output, prepared)
        return
    prepare_share(*work, share, workers=workers, meter=meter)
    tell(describe_tokenizer(tokenizer))
    tell(
        f"Part {share} of {output} is made. When all {share.count} are: python -m data_pipeline merge {output}"
    )


def _is_done(
    inputs: list[str],
    output: Path,
    tokenizer: Tokenizer,
    valid_fraction: float,
    settings: Settings,
) -> bool:
    """Report it if the same command has made the same shards before."""
    done = already_prepared(inputs, output, tokenizer, valid_fraction, settings)
    if done:
        held_out = f", and {done[1].num_documents:,} held out" if len(done) > 1 else ""
        tell(
            f"{output} was prepared from this before, and is complete ({done[0].num_documents:,} documents{held_out}): "
            "there is nothing to do."
        )
    return bool(done)


def _report_replaced(output: Path) -> None:
    with contextlib.suppress(
        UserError
    ):  # files that are not ours are refused later, with a message of their own
        earlier = read_info(str(output))
        if earlier is not None:
            tell(
                f"{output} was prepared before ({earlier.num_documents:,} documents): it is replaced."
            )


def _report_repeated(inputs: list[str]) -> None:
    for path, count in Counter(map(os.path.realpath, inputs)).items():
        if count > 1:
            tell(f"{path} is named {count} times: its documents will be in the shards as often.")


def _text_keys(options: argparse.Namespace) -> tuple[str, ...]:
    """The text field, or the two fields of instruction records."""
    given = [options.prompt_key, options.target_key]
    if None in given and given != [None, None]:
        raise DataError(
            "--prompt-key and --target-key go together: an instruction record has both. Try --prompt-key prompt "
            "--target-key target."
        )
    return (options.text_key,) if None in given else tuple(given)


def _merge(options: argparse.Namespace) -> None:
    prefix = Path(options.prefix)
    _report_prepared(prefix, merge(prefix))


def _report_prepared(output: Path, done: Prepared) -> None:
    tell(f"{output}: {done.train.num_documents:,} documents, {done.train.num_tokens:,} tokens")
    if done.valid is not None:
        tell(
            f"{output}.valid: held out, {done.valid.num_documents:,} documents, {done.valid.num_tokens:,} tokens "
            f"(those whose hash, from 0 to 1, is below {done.valid.held_out_below:.4g})"
        )
    if done.left_out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in done.left_out.items())
        tell(f"Left out: {sum(done.left_out.values()):,} documents ({reasons})")
    _report_skipped(done.num_bad_records, done.first_bad_record)
    index = read_index(str(output))
    if index.num_sequences == index.num_documents:
        words = f"data.paths=[{output}] model.vocab_size={done.train.vocab_size}"
        words += "" if done.valid is not None else " data.valid_paths=[PREFIX_OR_FILE]"
    else:
        spec = tokenizer_of(str(output))
        words = f"data.paths=CORPUS data.tokenizer={spec} data.instructions=[{output}]"
    tell(f"Train on it: python -m train run.name={output.name} {words}")


def _train_tokenizer(options: argparse.Namespace) -> None:
    if options.characters < len(options.input):
        raise DataError(
            f"--characters ({options.characters:,}) is too small. Try --characters {SAMPLE_CHARACTERS}."
        )
    output = Path(options.output)
    if os.path.lexists(output):
        raise DataError(
            f"{output} exists, and would be replaced. Choose another --output FILE, or remove it first."
        )
    _make_folder(output.parent)
    skipped = Skipped()
    on_error: OnError = skipped if options.on_error == "skip" else stop
    corpora = [_texts(path, options.text_key, on_error) for path in options.input]
    texts = sampled(corpora, options.characters)
    size = train_tokenizer(
        texts,
        output,
        options.vocab_size,
        ", ".join(options.input),
        options.kind,
        report=lambda text: tell(text, sys.stderr),
    )
    _report_skipped(skipped.count, skipped.first)
    spec = f"{'hf' if options.kind == 'bpe' else 'sp'}:{output}"
    tell(f"{output}: {size:,} tokens. Use it: --tokenizer {spec}, or data.tokenizer={spec}")


def _texts(path: str, text_key: str, on_error: OnError) -> Iterator[str]:
    return (text for (text,) in read_documents(path, [text_key], on_error))


def _report_skipped(count: int, first: str) -> None:
    if count:
        tell(f"Skipped: {count:,} records, the first: {as_options(first, _MAKING)}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"The folder {folder} cannot be made ({error.strerror}). Choose another --output."
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_pipeline", description=__doc__)
    parser.add_argument(VERSION, action=ShowVersion)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], None], text: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        added.add_argument(VERSION, action=ShowVersion)
        return added

    add_prepare_options(command("prepare", _prepare, "make token shards of corpus files"))
    made = command("merge", _merge, "join what the tasks of a job array have prepared")
    made.add_argument("prefix", metavar="PREFIX", help="the --output of prepare")
    add_tokenizer_options(
        command("train-tokenizer", _train_tokenizer, "train a tokenizer on texts")
    )
    add_commands(command)
    return parser


def _options(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; key=value words may stand anywhere on it, as train takes them."""
    parser = _parser()
    options, left = parser.parse_known_args(arguments)
    is_override = hasattr(options, "overrides")
    if any(word.startswith("-") or not is_override for word in left):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if is_override:
        options.overrides = [*options.overrides, *left]
    _expand_home(options)
    return options


def _expand_home(options: argparse.Namespace) -> None:
    """Put the home folder in place of ~ in every option that is a path: the shell leaves it behind = and in quotes."""
    for name in ("input", "output", "prefix", "tokenizer", "target", "html"):
        value = getattr(options, name, None)
        if isinstance(value, str):
            setattr(options, name, expanded(value))
        elif isinstance(value, list):
            setattr(options, name, [expanded(path) for path in cast(list[str], value)])


def _names(options: argparse.Namespace) -> dict[str, str]:
    """How this command spells the options that are keys of train."""
    if options.command in ("prepare", "merge", "train-tokenizer"):
        return _MAKING
    # A run, or key=value words, are read as train reads them.
    target = getattr(options, "target", "")
    return {} if is_override(target) or is_run(target) else _LOOKING


def cli(arguments: list[str] | None = None) -> int:
    """Run a data command; returns its exit code."""
    prepare_streams()
    names = _MAKING
    try:
        options = _options(arguments)
        names = _names(options)
        options.run(options)
    except UserError as error:
        tell(as_options(str(error), names), sys.stderr)
        return EXIT_USER_INPUT
    except KeyboardInterrupt:
        tell("Interrupted; incomplete files are not used. The same command continues.", sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(cli())
