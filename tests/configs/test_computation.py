"""What the trainer does and estimates count with, case by case."""

import pytest

from configs.computation import (
    attention_path,
    element_bytes,
    fold_of_windows,
    folds,
    reduce_bucket_size,
    sums_in_fp32,
)
from configs.hardware import PRESETS
from configs.load import load_config
from configs.peak_rates import peak_tflops_of
from configs.schema import AttentionPath, ModelConfig, Precision


@pytest.mark.parametrize(
    ("asked", "dropout", "on_gpu", "path"),
    [
        ("auto", 0.0, True, "flex"),
        ("auto", 0.0, False, "sdpa"),
        ("auto", 0.1, True, "reference"),
        ("sdpa", 0.0, True, "sdpa"),
        ("reference", 0.0, False, "reference"),
    ],
)
def test_the_attention_path(asked: str, dropout: float, on_gpu: bool, path: str) -> None:
    model = ModelConfig(attention=AttentionPath(asked), attention_dropout=dropout)
    chosen, reason = attention_path(model, on_gpu)
    assert chosen.value == path
    assert reason


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_softmax_without_fp32_takes_the_reference_path(on_gpu: bool) -> None:
    path, reason = attention_path(ModelConfig(softmax_fp32=False), on_gpu)
    assert path is AttentionPath.reference
    assert "softmax" in reason


@pytest.mark.parametrize(
    ("seq_length", "windows", "fold"),
    [(256, 1, 1), (256, 4, 4), (256, 3, 1), (256, 6, 2), (1024, 4, 4), (1024, 16, 8)]
    + [(512, 1, None), (1024, 2, None), (2048, 4, None), (2048, 8, 8), (4096, 8, None)],
)
def test_a_row_of_equal_windows_is_folded_where_they_are_short(
    seq_length: int, windows: int, fold: int | None
) -> None:
    assert fold_of_windows(seq_length, windows) == fold


def test_only_short_rows_are_one_window() -> None:
    assert folds(256)[-1] == 1
    assert folds(257) == (8, 4, 2)
    assert folds(2049) == ()


@pytest.mark.parametrize(
    ("precision", "size", "in_fp32"),
    [("fp32", 4, False), ("bf16", 2, True), ("fp16", 2, False), ("auto", 2, True)],
)
def test_number_formats(precision: str, size: int, in_fp32: bool) -> None:
    assert element_bytes(Precision(precision)) == size
    assert sums_in_fp32(Precision(precision)) is in_fp32


def test_a_small_model_has_a_bucket_of_its_own_size() -> None:
    assert reduce_bucket_size(load_config(["experiment=glm_130b"])) == 500_000_000
    assert reduce_bucket_size(load_config([])) < 10_000_000


def test_a_device_is_known_by_the_name_that_its_driver_gives() -> None:
    assert peak_tflops_of("NVIDIA A100-SXM4-40GB") == PRESETS["A100-40G"].peak_tflops
    assert peak_tflops_of("NVIDIA H100 80GB HBM3") == PRESETS["H100"].peak_tflops
    assert peak_tflops_of("NVIDIA H100 PCIe") == 756
    assert peak_tflops_of("NVIDIA GeForce GT 1030") is None
