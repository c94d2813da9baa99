"""A run that begins draws its weights; one that takes them from a checkpoint draws none and goes on bit for bit."""

import dataclasses
from pathlib import Path

import pytest

from tests.helpers.distributed import Ranks, run_distributed
from tests.helpers.rank_runs import config_of, progress_after, rank_session, saver_of
from tests.helpers.whole_runs import command, compared, run_attempt

EVERY_STEP = ("checkpoint.save_every_samples=8", "checkpoint.keep_last=99")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of six steps, `run`, and what it was made from."""
    folder = tmp_path_factory.mktemp("whole")
    overrides = command(folder, *EVERY_STEP, f"run.dir={folder / 'run'}", "optim.total_samples=48")
    assert run_attempt(1, overrides) == [0]
    return folder


def without_drawing(rank: int, world_size: int, overrides: tuple[str, ...]) -> int:
    """A start in which drawing a weight is an error; returns its exit code."""
    from glm import counter_random
    from train.main import cli

    def refuse(*_: object) -> None:
        raise AssertionError("a weight was drawn")

    vars(counter_random)["_normal"] = refuse
    return cli(list(overrides))


def start_without_drawing(*overrides: str) -> int:
    return Ranks(without_drawing, 1, overrides).results(120)[0]


def test_a_new_run_draws(whole: Path, tmp_path: Path) -> None:
    overrides = command(whole, f"run.dir={tmp_path / 'new'}", "optim.total_samples=8")
    assert start_without_drawing(*overrides) == 1


def test_a_resumed_run_draws_nothing_and_trains_the_same(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = command(whole, *EVERY_STEP, f"run.dir={run}", "optim.total_samples=48")
    assert run_attempt(1, (*overrides, "run.stop_after_samples=16")) == [75]
    assert start_without_drawing(*overrides) == 0
    assert compared(run) == compared(whole / "run")
    assert last_tensors(run) == last_tensors(whole / "run")


def test_a_run_from_the_weights_of_another_draws_nothing(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = command(whole, f"run.dir={run}", f"checkpoint.init_from={whole / 'run'}")
    assert start_without_drawing(*overrides, "optim.total_samples=16") == 0
    losses = [line["train/loss"] for line in compared(run)]
    assert len(losses) == 2 and max(losses) < compared(whole / "run")[0]["train/loss"]


def last_tensors(run: Path) -> bytes:
    """What the file of step 6 holds after its header."""
    (file,) = (run / "checkpoints/step_00000006").glob("*.safetensors")
    content = file.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def load_less(rank: int, world_size: int, checkpoints: Path) -> list[str]:
    """What loading says if the checkpoint lacks one tensor, or a fragment of one."""
    from configs.errors import CheckpointError
    from glm.checkpoint.reader import Reader, read_manifest
    from train.engine import build_engine

    config = config_of(("precision=fp32",), world_size)
    said = []
    with rank_session(rank, world_size, config) as session:
        engine = build_engine(config, session)
        saver = saver_of(engine, session, config, checkpoints)
        saver.save(progress_after(1))
        (outcome,) = saver.finish()
        whole = read_manifest(outcome.folder)
        name = "layers.1.mlp.dense_out.weight"
        lacking = [
            {"tensors": {key: shape for key, shape in whole.tensors.items() if key != name}},
            {"fragments": [fragment for fragment in whole.fragments if fragment.tensor != name]},
        ]
        for change in lacking:
            fresh = build_engine(config, session, draws_weights=False)
            reader = Reader(outcome.folder, dataclasses.replace(whole, **change))
            for load in (fresh.state.load, fresh.state.load_weights):
                try:
                    load(reader)
                    said.append("loaded")
                except CheckpointError as error:
                    said.append(str(error))
            fresh.close()
        engine.close()
    return said


def test_a_checkpoint_that_lacks_a_tensor_is_an_error(tmp_path: Path) -> None:
    (said,) = run_distributed(load_less, 1, tmp_path)
    assert len(said) == 4
    for words in said:
        assert "layers.1.mlp.dense_out.weight" in words, words
