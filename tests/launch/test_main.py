"""The command: what it answers, how it ends, and what it never imports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launch.__main__ import COMMANDS, cli
from launch.usage import HELP
from tests.helpers.places import ROOT


def test_estimate_answers_without_pytorch_or_any_training_library(tmp_path: Path) -> None:
    script = (
        "import json, sys\n"
        "from launch.__main__ import cli\n"
        "assert cli(['estimate', 'experiment=glm_130b']) == 0\n"
        "assert cli(['torchrun', 'experiment=glm_130b']) == 0\n"
        f"assert cli(['slurm', 'experiment=glm_130b', 'run.dir={tmp_path}']) == 0\n"
        "sys.stderr.write(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = json.loads(done.stderr.splitlines()[-1])
    assert "hydra" in imported  # the list is the real one
    heavy = {
        "torch",
        "deepspeed",
        "megatron",
        "numpy",
        "datasets",
        "wandb",
        "train",
        "glm",
        "data_pipeline",
    }
    assert heavy.isdisjoint(imported)
    assert "128,697,794,560" in done.stdout


@pytest.mark.parametrize("command", ["fly", "estimat"])
def test_an_unknown_command_is_one_message_and_code_2(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli([command]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f'There is no command "{command}" in this version.')
    assert ("Did you mean estimate?" in err) == (command == "estimat")
    assert "dryrun" in err


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0)])
def test_the_commands_are_shown_when_none_is_given(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(words) == code
    assert "python -m launch estimate [overrides]" in "".join(capsys.readouterr())


def test_problems_of_the_configuration_go_to_stderr_with_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli(["estimate", "foo=1", "parallel.pp=9"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "2 problems:\n"
        '  1. There is no key "foo". See python -m train --help\n'
        "  2. parallel.pp (9) must not exceed model.num_layers (4). Try parallel.pp=4.\n"
    )


def test_every_command_has_a_help_of_its_own() -> None:
    """Those that become another program are answered by it."""
    assert COMMANDS.keys() - HELP.keys() == {"dryrun", "preflight"}
    assert HELP.keys() <= COMMANDS.keys()
    for name, text in HELP.items():
        assert text.startswith(f"python -m launch {name} ")
