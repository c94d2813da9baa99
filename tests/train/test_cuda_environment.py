"""What CUDA reads from the environment is there before PyTorch is imported and CUDA asked; on stand-ins for CUDA."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.cuda_environment import prepare_cuda

CONNECTIONS, WORKSPACE = "CUDA_DEVICE_MAX_CONNECTIONS", "CUBLAS_WORKSPACE_CONFIG"
TRACES = "KINETO_LOG_LEVEL"
ALLOCATOR, FORMER_ALLOCATOR = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"
VARIABLES = (CONNECTIONS, WORKSPACE, ALLOCATOR, FORMER_ALLOCATOR, "DS_ACCELERATOR")

# Prints what the environment holds when PyTorch is imported and at each call that may start CUDA, and ends at the call
# that makes a device the current one, because what follows needs a GPU.
RECORDER = f"""
import builtins, os, sys

def note(what):
    print(what, *(os.environ.get(name, "-") for name in {VARIABLES}), flush=True)

def watched(name, *rest):
    if name != "torch":
        return original(name, *rest)
    builtins.__import__ = original
    assert "torch" not in sys.modules
    note("import")
    import torch
    def count():
        note("count")
        return 2
    def start(device):
        note(f"start {{device}}")
        os._exit(7)
    torch.cuda.device_count, torch.cuda.set_device = count, start
    return torch

original, builtins.__import__ = builtins.__import__, watched
"""


@pytest.mark.parametrize("module", ["train.main", "train.preflight.__main__"])
def test_the_environment_is_complete_before_cuda_starts(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{RECORDER}\nfrom {module} import cli\nprint(cli([]))"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name not in VARIABLES},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 7, done.stdout + done.stderr
    calls = ("import ", "count ", "start ")
    lines = [line for line in done.stdout.splitlines() if line.startswith(calls)]
    imported, *counted, started = lines
    assert imported == "import 1 :4096:8 expandable_segments:True - -"
    assert counted and set(counted) == {"count 1 :4096:8 expandable_segments:True - -"}
    assert started == "start cuda:0 1 :4096:8 expandable_segments:True - cuda"


@pytest.mark.parametrize(
    ("version", "name"),
    [("2.8.0+cu128", FORMER_ALLOCATOR), ("2.9.0", ALLOCATOR), ("2.13.0+cpu", ALLOCATOR)],
)
def test_the_allocator_s_variable_has_the_name_that_this_pytorch_reads(
    version: str, name: str
) -> None:
    variables: dict[str, str] = {}
    prepare_cuda(variables, version)
    assert variables == {
        CONNECTIONS: "1",
        WORKSPACE: ":4096:8",
        TRACES: "99",
        name: "expandable_segments:True",
    }


def test_amd_s_gpus_have_no_expandable_segments() -> None:
    variables: dict[str, str] = {}
    prepare_cuda(variables, "2.9.1+rocm6.4")
    assert variables.keys() == {CONNECTIONS, WORKSPACE, TRACES}


@pytest.mark.parametrize("name", [ALLOCATOR, FORMER_ALLOCATOR])
def test_what_the_user_has_set_stays(name: str) -> None:
    variables = {CONNECTIONS: "8", WORKSPACE: ":16:8", TRACES: "0", name: "max_split_size_mb:512"}
    before = dict(variables)
    prepare_cuda(variables, "2.9.0")
    assert variables == before
