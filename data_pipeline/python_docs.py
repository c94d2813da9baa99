"""The default corpus: English text that every Python brings along - its reference topics and its docstrings.

Read with `ast`; nothing is imported or run. One document per topic and per module, in a fixed order, each docstring
once. It is real text, a megabyte and a half of it: enough to see a small GLM learn, without a download.
"""

import ast
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path

NAME = "python-docs"

# Not documentation, or not part of every installation.
_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_SHORTEST_DOCUMENT = 200


def python_docs() -> Iterator[str]:
    """Yield the documents of the running Python's standard library."""
    library = Path(sysconfig.get_paths()["stdlib"])
    yield from _topics(library / "pydoc_data" / "topics.py")
    seen: set[str] = set()
    for path in sorted(library.rglob("*.py")):
        if _SKIPPED.isdisjoint(path.relative_to(library).parts) and "topics" not in path.stem:
            document = "\n\n".join(_docstrings(path, seen))
            if len(document) >= _SHORTEST_DOCUMENT:
                yield document


def _topics(path: Path) -> Iterator[str]:
    """Yield the language reference's topics; slim systems ship without them."""
    tree = _parse(path)
    if tree is None:
        return
    for statement in tree.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(
            statement.value, ast.Dict
        ):
            for value in statement.value.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value.strip()


def _docstrings(path: Path, seen: set[str]) -> Iterator[str]:
    tree = _parse(path)
    if tree is None:
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = inspect.cleandoc(ast.get_docstring(node) or "")
            if len(text) > 20 and text not in seen:
                seen.add(text)
                yield text


def _parse(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError):
        return None  # a file that does not exist here, or a deliberately broken example
