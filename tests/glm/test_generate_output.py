"""What generate prints of a filled text: nothing that only moves the prompt down, and the raw text for scripts."""

import json

import pytest

from glm import generate
from glm.filling import Filled, Guess
from glm.prompt import TextPart


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        ([TextPart("The files", False), TextPart(".\n\n\n", True), TextPart("", False)], "The files.\n"),
        ([TextPart("A ", False), TextPart("list \n", True), TextPart(" of it\n", False)], "A list of it\n\n"),
        ([TextPart("A ", False), TextPart("\n", True), TextPart("", False)], "A \n"),
        # Before a word it keeps the two apart; between two blanks there is nothing else.
        ([TextPart("A ", False), TextPart("list\n", True), TextPart("of it", False)], "A list\nof it\n"),
        ([TextPart("", False), TextPart("a\n", True), TextPart("", False), TextPart("b", True), TextPart("", False)],
         "ab\n"),
    ],
)  # fmt: skip
def test_white_space_at_the_end_of_a_fill_is_not_printed(
    parts: list[TextPart], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = Filled(parts, [])
    generate._print_text("", filled)
    assert capsys.readouterr().out == shown
    generate._print_json("", filled)
    record = json.loads(capsys.readouterr().out)
    assert record["text"] == "".join(part.text for part in parts)
    assert record["spans"] == [part.text for part in parts if part.is_filled]


def test_a_small_probability_is_not_shown_as_none(capsys: pytest.CaptureFixture[str]) -> None:
    guesses = [Guess("the", 0.25), Guess("a", 0.0001)]
    generate._print_text("", Filled([TextPart("x", False)], [guesses]))
    assert capsys.readouterr().out == "x\n  blank: 'the' 25.0%, 'a' under 0.1%\n"
