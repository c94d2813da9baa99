"""The ending shows what it can, and the run is finished whatever fails."""

import json
from pathlib import Path
from typing import Any

import pytest

import train.showcase.ending
from data_pipeline.corpus import Corpora
from data_pipeline.dataset import GLMDataset, Source
from tests.helpers.corpora import MemoryStream
from tests.helpers.rank_runs import config_of
from tests.helpers.tiny import SPECIAL
from train.run_folder import RunFolder
from train.showcase.ending import show_what_was_learnt

LINE: dict[str, Any] = {
    "step": 10,
    "samples_seen": 40,
    "train/loss": 3.0,
    "valid/loss_mask": 2.5,
    "valid/loss_gmask": 2.25,
    "valid/loss_mip": None,
}
CORPORA = Corpora([], [], "bytes")


def ending(folder: Path, line: dict[str, Any] | str = LINE, *words: str) -> list[str]:
    (folder / "metrics.jsonl").write_text(f"{json.dumps(line)}\n")
    config = config_of(("eval.num_samples=8", *words), 1)
    dataset = GLMDataset(
        [Source("phrases", MemoryStream(20_000, config.model.vocab_size))],
        SPECIAL,
        config.objective,
        config.model.seq_length,
        1234,
        is_validation=True,
    )
    said: list[str] = []
    show_what_was_learnt(config, RunFolder(folder), dataset, CORPORA, said.append)
    return "\n".join(said).split("\n")


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("bad \x1b[2J luck"), "cannot be shown in full (RuntimeError: bad"),
        (MemoryError(), "cannot be shown in full (MemoryError"),
        (KeyboardInterrupt(), "Interrupted: the rest"),
    ],
)
def test_what_fails_is_said_and_the_run_is_finished(
    error: BaseException, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr(train.showcase.ending, "load_model", fail)
    lines = ending(tmp_path)
    (told,) = [line for line in lines if words in line]
    assert told.endswith("The run is finished.")
    assert lines[-1].startswith("  go on ")
    # The figures known by then are kept.
    assert summary(tmp_path)["valid_loss_mask"] == 2.5 and "top5_model" not in summary(tmp_path)


def test_losses_stand_beside_their_baselines_in_80_columns(tmp_path: Path) -> None:
    lines = ending(tmp_path, LINE | {"train/loss": "nan", "valid/loss_gmask": None})
    (row,) = [line for line in lines if line.startswith("  [MASK] short blanks")]
    assert "2.500" in row and f"{summary(tmp_path)['unigram_loss_mask']:.3f}" in row
    assert not any("gMASK" in line for line in lines), "an objective without a loss has no row"
    table = lines[: lines.index(row) + 1]
    assert max(map(len, table)) < 80


def test_a_model_that_is_not_better_than_word_frequencies_is_said(tmp_path: Path) -> None:
    words = "not better than word frequencies yet"
    assert not any(words in line for line in ending(tmp_path))
    lines = ending(tmp_path, LINE | {"valid/loss_mask": 99.0, "valid/loss_gmask": 99.0})
    (said,) = [line for line in lines if words in line]
    assert said.startswith(f"After {LINE['samples_seen']:,} samples")


def test_a_history_that_cannot_be_read_costs_the_figures_alone(tmp_path: Path) -> None:
    lines = ending(tmp_path, "a line of something else")
    assert any("metrics.jsonl" in line and "The run is finished." in line for line in lines)
    assert summary(tmp_path) == {}


def test_a_summary_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "summary.json").mkdir()
    (tmp_path / "summary.json" / "mine").touch()
    assert any("summary.json cannot be written" in line for line in ending(tmp_path))


def test_how_to_send_offline_records_is_said_again(tmp_path: Path) -> None:
    def sending(*words: str) -> list[str]:
        return [line for line in ending(tmp_path, LINE, *words) if "sync.sh" in line]

    assert sending("log.wandb=offline") == [], "there is nothing to send"
    (tmp_path / "wandb" / "offline-run-1").mkdir(parents=True)
    (tmp_path / "wandb" / "sync.sh").touch()
    assert sending("log.wandb=offline") == [f"  send wandb   bash {tmp_path}/wandb/sync.sh"]
    assert sending("log.wandb=off") == []
