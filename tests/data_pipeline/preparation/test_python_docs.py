"""The default corpus: from a small library written for the test, and from the running Python's."""

import re
from pathlib import Path

import pytest

from data_pipeline.preparation import python_docs
from data_pipeline.preparation.make_part import place

LONG = (
    "This paragraph is about {} and says nothing that any other paragraph of this library says, {}."
)
TOPICS = '''
topics = {
    "small": "Small\\n*****\\n\\n" + "ignored",
    "if": """The "if" statement

The if statement is used for conditional execution of a suite of statements here.
""",
    "compound": """Compound statements

The if statement is used for conditional execution of a suite of statements here.

""" """The while statement is used for repeated execution as long as it is true.
""",
}
'''


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(python_docs, "_library", lambda: tmp_path)
    monkeypatch.setattr(python_docs, "_SHORTEST_DOCUMENT", 20)
    monkeypatch.setattr(python_docs, "_documents", python_docs._documents.__wrapped__)
    return tmp_path


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def test_topic_within_a_longer_one_is_left_out_there(library: Path):
    write(library / "pydoc_data" / "topics.py", TOPICS)
    assert list(python_docs.python_docs()) == [
        "Compound statements\n\n"
        "The if statement is used for conditional execution of a suite of statements here.\n\n"
        "The while statement is used for repeated execution as long as it is true."
    ]


def test_a_module_and_each_of_its_classes_and_functions_are_documents_in_the_order_of_the_text(
    library: Path,
):
    write(
        library / "b.py",
        '''"""Module b.

    Indented as usual.
    """
raise RuntimeError("never run")
if True:
    def first():
        """First function."""
        def inner():
            """Inner function."""
class Late:
    """Late class."""
    async def method(self):
        "Its method."
''',
    )
    write(library / "a" / "c.py", '"""Module c in a package, which comes first."""')
    assert list(python_docs.python_docs()) == [
        "Module c in a package, which comes first.",
        "Module b.\n\nIndented as usual.",
        "First function.\n\nInner function.",
        "Late class.\n\nIts method.",
    ]


def test_tests_and_installed_packages_are_no_documentation(library: Path):
    for folder in (
        "test",
        "idlelib/idle_test",
        "site-packages/numpy",
        "dist-packages",
        "json/tests",
    ):
        write(library / folder / "m.py", f'"""{LONG.format(folder, "and more")}"""')
    assert list(python_docs.python_docs()) == []


def test_broken_files_are_passed_over(library: Path):
    write(library / "good.py", f'"""{LONG.format("cats", "dogs")}"""')
    write(library / "broken.py", "def (:")
    (library / "latin.py").write_bytes(b'"""caf\xe9"""')
    (library / "nul.py").write_bytes(b'"""x\0"""')
    (library / "dangling.py").symlink_to(library / "nowhere.py")
    assert list(python_docs.python_docs()) == [LONG.format("cats", "dogs")]


def test_nearly_equal_paragraphs_are_kept_once(library: Path):
    shared = "Return the number of items that are waiting in the queue at this very moment, reliable or not"
    write(library / "a.py", f'"""Module a is short.\n\n{shared}."""')
    write(library / "b.py", f'"""Module b is the longer one of two.\n\n{shared} (see RFC 1)!"""')
    assert list(python_docs.python_docs()) == [
        f"Module b is the longer one of two.\n\n{shared} (see RFC 1)!"
    ]


def test_identity_follows_the_files(library: Path):
    write(library / "a.py", '"""A."""')
    before = python_docs.identity()
    assert python_docs.identity() == before
    write(library / "test" / "b.py", '"""B."""')
    assert python_docs.identity() == before
    write(library / "b.py", '"""B."""')
    assert python_docs.identity() != before


def test_system_without_topics_still_has_docstrings(library: Path):
    write(library / "a.py", f'"""{LONG.format("cats", "dogs")}"""')
    assert not (library / "pydoc_data").exists()
    assert list(python_docs.python_docs()) == [LONG.format("cats", "dogs")]


def test_held_out_text_of_this_python_is_not_in_the_rest():
    documents = list(python_docs.python_docs())
    assert len(documents) > 1000
    assert sum(map(len, documents)) > 1_000_000
    assert min(map(len, documents)) >= 60

    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + 13]) for i in range(len(words) - 12)}

    held_out = [runs(text) for text in documents if place(text) < 0.05 * 2**64]
    training = set().union(*(runs(text) for text in documents if place(text) >= 0.05 * 2**64))
    assert len(held_out) > 50
    known = sum(len(found & training) for found in held_out) / sum(map(len, held_out))
    assert known < 0.01
