"""The options of the commands that make token shards and tokenizers: each with its text and its default."""

import argparse

from data_pipeline.preparation.filters import SCRIPTS
from data_pipeline.preparation.train_tokenizer import KINDS, SAMPLE_CHARACTERS
from data_pipeline.preparation.workers import num_cores
from data_pipeline.special_roles import ROLES
from data_pipeline.tokenizer_spec import SPECS


def add_prepare_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `prepare` takes."""
    _add_inputs(parser)
    parser.add_argument(
        "--output",
        required=True,
        metavar="PREFIX",
        help="where the shards go: PREFIX.bin, .idx and .json, and those of PREFIX.valid",
    )
    parser.add_argument("--tokenizer", required=True, metavar="SPEC", help=SPECS)
    parser.add_argument(
        "--special-token",
        action="append",
        default=[],
        metavar="ROLE=TEXT",
        help=f"the token of the vocabulary that is {', '.join(ROLES)}, where its name does not tell; may be repeated; "
        "default: by their names",
    )
    parser.add_argument(
        "--prompt-key",
        metavar="NAME",
        help="of instruction records: field that holds the prompt; default: none, the records are texts",
    )
    parser.add_argument(
        "--target-key",
        metavar="NAME",
        help="of instruction records: field that holds the target; goes with --prompt-key",
    )
    parser.add_argument(
        "--valid-fraction",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="share of documents held out in PREFIX.valid, from 0 to below 1; default: %(default)s",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=num_cores(),
        metavar="N",
        help="processes; default: all cores (%(default)s)",
    )
    parser.add_argument(
        "--part",
        metavar="I/N",
        help="make this share of the work only, or `slurm`: the share of this job array's task; default: all of it",
    )
    parser.add_argument(
        "--dedup",
        action="store_true",
        help="leave out documents that repeat an earlier one; default: they stay",
    )
    parser.add_argument(
        "--min-characters",
        type=int,
        default=0,
        metavar="N",
        help="leave out documents of fewer characters; default: %(default)s",
    )
    parser.add_argument(
        "--max-characters",
        type=int,
        metavar="N",
        help="leave out documents of more characters; default: no limit",
    )
    parser.add_argument(
        "--min-letters",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="least share of letters among the characters that are not blank, from 0 to 1; default: %(default)s",
    )
    parser.add_argument(
        "--scripts",
        metavar="NAME,...",
        help="leave out documents of which more than a tenth of the letters are of other scripts than these: "
        f"{', '.join(SCRIPTS)}; default: all are taken",
    )


def add_tokenizer_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `train-tokenizer` takes."""
    _add_inputs(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--vocab-size",
        type=int,
        required=True,
        metavar="N",
        help="tokens, special ones included",
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default=KINDS[0],
        help="bpe: byte-level BPE (hf:FILE); unigram: a SentencePiece model (sp:FILE); default: %(default)s",
    )
    parser.add_argument(
        "--characters",
        type=int,
        default=SAMPLE_CHARACTERS,
        metavar="N",
        help="how much text to train on, from the beginning of each INPUT in equal shares; default: %(default)s",
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        nargs="+",
        metavar="INPUT",
        help=".jsonl, .txt (also .gz, .zst), .parquet, a Hugging Face data set's name, or python-docs",
    )
    parser.add_argument(
        "--text-key",
        default="text",
        metavar="NAME",
        help="field that holds the text; default: %(default)s",
    )
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="what to do at a record that holds no text; default: %(default)s",
    )
