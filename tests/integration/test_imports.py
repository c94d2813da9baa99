"""What a short run of `python -m train` has imported when it ends."""

import json
import subprocess
import sys
from pathlib import Path

from tests.helpers.places import ROOT
from tests.helpers.whole_runs import command

UNUSED = (
    "wandb",
    "torch._dynamo",  # PyTorch's compiler
    "torch._inductor.compile_fx",
    "torch._functorch.aot_autograd",
    "triton",
    "networkx",
    "datasets",
    "pyarrow",
    "pandas",
    "scipy",
    "matplotlib",
    "transformers",
    "tensorboard",
    "torch.utils.tensorboard",
    "tensorboardX",
    "wandb_workspaces",
    "apex",
)
# Without these the list that is looked at would be of no run.
USED = ("torch", "deepspeed", "megatron.core", "train.loop", "train.showcase.ending")
PROGRAM = """
import json, sys
from train.main import cli
code = cli(sys.argv[1:])
print()
print(json.dumps([code, sorted(sys.modules)]))
"""


def test_a_run_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    overrides = command(tmp_path, f"run.dir={tmp_path / 'run'}", "optim.total_samples=16")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *overrides], cwd=ROOT, capture_output=True, text=True
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert set(USED) <= set(modules)
    assert not set(UNUSED) & set(modules)
