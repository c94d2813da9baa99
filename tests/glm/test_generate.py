"""What is typed wrongly is answered at once, before the libraries that run a model are loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from glm.generate import cli
from tests.helpers.places import ROOT


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--temperature", ["-1", "nan", "inf", "1e-45", "warm"]),
        ("--top-p", ["0", "2", "nan", "-0.5"]),
        ("--max-new-tokens", ["0", "-3", "1.5"]),
        ("--seed", ["-1", "1" + "0" * 30]),
        ("--top", ["0", "101", "all"]),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(
    option: str, values: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for value in values:
        with pytest.raises(SystemExit) as ended:
            cli(["nowhere", "--text", "a [MASK]", f"{option}={value}"])
        assert ended.value.code == 2
        assert f'argument {option}: "{value}" is' in capsys.readouterr().err


def test_a_text_without_a_marker_is_told_before_the_model_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli(["nowhere", "--text", "no blank\x1b[2J"]) == 2
    told = capsys.readouterr().err
    assert "must have either" in told and "nowhere" not in told
    assert "\x1b" not in told and "\\x1b[2J" in told


@pytest.mark.parametrize("module", ["glm.generate", "train.evaluate"])
def test_help_does_not_wait_for_libraries(module: str) -> None:
    code = (
        f"import sys; from {module} import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit as ended: assert not ended.code\n"
        "assert not {'torch', 'numpy', 'tokenizers', 'hydra'} & set(sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "run folder or checkpoint folder" in shown.stdout


@pytest.mark.parametrize(
    ("module", "words", "told"),
    [
        ("glm.generate", ["nowhere", "--text", "a [MASK]"], "nowhere does not exist"),
        (
            "glm.generate",
            ["docs", "--text", "a [MASK]"],
            "docs is not a checkpoint, and contains none",
        ),
        ("glm.generate", ["NEAR", "--text", "a [MASK]"], "Did you mean RUN?"),
        ("train.evaluate", ["NEAR"], "Did you mean RUN?"),
        ("glm.generate", ["RUN", "--text", "a [mask]"], "[mask] is not a marker"),
        ("glm.generate", ["RUN", "--text", "[MASK]", "--tokenizer", "x"], "Type --tokenizer hf:"),
        ("train.evaluate", ["nowhere"], "nowhere does not exist"),
        ("train.evaluate", ["RUN", "eval.num_sample=3"], "eval.num_samples"),
    ],
)
def test_mistakes_are_told_before_pytorch_is_imported(
    module: str, words: list[str], told: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    folder = run / "checkpoints" / "step_00000001"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"config": "seed: 1\n"}))
    (run / "config.yaml").touch()
    places = {"RUN": str(run), "NEAR": str(tmp_path / "rn")}
    typed = [places.get(word, word) for word in words]
    code = (
        f"import sys; from {module} import cli\n"
        f"assert cli({typed!r}) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0 and told.replace("RUN", str(run)) in done.stderr, done.stderr
