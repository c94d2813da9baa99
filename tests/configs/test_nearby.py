"""Names near a mistyped one: what is there, nearest first, and nothing that is there by chance."""

from pathlib import Path

import pytest

from configs.nearby import did_you_mean, runs_and_shards_near, runs_near


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, two shards with a held-out one, and a folder of configurations, which is no run."""
    for run in ("runs/default", "runs/german"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "config.yaml").touch()
        (tmp_path / run / "status.json").touch()
    for name in ("shards/de.idx", "shards/de.valid.idx", "shards/en.idx", "configs/config.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("runs/germn", ["runs/german", "runs/default"]),
        ("runs/germn/", ["runs/german", "runs/default"]),
        ("shards/den", ["shards/de", "shards/en"]),
        ("german", ["runs/german"]),  # the folder was forgotten
        ("default2", ["runs/default"]),
        ("runs", ["runs/german", "runs/default"]),  # a folder that holds some
        ("nothing-like-it", []),
        ("nowhere/german", []),
        ("config", []),
    ],
)
@pytest.mark.usefixtures("place")
def test_nearest_names_come_first(typed: str, near: list[str]) -> None:
    found = runs_and_shards_near(typed)
    assert sorted(found) == sorted(near)
    assert found[:1] == near[:1]


@pytest.mark.usefixtures("place")
def test_shards_are_no_runs() -> None:
    assert runs_near("shards/den") == []
    assert runs_near("runs/x") == ["runs/default", "runs/german"]


def test_a_question_names_them_all() -> None:
    assert did_you_mean([]) == ""
    assert did_you_mean(["a"]) == "Did you mean a?"
    assert did_you_mean(["a", "b", "c"]) == "Did you mean a, b or c?"
