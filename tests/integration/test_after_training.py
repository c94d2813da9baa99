"""What one does with a finished run: fill blanks, evaluate, draw - each as the command of README."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from configs.load import from_yaml
from glm.generate import cli as generate
from tests.helpers.distributed import Ranks
from tests.helpers.places import ROOT
from tests.helpers.whole_runs import command, metrics, run_attempt, typed
from train.evaluate import cli as evaluate


def run_module(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two pipeline stages of two tensor-parallel ranks; everything below reads it in one process."""
    folder = tmp_path_factory.mktemp("after")
    overrides = command(folder, f"run.dir={folder / 'run'}", "parallel.pp=2", "parallel.tp=2")
    assert run_attempt(4, overrides) == [0] * 4
    return folder / "run"


def test_a_run_on_several_ranks_shows_what_it_learnt_and_is_finished(
    finished: Path, tmp_path: Path
):
    summary = json.loads((finished / "summary.json").read_text())
    assert {"valid_loss_mask", "unigram_loss_gmask", "top5_model"} <= set(summary)
    log = (finished / "log.txt").read_text()
    assert "the five most probable words" in log and "cannot be shown" not in log
    assert json.loads((finished / "status.json").read_text())["state"] == "done"
    again = typed(tmp_path, *command(finished.parent, f"run.dir={finished}"))
    assert again.returncode == 0 and "is finished" in again.stdout


def shown_when(rank: int, world_size: int, overrides: tuple[str, ...], record: Path) -> int:
    """A run that writes down what is still open when it shows what was learnt."""
    import torch.distributed as dist
    from megatron.core import parallel_state

    from train import run
    from train.main import cli

    original = run.show_what_was_learnt

    def show(*arguments: Any) -> None:
        is_open = [dist.is_initialized(), parallel_state.model_parallel_is_initialized()]
        record.write_text(json.dumps([rank, *is_open]))
        original(*arguments)

    run.show_what_was_learnt = show
    os._exit(cli(list(overrides)))


def test_what_was_learnt_is_shown_once_the_process_groups_are_closed(tmp_path: Path):
    overrides = command(tmp_path, f"run.dir={tmp_path / 'run'}", "parallel.tp=2")
    ranks = Ranks(shown_when, 2, overrides, tmp_path / "shown.json")
    try:
        assert ranks.wait(120) == [0, 0]
    finally:
        ranks.kill_all()
    assert json.loads((tmp_path / "shown.json").read_text()) == [0, False, False]
    assert (tmp_path / "run" / "summary.json").is_file()


def test_evaluate_repeats_the_last_held_out_loss(
    finished: Path, capsys: pytest.CaptureFixture[str]
):
    assert evaluate([str(finished), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    last = metrics(finished)[-1]
    for key, value in found["losses"].items():
        assert value == pytest.approx(last[key], abs=1e-4)
    summary = json.loads((finished / "summary.json").read_text())
    for name in ("mask", "gmask"):
        assert found["losses"][f"valid/loss_{name}"] == pytest.approx(summary[f"valid_loss_{name}"])
        assert found["unigram"][f"valid/loss_{name}"] == summary[f"unigram_loss_{name}"]
    assert (found["step"], found["num_rows"]) == (last["step"], 8)
    # Other rows, another loss: the override had an effect.
    outcome = run_module("train.evaluate", str(finished), "eval.num_samples=3")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr.startswith("Loading PyTorch ...") and "3 rows" in outcome.stdout
    rows = [line.split() for line in outcome.stdout.partition("Held-out loss")[2].splitlines()[1:]]
    assert [" ".join(row[:3]) for row in rows[1:]] == ["[MASK] short blanks", "[gMASK] long blanks"]
    assert rows[0][:2] == ["all", "blanks"]
    assert float(rows[0][2]) != pytest.approx(last["valid/loss"], abs=1e-4)


def test_evaluate_needs_no_training_text_for_rows_of_ones_own(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    own = tmp_path / "own.txt"
    own.write_text("".join(f"{n} times 3 is {3 * n}.\n\n" for n in range(200)))
    words = [f"data.valid_paths=[{own}]", f"data.cache_dir={tmp_path / 'cache'}", "--json"]
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished, moved)
    corpus = finished.parent / "corpus.txt"
    kept = corpus.rename(corpus.with_suffix(".away"))
    try:
        assert evaluate([str(moved), *words]) == 0
    finally:
        kept.rename(corpus)
    told = capsys.readouterr()
    assert str(own) in told.err and str(corpus) not in told.err
    assert json.loads(told.out)["losses"]["valid/loss"] > 0


def test_generate_fills_each_blank_and_repeats_itself(
    finished: Path, capsys: pytest.CaptureFixture[str]
):
    words = [str(finished), "--text", "3 times [MASK] is [MASK]", "--text", "4 times [gMASK]"]
    sampled = ["--max-new-tokens", "6", "--temperature", "0.8", "--top-p", "0.9", "--seed"]
    outputs = []
    for seed in ("3", "3", "4"):
        assert generate([*words, *sampled, seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert "[MASK]" not in outputs[0] and "[gMASK]" not in outputs[0]
    assert outputs[0].startswith("3 times ") and "\n\n4 times " in outputs[0]
    assert outputs[0] == outputs[1] != outputs[2]


def test_generate_reads_and_writes_lines_for_scripts(finished: Path):
    outcome = subprocess.run(
        [sys.executable, "-m", "glm.generate", str(finished), "--json", "--top", "2"],
        input="3 times [MASK] is 12.\n\n4 times [MASK] is [MASK].\nno marker\n",
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    records = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [len(record["guesses"]) for record in records] == [1, 2]
    for record in records:
        assert len(record["spans"]) == len(record["guesses"])
        assert record["text"].startswith(record["prompt"][:7]) and "[MASK]" not in record["text"]
        assert all(0 < guess["probability"] <= 1 for each in record["guesses"] for guess in each)
    assert outcome.returncode == 2 and "line 4: The text" in outcome.stderr


def test_a_terminal_shows_what_was_filled_in(finished: Path):
    main, other = pty.openpty()
    words = [sys.executable, "-m", "glm.generate", str(finished), "--text", "3 times [MASK] is 12."]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment["TERM"] = "xterm"
    subprocess.run(words, cwd=ROOT, env=environment, stdout=other, timeout=120, check=True)
    os.close(other)
    shown = os.read(main, 10_000).decode()
    os.close(main)
    assert shown.startswith("3 times \x1b[1;4m") and "\x1b[0m is 12." in shown


@pytest.mark.parametrize(
    "text, words",
    [
        ("no blank at all", "must have either [MASK] blanks or one [gMASK]"),
        ("[gMASK] in front", "only once, at the end"),
        ("[MASK]" + "far too long " * 40, "Give a shorter --text"),
    ],
)
def test_text_that_cannot_be_filled_is_refused(
    finished: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
):
    assert generate([str(finished), "--text", text]) == 2
    told = capsys.readouterr()
    assert told.out == "" and words in told.err


def test_the_lines_for_python_in_the_readme_run(finished: Path):
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    broken = "Trained.load('nowhere')\n"
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
    assert "\nconfigs.errors.CheckpointError: nowhere does not exist" in outcome.stderr
    assert "[rank" not in outcome.stderr


def total_samples(run: Path) -> int:
    return from_yaml((run / "config.yaml").read_text()).optim.total_samples


def test_nothing_to_load_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    nowhere = str(tmp_path / "nowhere")
    assert generate([nowhere, "--text", "a [MASK]"]) == evaluate([nowhere]) == 2
    assert capsys.readouterr().err.count("nowhere does not exist") == 2
