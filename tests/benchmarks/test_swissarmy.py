"""The benchmark beside SwissArmyTransformer: its processes, its arithmetic, and, where the library is, equal results."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.rival import environment
from benchmarks.rival.ours import Ours
from benchmarks.rival.process import Worker
from benchmarks.rival.sizes import Size, write_inputs
from benchmarks.swissarmy import Compared, compared, lines

TINY = Size("tiny", 2, 32, 4, 88, 256, 128, 2)
FOUND = Compared("8 x 512", "fp32", 1000, 1e-6, 5.0, {"ours": 6.5, "theirs": 6.5})
FOUND.norms = {"ours": 1.0, "theirs": 1.0}
FOUND.ours = {"targets": [1.0, 2.0], "all": [2.0, 4.0]}
FOUND.products = [1.0, 1.5]
FOUND.attention = [0.5, 0.5]
FOUND.theirs = {"targets": [2.5, 4.0], "all": [3.0, 8.0]}


def test_a_ratio_is_that_of_a_round_and_a_way_has_two_heads() -> None:
    assert FOUND.ratios("as it is") == [3.0, 4.0]
    assert FOUND.ratios("targets") == [2.5, 2.0]
    assert FOUND.ratios("all") == [1.5, 2.0]
    _, _, bound, *table = lines(FOUND)
    assert FOUND.bounds("as it is") == [2.0, 4.0]
    assert FOUND.bounds("targets") == [2.5 / 1.5, 2.0]
    assert "alone 1.25 s, attention alone 0.50 s" in bound
    assert bound.endswith("as it is 3.00; targets 1.83")
    expected = "as it is 3.500 (3.000 .. 4.000) 1.50 s ours, 5.50 s theirs; wanted: 3.0"
    assert table[0].split() == expected.split()


def test_our_worker_answers_with_the_loss_of_both_heads(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.pt"
    write_inputs(TINY, 1, inputs)
    with Worker(Path(sys.executable), "ours", inputs, "float32") as worker:
        parameters = worker.answer()["parameters"]
        few, every = (worker.ask(rows=0, head=head) for head in ("targets", "all"))
        alone = worker.ask(rows=0, products=True)
    stored = torch.load(inputs, weights_only=True)
    assert parameters == sum(value.numel() for value in stored["theirs"].values())
    expected = float(Ours(stored, torch.float32).loss(stored["rows"][0], "targets").detach())
    assert alone["cpu"] > 0 and alone["attention"] > 0
    for found in (few, every):
        assert found["loss"] == pytest.approx(expected, rel=1e-6)
        assert found["norm"] == pytest.approx(few["norm"], rel=1e-5)
        assert found["cpu"] > 0 and found["seconds"] > 0


def test_a_process_that_ends_is_reported_with_what_it_printed(tmp_path: Path) -> None:
    with (
        Worker(Path(sys.executable), "ours", tmp_path / "missing.pt", "float32") as worker,
        pytest.raises(SystemExit, match=r"(?s)model \(ours\) ended.*missing\.pt"),
    ):
        worker.ask(rows=0, head="all")


def test_what_to_type_where_the_library_cannot_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[-1] == environment.REQUIREMENT
        return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: no network\n")

    def bare(place: Path, with_pip: bool) -> None:
        assert with_pip
        (place / "lib" / "python3" / "site-packages").mkdir(parents=True)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(environment.subprocess, "run", fails)
    monkeypatch.setattr(environment.venv, "create", bare)
    with pytest.raises(SystemExit, match=r"not installed: ERROR: no network\n.*type the same"):
        environment.library_python()
    assert not environment.folder().exists()


def test_the_library_computes_the_same_logits_loss_and_gradient() -> None:
    python = environment.folder() / "bin" / "python"
    if not python.exists():
        pytest.skip("python -m benchmarks swissarmy has not installed the library here")
    found = compared(TINY, "fp32", python, 1)
    assert found.logits_differ < 1e-5 < found.largest_logit
    assert found.losses["ours"] == pytest.approx(found.losses["theirs"], rel=1e-6)
    assert found.norms["ours"] == pytest.approx(found.norms["theirs"], rel=1e-5)
