"""docs/troubleshooting.md quotes the program's messages: each quoted part stands in the source, as it is."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.helpers.places import ROOT
from tests.helpers.sources import sources

PAGE = ROOT / "docs" / "troubleshooting.md"
# What stands for something that changes, here and in a message's {...}.
HOLE = "\0"
# What others say within a message: the system, argparse, our own options.
THEIRS = (
    "Input/output error",
    "No space left",
    "argument --temperature:",
    "eos",
    "squeue",
    '"hydra',
)
# Quotations that are nothing but values and the words of others.
WITHOUT_WORDS = ("FILE.yaml: ...", "argument --temperature: ...", "not UTF-8")
# What a message takes from another text of the program; each is looked for by itself.
OURS = (
    "The data",
    "a folder",
    "a number",
    "host",
    "second copy of the checkpoint",
    "the value of",
    "There is no key",
    "whoever reaches it can run code as you",
)


def quoted() -> list[str]:
    """The messages of the page: what stands between backticks in the first column of its tables."""
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    return [text for row in rows for text in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def literals() -> Iterator[str]:
    """Every text of the program, with a hole for each value that it is given."""
    yield (ROOT / "launch/templates/slurm.sh").read_text("utf-8")
    for tree in sources().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else HOLE
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def parts(message: str) -> list[str]:
    """The fixed parts of a quoted message.

    Without `...`, words in capitals, numbers, file names, [MASK] and the like, and what stands in parentheses.
    """
    for text in THEIRS:
        message = message.replace(text, HOLE)
    for text in OURS:
        message = message.replace(text, f"{HOLE}{text}{HOLE}")
    holes = re.sub(
        r"\.\.\.|\([^)]*\)|\[|\]|\S*\.(yaml|jsonl?|html|part)\b|\b[a-z]?[A-Z]+\b|\b\d[\d,.]*\b",
        HOLE,
        message,
    )
    return [part.strip() for part in holes.split(HOLE) if len(part.strip()) > 3]


TEXTS = "\n".join(literals())


@pytest.mark.parametrize("message", sorted(set(quoted())))
def test_a_quoted_message_is_one_of_the_programs(message: str) -> None:
    assert parts(message) or message in WITHOUT_WORDS, f"nothing of {message!r} can be looked for"
    missing = [part for part in parts(message) if part not in TEXTS]
    assert not missing, f"{PAGE.name} quotes {message!r}; no message says {missing}"


def test_the_page_is_read() -> None:
    assert len(quoted()) > 150
