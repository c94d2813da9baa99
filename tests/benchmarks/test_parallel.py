"""The benchmark of pipelines: its arithmetic, its table and its record."""

import json
from pathlib import Path

import pytest

from benchmarks import bubbles, efficiency, parallel
from benchmarks.bubbles import Bubble
from benchmarks.efficiency import Efficiency, table
from benchmarks.report import json_file
from benchmarks.teams import Team

FOUND = Efficiency("interleaved", 2, 8, [100.0, 110.0], [180.0, 200.0], [170.0, 198.0])


def test_the_speed_up_is_that_of_each_round() -> None:
    assert FOUND.speed_up == [0.85, 0.9]
    assert FOUND.of_the_pair == pytest.approx([0.9444, 0.99], abs=1e-4)
    assert FOUND.wanted == pytest.approx(0.93 * 8 / 8.5)
    plain = Efficiency("1F1B", 1, 16, [], [], [])
    assert plain.wanted == pytest.approx(0.93 * 16 / 17)


def test_the_table_has_medians_and_ranges() -> None:
    _, line = table([FOUND])
    expected = "interleaved 8 105 190 184 0.875 0.850 .. 0.900 0.875 0.967 0.944 .. 0.990 0.941"
    assert line.split() == expected.split()


def test_the_record_has_the_figures_and_where_they_are_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bubbles, "measured", lambda: [Bubble(1, 8, 0.25, [0.27])])
    monkeypatch.setattr(efficiency, "measured", lambda: [FOUND])
    path = tmp_path / "figures.json"
    assert parallel.main(["--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["benchmark"] == "parallel"
    assert "PyTorch" in found["machine"] and "cores of" in found["machine"]
    assert found["commit"] in capsys.readouterr().out
    assert found["bubbles"] == [
        {"chunks": 1, "num_micro_batches": 8, "theory": 0.25, "measured": [0.27]}
    ]
    (speed,) = found["efficiency"]
    assert speed["stages"] == [170.0, 198.0]
    assert speed["wanted"] == FOUND.wanted


@pytest.mark.parametrize("words", [["--json"], ["5"], ["--json", "a", "b"]])
def test_other_words_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="type --json FILE"):
        json_file(words)


def test_a_record_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit, match="there is no folder"):
        json_file(["--json", str(tmp_path / "none" / "figures.json")])
    assert json_file([]) is None


def test_a_rank_that_fails_ends_its_team() -> None:
    # What nullcontext yields cannot be called.
    with (
        pytest.raises(RuntimeError, match=r"rank [01] of 2: (?s:.*)'World' object is not callable"),
        Team("contextlib:nullcontext", 2) as team,
    ):
        team.ask()


def test_ranks_answer_in_their_order() -> None:
    with Team("tests.helpers.answering:numbers", 2, 10) as team:
        assert team.ask(1) == [11, 12]
        assert team.ask(5) == [15, 16]
