"""What --version says: versions without PyTorch, and a commit only of this program's own checkout."""

import subprocess
import sys
from pathlib import Path

import pytest

import configs
from configs import version
from data_pipeline.__main__ import cli as data
from launch.__main__ import cli as launch
from launch.usage import HELP
from tests.helpers.places import ROOT


@pytest.fixture
def in_somebody_elses_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository around the folder that this program seems to be installed in, which git ignores."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "theirs.txt").write_text("1")
    (tmp_path / ".gitignore").write_text("venv\n")
    (tmp_path / "venv" / "configs").mkdir(parents=True)
    (tmp_path / "venv" / "configs" / "version.py").write_text("")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "theirs"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    (tmp_path / "theirs.txt").write_text("2")
    monkeypatch.setattr(configs, "__path__", [str(tmp_path / "venv" / "configs")])
    return tmp_path


def test_another_programs_commit_is_not_ours(in_somebody_elses_repository: Path) -> None:
    assert (version.commit(), version.differences()) == ("", "")
    assert (
        version.version_text().splitlines()[0]
        == f"glm-pretraining {version.version('glm-pretraining')}"
    )


def test_the_commit_of_a_checkout_is_known(in_somebody_elses_repository: Path) -> None:
    git = ["git", "-C", str(in_somebody_elses_repository)]
    subprocess.run([*git, "add", "-f", "venv"], check=True)
    assert len(version.commit()) == 40
    assert "+2" in version.differences()
    assert (
        version.version_text()
        .splitlines()[0]
        .endswith(f"(commit {version.commit()}, changed since)")
    )


@pytest.mark.parametrize("cli", [data, launch])
def test_commands_say_their_version(cli: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(cli)
    try:
        assert cli(["--version"]) == 0
    except SystemExit as ended:
        assert ended.code == 0
    first, python, torch = capsys.readouterr().out.splitlines()
    assert first.startswith("glm-pretraining ")
    assert python.startswith("python 3.")
    assert torch.startswith("torch ")


# Each command with the arguments before --help; generate and evaluate are tested with their own files.
HELPS = {
    "train": [[]],
    "data_pipeline": [[], ["prepare"], ["merge"], ["train-tokenizer"], ["show"], ["stats"], ["verify"]],
    "launch": [[], *([name] for name in HELP)],
    "train.report": [[]],
    "train.history": [[]],
    "train.profile": [[]],
    "train.dashboard": [[]],
    "train.preflight": [[]],
    "train.dryrun": [[]],
}  # fmt: skip


def test_no_help_and_no_version_loads_what_takes_seconds() -> None:
    """In one process, which would show what any of them imported."""
    script = f"""
import importlib, io, contextlib, sys
for module, commands in {HELPS!r}.items():
    name = module + ".__main__"
    cli = importlib.import_module("train.main" if module == "train" else name).cli
    for words in commands:
        for option in ("--help", "--version"):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                try:
                    code = cli([*words, option])
                except SystemExit as ended:
                    code = ended.code
            assert code == 0, (module, words, option)
            assert len(out.getvalue()) > 20, (module, words, option)
heavy = {{"torch", "deepspeed", "megatron", "datasets", "wandb"}} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
