"""Every command that reads checkpoints refuses an attacker's: exit code 2, one message, nothing executed or written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.checkpoints import forge
from tests.helpers.hostile import FORMAT_ATTACKS, body_of, trace_of
from tests.helpers.whole_runs import command, run_attempt

TAG = "!!python/object/apply:builtins.open"
ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(9 * [f'*{previous}'])}]\n"
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stopped run."""
    folder = tmp_path_factory.mktemp("honest")
    overrides = command(folder, f"run.dir={folder / 'run'}", "run.stop_after_samples=40")
    assert run_attempt(1, overrides) == [75]
    return folder


@pytest.fixture
def hostile(honest: Path, tmp_path: Path) -> Path:
    """A copy of it, with a single checkpoint, to be changed."""
    shutil.copytree(honest, tmp_path / "work")
    for older in sorted((tmp_path / "work/run/checkpoints").glob("step_*"))[:-1]:
        shutil.rmtree(older)
    (tmp_path / "work" / "outside").mkdir()
    return tmp_path / "work"


def checkpoint_of(hostile: Path) -> Path:
    (folder,) = (hostile / "run" / "checkpoints").glob("step_*")
    return folder


def resume(hostile: Path, *more: str) -> tuple[int, str]:
    errors = hostile / "errors.txt"
    overrides = command(hostile, f"run.dir={hostile / 'run'}", *more)
    (code,) = run_attempt(1, overrides, errors=errors)
    return code, errors.read_text()


def generate(hostile: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    from glm.generate import cli

    code = cli([str(hostile / "run"), "--text", "1 times 2 is [MASK]."])
    return code, capsys.readouterr().err


def evaluate(hostile: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    from train.evaluate import cli

    code = cli([str(checkpoint_of(hostile))])
    return code, capsys.readouterr().err


def check_refused(outcome: tuple[int, str], words: str, outside: Path) -> None:
    code, message = outcome
    assert code == 2, message
    assert words in message and "Traceback" not in message
    assert list(outside.iterdir()) == [] and not trace_of(outside).exists()


# One of each sort: the others are refused by the same function, as tests/glm/checkpoint/test_attacks.py shows.
CHOSEN = ("pickle as manifest", "endless header", "interlocking boxes", "doubled key")


@pytest.mark.parametrize("name", CHOSEN)
def test_no_run_continues_from_it(hostile: Path, name: str) -> None:
    attack, words = FORMAT_ATTACKS[name]
    folder = checkpoint_of(hostile)
    attack(folder, hostile / "outside")
    check_refused(resume(hostile), words, hostile / "outside")
    others = [f"run.dir={hostile / 'new'}", f"checkpoint.init_from={folder}"]
    check_refused(resume(hostile, *others), words, hostile / "outside")


@pytest.mark.parametrize("name", [name for name in FORMAT_ATTACKS if "header" not in name])
def test_no_text_is_generated_from_it(
    hostile: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    attack, _ = FORMAT_ATTACKS[name]
    attack(checkpoint_of(hostile), hostile / "outside")
    code, message = generate(hostile, capsys)
    assert code == 2 and str(hostile / "run") in message and "Traceback" not in message
    assert not trace_of(hostile / "outside").exists()


def config_attack(old: str, new: str) -> Callable[[Path], dict[str, Any]]:
    def change(folder: Path) -> dict[str, Any]:
        text = body_of(folder)["config"]
        assert old in text
        return {"config": text.replace(old, new, 1)}

    return change


CONFIGS: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "a call in YAML": (
        lambda folder: {
            "config": f"run: {TAG} [{folder.parents[2] / 'outside' / 'executed'}, w]\n"
        },
        "cannot be read",
    ),
    "aliases without end": (lambda folder: {"config": ALIASES}, "an alias"),
    "nesting without end": (lambda folder: {"config": "[" * 500_000}, "nested without end"),
    "the environment": (
        config_attack("seed: 1234", "seed: ${oc.env:HOME}"),
        "holds an interpolation",
    ),
    "an endless model": (
        config_attack("num_layers: 2", "num_layers: 4000000000"),
        "but its configuration requires",
    ),
    "a model of nothing": (config_attack("hidden_size: 32", "hidden_size: -32"), "hidden_size"),
    "another shape": (config_attack("num_heads: 4", "num_heads: 0"), "num_heads"),
    "no configuration": (lambda folder: {"config": ""}, "but its configuration requires"),
}


@pytest.mark.parametrize("change, words", CONFIGS.values(), ids=CONFIGS)
def test_a_hostile_configuration_is_refused(
    hostile: Path,
    change: Callable[[Path], dict[str, Any]],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = checkpoint_of(hostile)
    forge(folder, **change(folder))
    check_refused(generate(hostile, capsys), words, hostile / "outside")
    check_refused(evaluate(hostile, capsys), words, hostile / "outside")


@pytest.mark.parametrize(
    "changes",
    [
        {"data_state": {}},
        {"data_state": {"dataset": 3}},
        {"data_state": {"dataset": {}, "skip_samples": [["a", "b"]]}},
        {"progress": {"samples_seen": 3}},
        {"optimizer": {"step": 1e308, "counters": {}}},
        {"optimizer": {}},
    ],
    ids=["no data", "data that are none", "ranges", "progress", "numbers", "no optimizer"],
)
def test_a_state_that_makes_no_sense_is_refused(hostile: Path, changes: dict[str, Any]) -> None:
    forge(checkpoint_of(hostile), **changes)
    code, message = resume(hostile)
    assert code == 2 and "Traceback" not in message, message
    assert "checkpoint" in message


def test_what_a_checkpoint_says_of_wandb_and_health_is_not_believed(hostile: Path) -> None:
    folder = checkpoint_of(hostile)
    extra = {"wandb_run_id": "../../../outside/x", "health": {"healthy_step": "../.."}}
    forge(folder, extra=extra)
    code, message = resume(hostile, "log.wandb=offline")
    assert code == 0, message
    assert list((hostile / "outside").iterdir()) == []
    assert ".." not in (hostile / "run" / "wandb" / "run_id.txt").read_text()
