"""Collecting for a cluster without internet access, and installing from what was collected."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from launch.collect import collect, gather_wheels, installed_requirements, local_files


def test_all_that_is_needed_is_listed_in_the_installed_versions() -> None:
    whole = installed_requirements("glm-pretraining", set())
    names = {line.partition("==")[0] for line in whole}
    assert {"torch", "deepspeed", "hydra-core", "antlr4-python3-runtime", "numpy"} <= names
    assert not {"pytest", "ruff", "glm-pretraining"} & names
    # What only PyTorch needs goes with it.
    without = installed_requirements("glm-pretraining", {"torch"})
    assert {"torch", "mpmath", "sympy"} <= names
    assert not {"torch", "mpmath", "sympy"} & {line.partition("==")[0] for line in without}


def test_a_small_part_installs_and_runs_without_internet_access(tmp_path: Path) -> None:
    """This program and what `launch` needs of its libraries, in a new environment that can reach no index."""
    requirements = installed_requirements("hydra-core", set())
    hydra = [
        line
        for line in installed_requirements("glm-pretraining", {"torch"})
        if line.startswith(("hydra-core=", "msgspec="))
    ]
    folder = tmp_path / "to the cluster"
    count = gather_wheels(folder, [*hydra, *requirements])
    assert count == len(requirements) + 3
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    offline = {
        "PATH": os.environ["PATH"],
        "PIP_INDEX_URL": "http://127.0.0.1:1/",
        "HOME": str(tmp_path),
    }
    install = ["bash", str(folder / "install.sh"), "-q", "--no-deps"]
    python = str(venv / "bin" / "python")
    subprocess.run(install, env={**offline, "PYTHON": python}, check=True, cwd=tmp_path)
    done = subprocess.run(
        [python, "-m", "launch", "torchrun", "experiment=glm_130b"],
        cwd=tmp_path,
        env=offline,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--nproc-per-node 8 -m train experiment=glm_130b" in done.stdout  # fmt: skip


def test_the_files_of_a_configuration_are_found(tmp_path: Path) -> None:
    for name in ("tok.json", "a.txt", "shard.bin", "shard.idx"):
        (tmp_path / name).write_text("x")
    words = [
        f"data.tokenizer=hf:{tmp_path}/tok.json#eos=END",
        f"data.paths=[{tmp_path}/a.txt,{tmp_path}/shard]",
    ]
    assert [path.name for path in local_files(load_config(words))] == [
        "tok.json",
        "a.txt",
        "shard.bin",
        "shard.idx",
    ]
    assert local_files(load_config(["data.tokenizer=bytes"])) == []


def test_what_is_wrong_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Name one folder to collect into"):
        collect(["data.tokenizer=bytes"])
    with pytest.raises(ConfigError, match="nowhere.json is not here"):
        collect([str(tmp_path / "out"), f"data.tokenizer=hf:{tmp_path}/nowhere.json"])
    with pytest.raises(ConfigError, match="is a folder. Name the tokenizer's file in it"):
        collect([str(tmp_path / "out"), f"data.tokenizer=hf:{tmp_path}"])
    (tmp_path / "b").mkdir()
    for name in ("a.txt", "b/a.txt"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ConfigError, match=r"Two files are called a\.txt"):
        collect([str(tmp_path / "out"), f"data.paths=[{tmp_path}/a.txt,{tmp_path}/b/a.txt]"])
    assert not (tmp_path / "out").exists()
