"""The benchmark of the trainer beside a bare loop: both must be the same training, or it measures nothing."""

import json
from pathlib import Path

import pytest

from benchmarks import bare_loop
from benchmarks.bare_loop import Beside, Setting, beside, lines
from tests.helpers.tiny import TEXT_RUN


def test_speed_is_the_bare_loop_s_seconds_over_the_trainer_s_in_the_same_steps() -> None:
    found = Beside("tiny", "fp32", 0.97, [1.0, 2.0, 4.0], [0.75, 2.0, 3.0], [0.125, 0.5, 0.0], 1e-7)
    assert found.speed == [0.875, 1.25, 0.75]
    assert found.speed_without_batches == [0.75, 1.0, 0.75]
    table = list(lines(found))
    assert table[-2].split() == ["speed", "0.875", "(0.750", "..", "1.250);", "wanted:", "0.97"]
    assert table[-1].endswith("0.750  (0.750 .. 1.000)")


@pytest.mark.parametrize("precision", bare_loop.PRECISIONS)
def test_the_bare_loop_trains_as_the_trainer_does(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bare_loop, "TURNS", 1)
    found = beside(setting(tmp_path), precision)
    assert len(found.trainer) == len(found.bare) == 1
    assert min(*found.trainer, *found.bare) > 0


def test_two_that_do_not_train_alike_are_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {
        "trainer": [1.0],
        "bare": [1.0],
        "batches": [0.0],
        "losses": [[5.0, 5.0], [5.0, 5.0], [5.0, 5.0], [5.0, 5.001]],
    }
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "loop_turns.py").write_text(f"print({json.dumps(figures)!r})")
    monkeypatch.setattr(bare_loop, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="differ by 2.0e-04, so the two are not the same"):
        beside(setting(tmp_path), "fp32")


def setting(folder: Path) -> Setting:
    """Four steps a turn of a small run that reads a text."""
    text = folder / "text.txt"
    text.write_text("".join(f"This is sentence {number} of the text.\n\n" for number in range(800)))
    words = [word for word in TEXT_RUN if not word.startswith("precision")]
    cache = f"data.cache_dir={folder / 'cache'}"
    return Setting("small", (*words, f"data.paths=[{text}]", cache), 4, 0.5)
