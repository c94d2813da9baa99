"""A run takes the tokenizer that its weights were trained with, and no other without a word."""

from pathlib import Path

import pytest

from configs.errors import DataChangedError
from configs.load import load_config
from data_pipeline.preparation.train_tokenizer import train_tokenizer
from data_pipeline.tokenizer import keep_tokenizer
from tests.helpers.texts import sentences
from train.own_tokenizer import check_tokenizer, own_tokenizer
from train.run_folder import RunFolder

OWN = "hf:{}/tokenizer/tokenizer.json"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has trained a step, and a file that names its tokenizer no more."""
    folder = RunFolder(tmp_path / "runs" / "e")
    folder.create()
    (tmp_path / "made").mkdir()
    train_tokenizer(sentences(20), tmp_path / "made" / "tokenizer.json", 300)
    keep_tokenizer(f"hf:{tmp_path}/made/tokenizer.json", folder.tokenizer)
    return folder


def test_a_run_that_has_trained_takes_its_own(run: RunFolder, tmp_path: Path) -> None:
    config = load_config([f"run.dir={run.path}"])
    assert own_tokenizer(run, config) is None  # nothing was trained: nothing is lost
    run.metrics.write_text("{}\n")
    assert own_tokenizer(run, config) == OWN.format(run.path)
    resumed = load_config([f"run.dir={tmp_path}/other", f"checkpoint.resume={run.path}"])
    assert own_tokenizer(RunFolder(tmp_path / "other"), resumed) == OWN.format(run.path)


def test_a_run_that_lost_its_folder_takes_that_of_its_second_copy(
    run: RunFolder, tmp_path: Path
) -> None:
    config = load_config(
        ["run.name=e", f"run.dir={tmp_path}/new", f"checkpoint.copy_to={tmp_path}/c"]
    )
    new = RunFolder(tmp_path / "new")
    assert own_tokenizer(new, config) is None
    copy = tmp_path / "c" / "e"
    keep_tokenizer(OWN.format(run.path), copy / "tokenizer")
    assert own_tokenizer(new, config) is None
    step = copy / "checkpoints" / "step_00000004"
    step.mkdir(parents=True)
    (step / "manifest.json").write_text("{}")
    assert own_tokenizer(new, config) == OWN.format(copy)


def test_weights_bring_their_tokenizer_and_another_is_refused_unless_accepted(
    run: RunFolder, tmp_path: Path
) -> None:
    new = RunFolder(tmp_path / "new")
    words = [f"run.dir={new.path}", f"checkpoint.init_from={run.path}"]
    config = load_config(words)
    assert own_tokenizer(new, config) == OWN.format(run.path)
    said: list[str] = []
    check_tokenizer(new, config, OWN.format(run.path), said.append)
    assert said == []
    with pytest.raises(
        DataChangedError, match=r"its ids mean other words.*data\.accept_changed=true"
    ):
        check_tokenizer(new, config, "bytes", said.append)
    accepted = load_config([*words, "data.accept_changed=true"])
    check_tokenizer(new, accepted, "bytes", said.append)
    assert len(said) == 1 and "as data.accept_changed=true accepts" in said[0]


def test_weights_without_a_tokenizer_beside_them_are_reported(tmp_path: Path) -> None:
    config = load_config([f"run.dir={tmp_path}/new", f"checkpoint.init_from={tmp_path}/old"])
    said: list[str] = []
    check_tokenizer(RunFolder(tmp_path / "new"), config, "bytes", said.append)
    assert len(said) == 1 and "is not known" in said[0]
