"""The data commands:  python -m data_pipeline prepare | train-tokenizer | show | verify"""

import argparse
import sys
from itertools import chain
from pathlib import Path

from configs.errors import EXIT_DONE, EXIT_USER_INPUT, DataError, UserError
from configs.schema import ObjectiveConfig
from data_pipeline.corpus import keep_tokenizer
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.documents import read_documents
from data_pipeline.objective import Objective
from data_pipeline.prepare import prepare
from data_pipeline.shards import open_stream, read_info, verify
from data_pipeline.show import render
from data_pipeline.tokenizer import SPECS, load_tokenizer
from data_pipeline.train_tokenizer import train_tokenizer

_OBJECTIVES = {"mask": Objective.MASK, "gmask": Objective.GMASK}


def _prepare(options: argparse.Namespace) -> None:
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(options.tokenizer)
    # The shards can be moved together with their tokenizer.
    keep = output.parent / f"{output.name}.tokenizer"
    keep_tokenizer(options.tokenizer, keep)
    kind, _, name = options.tokenizer.partition(":")
    spec = f"{kind}:{keep.name}/{Path(name).name}" if name else kind
    documents = chain.from_iterable(
        read_documents(path, options.text_key) for path in options.input
    )
    done = prepare(documents, output, tokenizer, spec, options.valid_fraction)
    sys.stdout.write(
        f"{output}: {done.train.num_documents:,} documents, {done.train.num_tokens:,} tokens; held out "
        f"{done.valid.num_documents:,} documents, {done.valid.num_tokens:,} tokens\n"
        f"Train on it: python -m train data.paths={output} model.vocab_size={tokenizer.vocab_size}\n"
    )


def _train_tokenizer(options: argparse.Namespace) -> None:
    documents = chain.from_iterable(
        read_documents(path, options.text_key) for path in options.input
    )
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    train_tokenizer(documents, Path(options.output), options.vocab_size)
    sys.stdout.write(f"Use it: --tokenizer hf:{options.output}, or data.tokenizer=hf:{options.output}\n")


def _show(options: argparse.Namespace) -> None:
    stream = open_stream(options.prefix)
    info = read_info(options.prefix)
    spec = options.tokenizer
    if spec is None:
        if info is None:
            raise DataError(f"{options.prefix}.json does not exist. Name the tokenizer: --tokenizer {SPECS}")
        kind, _, name = info.tokenizer.partition(":")
        spec = f"{kind}:{Path(options.prefix).parent / name}" if name else kind
    tokenizer = load_tokenizer(spec)
    source = Source(Path(options.prefix).name, stream)
    dataset = GLMDataset(
        [source], tokenizer.special, ObjectiveConfig(), options.seq_length, options.seed
    )
    index = options.index
    if options.objective is not None:
        wanted = _OBJECTIVES[options.objective]
        matches = (i for i in range(index, index + 10_000) if dataset[i].objective is wanted)
        index = next(matches)
    sys.stdout.write(render(dataset[index], tokenizer) + "\n")


def _verify(options: argparse.Namespace) -> None:
    found = verify(options.prefix, options.vocab_size)
    if found:
        raise DataError("\n".join(found))
    stream = open_stream(options.prefix)
    sys.stdout.write(
        f"{options.prefix}: whole, {stream.num_documents:,} documents, {len(stream):,} tokens\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_pipeline", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("prepare", help="corpus files to token shards")
    command.add_argument("input", nargs="+", help=".jsonl, .txt, .parquet (.gz, .zst) or a data set's name")
    command.add_argument("--output", required=True, metavar="PREFIX")
    command.add_argument("--tokenizer", required=True, metavar="SPEC", help=SPECS)
    command.add_argument("--text-key", default="text")
    command.add_argument("--valid-fraction", type=float, default=0.05)
    command.set_defaults(run=_prepare)

    command = commands.add_parser("train-tokenizer", help="a byte-level BPE of one's own")
    command.add_argument("input", nargs="+")
    command.add_argument("--output", required=True, metavar="FILE")
    command.add_argument("--vocab-size", type=int, required=True)
    command.add_argument("--text-key", default="text")
    command.set_defaults(run=_train_tokenizer)

    command = commands.add_parser("show", help="one training sample as a human reads it")
    command.add_argument("prefix")
    command.add_argument("--index", type=int, default=0)
    command.add_argument("--objective", choices=sorted(_OBJECTIVES), help="the next sample of this kind")
    command.add_argument("--seq-length", type=int, default=512)
    command.add_argument("--seed", type=int, default=1234)
    command.add_argument("--tokenizer", metavar="SPEC")
    command.set_defaults(run=_show)

    command = commands.add_parser("verify", help="check shards")
    command.add_argument("prefix")
    command.add_argument("--vocab-size", type=int, help="for a plain Megatron corpus")
    command.set_defaults(run=_verify)
    return parser


def cli(arguments: list[str] | None = None) -> int:
    """Run a data command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USER_INPUT
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(cli())
