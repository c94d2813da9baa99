"""Words for people: control characters made visible, and no error from wherever they are printed."""

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from configs.terminal import tell, visible
from tests.helpers.places import ROOT


def test_control_and_bidirectional_characters_are_shown_as_escapes() -> None:
    assert visible("a\x1b[31mb\x07") == "a\\x1b[31mb\\x07"
    assert visible("\u202eabc\u2028\x85\r") == "\\u202eabc\\u2028\\x85\\x0d"
    assert visible("\U000e0001\ud800") == "\\U000e0001\\ud800"


def test_text_of_all_languages_stays() -> None:
    for text in ("naïve", "如果没有", "मराठी\u200d", "👩\u200d💻", "a\tb\nc", ""):
        assert visible(text) == text
    assert visible("a\tb\nc", keep="") == "a\\x09b\\x0ac"


@given(st.text())
def test_what_is_shown_can_be_printed(text: str) -> None:
    shown = visible(text, keep="")
    assert all(
        c.isprintable() or c in "\u200c\u200d" or c.isspace() or ord(c) > 0x7F for c in shown
    )
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown)
    shown.encode("utf-8")


def test_a_full_or_closed_or_missing_output_stops_nothing() -> None:
    closed = io.StringIO()
    closed.close()
    tell("words", closed)
    with open("/dev/full", "w") as full:
        tell("words", full)
        os.dup2(os.open("/dev/null", os.O_WRONLY), full.fileno())


def test_a_character_that_the_terminal_lacks_is_replaced() -> None:
    code = "from configs.terminal import prepare_streams, tell; prepare_streams(); tell('a如\\x1b')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"a\\u5982\\x1b\n"


def test_printing_never_fails_once_a_run_has_asked_for_it() -> None:
    code = (
        "import sys; from configs.terminal import never_fail_to_print; never_fail_to_print();"
        "print('x' * 100_000); print('y', file=sys.stderr); sys.stdout.write('z'); sys.stdout.flush();"
        "assert not sys.stdout.isatty(); open('after', 'w').write('safe')"
    )
    for words in (">/dev/full 2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-", "| true"):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                ["bash", "-o", "pipefail", "-c", f'"$0" -c "{code}" {words}', sys.executable],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                cwd=folder,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            assert (Path(folder) / "after").read_text() == "safe"
