"""Names of what is not there are refused before the libraries are loaded and before anything is made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import CheckpointError, DataError, RunFolderError
from configs.load import load_config
from tests.helpers.places import ROOT
from train import early
from train.early import check_names
from train.world import World


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def begun(state: str) -> None:
    """The default run as a start leaves it."""
    run = Path("runs/default")
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("")
    (run / "status.json").write_text(json.dumps({"state": state}))


def check(*words: str, world: World | None = None) -> None:
    check_names(load_config(list(words)), words, world or World())


@pytest.mark.parametrize(
    ("word", "kind", "said"),
    [
        ("data.paths=nix.jsonl", DataError, "The corpus nix.jsonl does not exist."),
        ("data.valid_paths=nix.jsonl", DataError, "The corpus nix.jsonl does not exist."),
        (
            "checkpoint.resume=runs/nope",
            CheckpointError,
            r"\(runs/nope\) is not a checkpoint folder",
        ),
        ("checkpoint.init_from=runs/nope", CheckpointError, r"\(runs/nope\) is neither a check"),
    ],
)
def test_what_is_not_there_is_refused_on_one_node(
    word: str, kind: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(kind, match=said):
        check(word)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(kind, match=said):
        check(word, world=World(1, 1, 2, "torchrun"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    check(word, world=World(1, 0, 2, "torchrun"))  # another node may see what this one does not
    assert not list(Path().iterdir())


def test_a_run_with_a_like_name_is_proposed() -> None:
    begun("stopped")
    with pytest.raises(CheckpointError, match="Did you mean runs/default"):
        check("run.name=new", "checkpoint.resume=runs/default-2")


@pytest.mark.parametrize(
    ("state", "word", "is_refused"),
    [
        ("stopped", "data.paths=nix.jsonl", True),
        ("stopped", "checkpoint.resume=runs/nope", True),
        ("stopped", "checkpoint.init_from=runs/nope", False),  # it has weights of its own
        ("done", "data.paths=nix.jsonl", False),
        ("done", "checkpoint.resume=runs/nope", False),
        ("no such state", "data.paths=nix.jsonl", False),
    ],
)
def test_a_run_that_exists_is_asked_for_what_it_needs(
    state: str, word: str, is_refused: bool
) -> None:
    begun(state)
    try:
        check(word)
    except (DataError, CheckpointError):
        assert is_refused
    else:
        assert not is_refused


@pytest.mark.parametrize("word", ["data.paths=nix.jsonl", "checkpoint.resume=runs/nope"])
def test_the_command_answers_before_the_libraries(word: str) -> None:
    begun("stopped")
    code = (
        "import sys; from train.main import cli; code = cli(sys.argv[1:]);"
        "assert not {'torch', 'deepspeed', 'megatron'} & sys.modules.keys(); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, word],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_trackers_that_cannot_be_reported_to_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(RunFolderError, match="log.wandb=offline"):
        check("log.wandb=online")
    check("log.wandb=auto", "log.tensorboard=true")
    monkeypatch.setattr(early, "_TENSORBOARD", "absent")
    with pytest.raises(RunFolderError, match="pip install 'glm-pretraining\\[tensorboard"):
        check("log.tensorboard=true")
    check("log.tensorboard=false")
