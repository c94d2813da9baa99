"""The way back refuses what does not fit, and says what to type."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import CheckpointError
from configs.load import load_config
from glm.checkpoint.manifest import Manifest
from train.checkpoint import check_same_model, restore
from train.checkpoint.restore import check_weights_fit


def test_the_same_model_passes_with_another_dropout_attention_path_and_run() -> None:
    now = load_config(["model.hidden_dropout=0.1", "model.attention=reference", "optim.lr=1e-4"])
    check_same_model(now, load_config([]), Path("runs/a"))


def test_a_softmax_without_fp32_may_be_given_up_or_tried_on_the_way() -> None:
    without = load_config(["model.softmax_fp32=false"])
    check_same_model(load_config([]), without, Path("runs/a"))
    check_weights_fit(without, load_config([]), Path("runs/a"))


@pytest.mark.parametrize("word", ["norm=pre", "norm=post", "embedding_norm=true", "qk_norm=true"])
@pytest.mark.parametrize("check", [check_same_model, check_weights_fit])
def test_a_model_with_other_norms_is_refused(check: Any, word: str) -> None:
    name, value = word.split("=")
    with pytest.raises(CheckpointError, match=f"model.{name} is [Fd].* there and") as error:
        check(load_config([f"model.{word}"]), load_config([]), Path("runs/a"))
    assert value in str(error.value).lower()


def test_another_model_is_refused_naming_every_key_that_differs() -> None:
    now = load_config(["model.hidden_size=64", "model.num_layers=6"])
    with pytest.raises(CheckpointError) as error:
        check_same_model(now, load_config(["run.name=old"]), Path("runs/a"))
    message = str(error.value)
    assert "runs/a holds another model" in message
    assert (
        "model.hidden_size is 128 there and 64 now" in message or "model.hidden_size is" in message
    )
    assert "model.num_layers is" in message and "and 6 now" in message
    assert "model.num_heads" not in message
    assert "run.name=NAME" in message


def test_a_run_cannot_be_resumed_from_weights_alone() -> None:
    manifest = Manifest(1, {}, {}, "", {}, {}, {}, [])
    with pytest.raises(CheckpointError, match=r"checkpoint\.init_from=c/step_00000001"):
        restore(SimpleNamespace(), Path("c/step_00000001"), manifest)


def test_weights_start_a_run_with_longer_rows_or_a_vocabulary_of_the_same_padded_size() -> None:
    stored = load_config(["model.vocab_size=264", "model.vocab_multiple=8"])
    now = load_config(
        ["model.vocab_size=263", "model.vocab_multiple=8", "model.seq_length=1024"]
        + ["model.embedding_init_std=0.1"]
    )
    check_weights_fit(now, stored, Path("c"))
    with pytest.raises(CheckpointError, match="another model"):
        check_same_model(now, stored, Path("c"))


def test_weights_of_another_model_are_refused_with_the_keys_to_type() -> None:
    now = load_config(["model.num_layers=6", "model.rope_2d=true", "model.vocab_size=9000"])
    with pytest.raises(CheckpointError) as error:
        check_weights_fit(now, load_config(["model.num_layers=4"]), Path("runs/a/checkpoints/s"))
    message = str(error.value)
    assert "checkpoint.init_from (runs/a/checkpoints/s)" in message
    assert "model.num_layers=4" in message and "model.rope_2d=false" in message.lower()
    assert "model.vocab_size=" in message and "run.name=NAME" not in message
