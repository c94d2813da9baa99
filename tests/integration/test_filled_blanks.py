"""samples.jsonl of whole runs: what training computes stays the same, and the blanks are those of generation."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.interventions import read_interventions
from glm.filling import Trained
from tests.helpers.poison import run_poisoned
from tests.helpers.whole_runs import command, compared, run_attempt

DROPOUT = "model.hidden_dropout=0.1"
FOUR_LAYERS = "model.num_layers=4"
TWO_STAGES = ("parallel.pp=2", FOUR_LAYERS)
LAYOUTS = {
    "1 x 1 x 1": (1, ()),
    "2 x 1 x 1": (2, ("parallel.tp=2", "parallel.sequence=true")),
    "1 x 2 x 1": (2, TWO_STAGES),
    "1 x 2 x 1, chunks": (
        2,
        (*TWO_STAGES, "parallel.schedule=interleaved", "parallel.chunks=2"),
    ),
    "2 x 2 x 2": (8, ("parallel.tp=2", *TWO_STAGES)),
}


def trained(folder: Path, name: str, world_size: int, *words: str) -> Path:
    """A run below `folder` that ended."""
    run, errors = folder / name, folder / "errors.txt"
    codes = run_attempt(world_size, command(folder, f"run.dir={run}", *words), errors=errors)
    assert codes == [0] * world_size, errors.read_text()
    return run


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_with_samples_computes_what_one_without_does(layout: str, tmp_path: Path) -> None:
    world_size, words = LAYOUTS[layout]
    words = (*words, DROPOUT, "optim.total_samples=40", "eval.every_samples=16")
    without = trained(tmp_path, "without", world_size, *words)
    run = trained(tmp_path, "with", world_size, *words, "log.samples_every_samples=16")
    assert compared(run) == compared(without)
    assert not (without / "samples.jsonl").exists()
    lines = lines_of(run)
    # Each multiple that is crossed, and the end.
    assert [(line["step"], line["samples_seen"]) for line in lines] == [(2, 16), (4, 32), (5, 40)]
    fixed = [
        [(each["index"], each["text"], each["truth"]) for each in _blanks(line)] for line in lines
    ]
    assert fixed[0] == fixed[1] == fixed[2]


@pytest.mark.parametrize("layout", ["1 x 1 x 1", "2 x 1 x 1", "1 x 2 x 1, chunks"])
def test_blanks_are_filled_as_generation_fills_them(layout: str, tmp_path: Path) -> None:
    world_size, words = LAYOUTS[layout]
    words = (*words, DROPOUT, "optim.total_samples=480", "checkpoint.save_every_samples=240")
    run = trained(tmp_path, "run", world_size, *words, "log.samples_every_samples=240")
    lines = lines_of(run)
    assert [line["samples_seen"] for line in lines] == [240, 480]
    for line in lines:
        model = Trained.load(run / "checkpoints" / f"step_{line['step']:08d}")
        blanks = _blanks(line)
        assert [each["objective"] for each in blanks] == ["mask"] * 4 + ["gmask"] * 2
        for each in blanks:
            most = 16 if each["objective"] == "mask" else 32
            assert model.fill(each["text"], most).spans == [each["filled"]]
    corpus = (tmp_path / "corpus.txt").read_text()
    for each in _blanks(lines[-1]):
        marker = "[MASK]" if each["objective"] == "mask" else "[gMASK]"
        assert each["text"].replace(marker, each["truth"]) in corpus
    assert len({each["filled"] for line in lines for each in _blanks(line)}) > 3


def test_a_run_that_went_back_has_the_lines_of_an_undisturbed_one(tmp_path: Path) -> None:
    words = ("optim.total_samples=96", "checkpoint.save_every_samples=24")
    words = (*words, "checkpoint.keep_last=10", "log.samples_every_samples=16")
    undisturbed = trained(tmp_path, "undisturbed", 1, *words)
    run = tmp_path / "run"
    cut = command(tmp_path, f"run.dir={run}", *words, "run.stop_after_samples=72")
    assert run_attempt(1, cut) == [75]
    assert [line["samples_seen"] for line in lines_of(run)] == [16, 32, 48, 64]
    back = f"checkpoint.resume={run / 'checkpoints' / 'step_00000003'}"
    assert trained(tmp_path, "run", 1, *words, back) == run
    assert (run / "samples.jsonl").read_bytes() == (undisturbed / "samples.jsonl").read_bytes()
    assert [line["samples_seen"] for line in lines_of(run)] == [16, 32, 48, 64, 80, 96]


def test_a_rollback_cuts_lines_off_and_keeps_them(tmp_path: Path) -> None:
    words = (
        "stability.on_spike=rollback",
        "stability.spike_steps=[3,5]",
        "stability.skip_steps=5",
        "stability.rollback_samples=80",
        "optim.lr=3e-3",
        "optim.total_samples=256",
        "checkpoint.save_every_samples=32",
        "log.samples_every_samples=8",
    )
    poison = [(160, 200)]  # steps 21 to 25 of the data stream
    run, told, errors = tmp_path / "run", tmp_path / "told", tmp_path / "errors.txt"
    words = command(tmp_path, *words)
    assert run_poisoned(1, (*words, f"run.dir={run}"), errors, poison) == [0], errors.read_text()
    (rollback,) = read_interventions(run).rollbacks
    kept = (run / "rolled_back" / "rollback_1_samples.jsonl").read_text().splitlines()
    cut_off = range(rollback.checkpoint_step + 1, rollback.found_step + 1)
    assert [json.loads(line)["step"] for line in kept] == list(cut_off)
    # A run that was told to leave out these data from its beginning has the same lines.
    skip = f"data.skip_samples={[list(each) for each in rollback.skip]}".replace(" ", "")
    assert run_poisoned(1, (*words, f"run.dir={told}", skip), errors, poison) == [0]
    assert (run / "samples.jsonl").read_bytes() == (told / "samples.jsonl").read_bytes()
    assert [line["step"] for line in lines_of(run)] == list(range(1, 33))


def test_text_without_sentences_is_said_once(tmp_path: Path) -> None:
    corpus = tmp_path / "digits.txt"
    corpus.write_text("".join(f"{number:0100d}\n\n" for number in range(400)))
    words = (f"data.paths={corpus}", "optim.total_samples=24", "log.samples_every_samples=8")
    run = trained(tmp_path, "run", 1, *words)
    assert not (run / "samples.jsonl").exists()
    assert (run / "log.txt").read_text().count("There is no blank to fill") == 1


def _blanks(line: dict[str, Any]) -> list[dict[str, Any]]:
    return line["blanks"]
