"""Starting on the hosts of a file: what pdsh is told, and what is wrong with a file."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from configs.errors import ConfigError, UserError
from configs.load import load_config
from launch.hosts import pdsh, read_hosts

WORDS = ["cluster.nodes=2", "cluster.gpus_per_node=4", "parallel.tp=2", "data.paths=[a b.txt]"]


def hostfile(folder: Path, text: str) -> str:
    path = folder / "hosts"
    path.write_text(text)
    return f"cluster.hostfile={path}"


def test_each_host_runs_the_same_command_in_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*WORDS, hostfile(tmp_path, "# the cluster\na1 slots=4\n\nb2\nc3 slots=8\n")]
    words += ["cluster.setup=[module load x]", "cluster.environment=[A=b c]"]
    line = shlex.split(pdsh(words))
    assert line[:-1] == ["pdsh", "-R", "ssh", "-S", "-f", "2", "-w", "a1,b2"]
    steps = line[-1].split(" && ")
    assert steps[:3] == [f"cd {tmp_path}", "module load x", "export A='b c'"]
    typed = shlex.split(steps[3])
    assert typed[: typed.index("-m")] == shlex.split(
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes 2 --max-restarts 3 --rdzv-backend c10d --rdzv-id default --rdzv-endpoint a1:29400 "
        "--nproc-per-node 4"
    )
    assert load_config(typed[typed.index("train") + 1 :]) == load_config(words)


def test_the_line_does_what_it_says_when_a_shell_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for pdsh and torchrun: the first runs its last word in a shell once a host, as ssh does."""
    folder = tmp_path / "it's here"
    (folder / "bin").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name, body in (
        ("pdsh", 'for host in a b; do sh -c "${@: -1}"; done'),
        ("torchrun", 'printf "%s|" "$PWD" "$A" "$@"; echo'),
    ):
        program = folder / "bin" / name
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    words = [*WORDS, hostfile(tmp_path, "a\nb\n"), "cluster.environment=[A=b c]"]
    done = subprocess.run(
        ["bash", "-c", pdsh(words)],
        env={**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first == second
    seen = first.split("|")[:-1]
    assert seen[:2] == [str(folder), "b c"]
    assert seen[-len(words) :] == words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb slots=x\n", r'line 2: "b slots=x" is not of the form'),
        ("a\na\n", "line 2: a is named twice"),
        ("# nobody\n", "names no host"),
        ("a\n", r"cluster.nodes \(2\) must not exceed the hosts of cluster.hostfile \(1\). Try cluster.nodes=1"),
        ("a slots=4\nb slots=2\n", "b has slots=2, but runs 4 ranks. Try cluster.gpus_per_node=2"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_answered_with_what_to_type(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        pdsh([*WORDS, hostfile(tmp_path, text)])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_hosts(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="Try cluster.hostfile=FILE"):
        pdsh([])
