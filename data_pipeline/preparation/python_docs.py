"""The default corpus: English text that comes with every Python - its language reference and its docstrings.

Read with `ast`; nothing is imported or run. One document per topic of the reference, per module's own docstring, and
per class or function of a module with all that it contains, in a fixed order. Topics contain one another and modules
copy from one another, so a paragraph that mostly repeats a longer document is left out: otherwise held-out documents
could be known from training. What remains is real text, about two megabytes: enough to see a small GLM learn, without a
download.
"""

import ast
import functools
import hashlib
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

NAME = "python-docs"

# Not documentation, or not part of every installation.
_SKIPPED = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "pydoc_data",
}
_SHORTEST_DOCUMENT = 60
# A paragraph is a repetition if half of its runs of this many words were seen in longer documents.
_RUN_WORDS = 6


def python_docs() -> Iterator[str]:
    """Yield the documents of the running Python's standard library."""
    yield from _documents(_library())


def identity() -> list[str | int]:
    """What makes this corpus the same one: every source file by name and size."""
    library = _library()
    digest = hashlib.blake2b(digest_size=8)
    for path in (*_modules(library), _topics_file(library)):
        size = os.path.getsize(path) if os.path.isfile(path) else 0
        digest.update(f"{path.relative_to(library)} {size}\n".encode())
    return [NAME, digest.hexdigest()]


# Read twice on a first start: for the tokenizer and for the shards.
@functools.cache
def _documents(library: Path) -> tuple[str, ...]:
    documents = [_paragraphs(text) for text in _topics(_topics_file(library))]
    for path in _modules(library):
        tree = _parse(path)
        for texts in _described(tree) if tree else ():
            documents.append([part for text in texts for part in _paragraphs(text)])
    kept = ("\n\n".join(paragraphs) for paragraphs in _without_repetitions(documents))
    return tuple(text for text in kept if len(text) >= _SHORTEST_DOCUMENT)


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _topics_file(library: Path) -> Path:
    return library / "pydoc_data" / "topics.py"


def _modules(library: Path) -> list[Path]:
    found: list[Path] = []
    for folder, subfolders, names in os.walk(library):
        subfolders[:] = set(subfolders) - _SKIPPED
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found)


def _topics(path: Path) -> Iterator[str]:
    """Yield the language reference's topics; slim systems ship without them."""
    tree = _parse(path)
    for statement in tree.body if tree else ():
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(
            statement.value, ast.Dict
        ):
            for value in statement.value.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value


def _described(node: ast.AST) -> Iterator[list[str]]:
    """Yield the docstrings of a module itself, then of each of its classes and functions, in the order of its text."""
    if isinstance(node, ast.Module):
        yield [ast.get_docstring(node) or ""]
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield list(_docstrings_in(child))
        elif not isinstance(child, ast.expr):
            yield from _described(child)


def _docstrings_in(node: ast.AST) -> Iterator[str]:
    """Yield the docstrings of a class or function and of everything within."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = ast.get_docstring(node)
        if text:
            yield text
    if isinstance(node, ast.expr):
        return
    for child in ast.iter_child_nodes(node):
        yield from _docstrings_in(child)


def _paragraphs(text: str) -> list[str]:
    return [
        part.strip("\n") for part in re.split(r"\n\s*\n", inspect.cleandoc(text)) if part.strip()
    ]


def _without_repetitions(documents: list[list[str]]) -> list[list[str]]:
    """Leave out paragraphs that a longer document, or an earlier one of the same length, already has."""
    seen: set[tuple[str, ...]] = set()
    order = sorted(range(len(documents)), key=lambda number: -sum(map(len, documents[number])))
    kept: list[list[str]] = [[] for _ in documents]
    for number in order:
        for paragraph in documents[number]:
            words = re.findall(r"[a-z0-9_]+", paragraph.lower())
            runs = {
                tuple(words[start : start + _RUN_WORDS])
                for start in range(max(len(words) - _RUN_WORDS + 1, 1))
            }
            if 2 * len(runs & seen) < len(runs):
                kept[number].append(paragraph)
            seen |= runs
    return kept


def _parse(path: Path) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in other people's strings
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None  # a file that does not exist here, or a deliberately broken example
