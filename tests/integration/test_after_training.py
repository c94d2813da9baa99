"""What one does with a finished run: fill blanks, evaluate, draw - each as the command of README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs.load import from_yaml
from tests.helpers.places import ROOT
from tests.helpers.whole_runs import command, live, metrics


def run_module(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two replicas of two pipeline stages; everything below reads it in one process."""
    folder = tmp_path_factory.mktemp("after")
    overrides = command(folder, f"run.dir={folder / 'run'}", "parallel.pp=2")
    assert live(4, overrides) == [0] * 4
    return folder / "run"


def test_evaluate_repeats_the_last_held_out_loss(finished: Path):
    outcome = run_module("train.evaluate", str(finished))
    assert outcome.returncode == 0, outcome.stderr
    found = dict(line.split() for line in outcome.stdout.splitlines())
    last = metrics(finished)[-1]
    assert set(found) == {"valid/loss", "valid/loss_mask", "valid/loss_gmask"}
    for key, value in found.items():
        assert float(value) == pytest.approx(last[key], abs=1e-4)
    # Other rows, another figure: the override was heard.
    fewer = run_module("train.evaluate", str(finished), "eval.num_samples=3")
    assert fewer.returncode == 0 and fewer.stdout != outcome.stdout


def test_generate_fills_each_blank_and_repeats_itself(finished: Path):
    words = ("--text", "3 times [MASK] is [MASK]", "--text", "4 times [gMASK]")
    sampled = ("--max-new-tokens", "6", "--temperature", "0.8", "--top-p", "0.9", "--seed", "3")
    outcome = run_module("glm.generate", str(finished), *words, *sampled)
    assert outcome.returncode == 0, outcome.stderr
    assert "[MASK]" not in outcome.stdout and "[gMASK]" not in outcome.stdout
    assert outcome.stdout.startswith("3 times ") and "\n4 times " in outcome.stdout
    assert run_module("glm.generate", str(finished), *words, *sampled).stdout == outcome.stdout
    other = (*sampled[:-1], "4")
    assert run_module("glm.generate", str(finished), *words, *other).stdout != outcome.stdout


@pytest.mark.parametrize(
    "text, words",
    [
        ("no blank at all", "must have either [MASK] blanks or one [gMASK]"),
        ("[gMASK] in front", "only once, at the end"),
        ("[MASK]" + "far too long " * 40, "Give a shorter --text"),
    ],
)
def test_text_that_cannot_be_filled_is_refused(finished: Path, text: str, words: str):
    outcome = run_module("glm.generate", str(finished), "--text", text)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert words in outcome.stderr and "Traceback" not in outcome.stderr


def test_the_lines_for_python_in_the_readme_run(finished: Path):
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    broken = "load_model('nowhere')\n"
    outcome = subprocess.run(
        [sys.executable, "-c", lines.replace("runs/default", str(finished)) + broken],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    spans, scored, samples = outcome.stdout.splitlines()
    assert spans.startswith("['")
    assert 0 < float(scored.split()[0]) < 20 and "torch.Size([6, " in scored
    assert samples.startswith(f"{total_samples(finished)} samples; the first begins ")
    # An error is an exception, with a traceback that no rank signs.
    assert "\nconfigs.errors.CheckpointError: nowhere is neither" in outcome.stderr
    assert "[rank" not in outcome.stderr


def total_samples(run: Path) -> int:
    return from_yaml((run / "config.yaml").read_text()).optim.total_samples


def test_nothing_to_load_is_refused(tmp_path: Path):
    for module, words in (("glm.generate", ("--text", "a [MASK]")), ("train.evaluate", ())):
        outcome = run_module(module, str(tmp_path / "nowhere"), *words)
        assert outcome.returncode == 2
        assert "nowhere" in outcome.stderr and "Traceback" not in outcome.stderr
