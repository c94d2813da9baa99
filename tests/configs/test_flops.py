"""Operations of a step by hand, for three models; and the peaks that MFU and HFU are shares of."""

from dataclasses import dataclass

import pytest

from configs import derive
from configs.flops import Computed, hardware_flops, model_flops
from configs.load import load_config
from configs.peak_rates import PEAK_RATES, peak_tflops_of
from configs.schema import ModelConfig, Precision, Recompute


@dataclass(frozen=True)
class ByHand:
    """A forward pass over one row, 2 operations for each multiplication."""

    name: str
    matrices: int
    """2 s L (4 h^2 + 3 h f), of all layers."""
    attention: int
    """4 s^2 h L: scores and their use, of all pairs."""
    head: int
    """2 s h V."""


BY_HAND = [
    # s 256, L 4, h 128, f 384, V 1024. A layer's weights: 4 x 16,384 + 3 x 128 x 384 = 65,536 + 147,456 = 212,992.
    ByHand(
        "tiny",
        2 * 256 * 4 * 212_992,  # 436,207,616
        4 * 65_536 * 128 * 4,  # 134,217,728
        2 * 256 * 128 * 1024,  # 67,108,864
    ),
    # s 2048, L 48, h 4096, f 10,944, V 50,048: 4 x 16,777,216 + 3 x 44,826,624 = 67,108,864 + 134,479,872.
    ByHand(
        "glm_10b",
        2 * 2048 * 48 * 201_588_736,
        4 * 4_194_304 * 4096 * 48,
        2 * 2048 * 4096 * 50_048,
    ),
    # s 2048, L 70, h 12,288, f 32,768, V 150,528: 4 x 150,994,944 + 3 x 402,653,184 = 603,979,776 + 1,207,959,552.
    ByHand(
        "glm_130b",
        2 * 2048 * 70 * 1_811_939_328,
        4 * 4_194_304 * 12_288 * 70,
        2 * 2048 * 12_288 * 150_528,
    ),
]


def model_of(name: str) -> ModelConfig:
    return load_config([f"model={name}", "model.attention_dropout=0"]).model


@pytest.mark.parametrize("hand", BY_HAND, ids=lambda hand: hand.name)
def test_a_row_as_published_figures_count_it(hand: ByHand) -> None:
    model = model_of(hand.name)
    layers = hand.matrices + hand.attention
    # A backward pass costs two forward passes; full recompute repeats the layers', selective recompute no matrix.
    assert derive.flops_per_sample(model) == 3 * (layers + hand.head)
    assert derive.flops_per_sample(model, Recompute.selective) == 3 * (layers + hand.head)
    assert derive.flops_per_sample(model, Recompute.full) == 4 * layers + 3 * hand.head
    assert model_flops(model, Computed.dense(model)) == 3 * (layers + hand.head)


@pytest.mark.parametrize("hand", BY_HAND, ids=lambda hand: hand.name)
@pytest.mark.parametrize("on_gpu", [False, True])
def test_rows_as_they_are_computed(hand: ByHand, on_gpu: bool) -> None:
    """10 rows with a quarter of the pairs and a third of the logits, by a fused kernel (auto: sdpa, flex on CUDA)."""
    model = model_of(hand.name)
    rows, seq = 10, model.seq_length
    computed = Computed(rows, rows * seq**2 / 4, rows * seq / 3)
    matrices, attention, head = (
        rows * hand.matrices,
        rows * hand.attention / 4,
        rows * hand.head / 3,
    )
    once = 3 * (matrices + attention + head)
    assert model_flops(model, computed) == pytest.approx(once, rel=1e-12)
    # The backward kernel computes the scores again: one of the two products of a forward pass.
    expected = {
        Recompute.none: once + attention / 2,
        Recompute.full: once + attention / 2 + matrices + attention,
        # FlexAttention, compiled, is not kept.
        Recompute.selective: once + attention / 2 + (attention if on_gpu else 0),
    }
    for recompute, operations in expected.items():
        found = hardware_flops(model, computed, recompute, on_gpu)
        assert found == pytest.approx(operations, rel=1e-12)
        assert found > model_flops(model, computed), "recompute counts for HFU alone"


def test_materialised_scores_are_kept() -> None:
    model = load_config(["model=tiny", "model.attention=reference"]).model
    dense = Computed.dense(model)
    assert hardware_flops(model, dense, Recompute.none, False) == model_flops(model, dense)
    full = hardware_flops(model, dense, Recompute.full, False)
    assert full == derive.flops_per_sample(model, Recompute.full)


# As drivers name them, with the dense rates of the data sheets in bf16, fp16 and fp32.
DEVICES = [
    ("NVIDIA A100-SXM4-80GB", 312, 312, 19.5),
    ("NVIDIA A100-PCIE-40GB", 312, 312, 19.5),
    ("NVIDIA A800-SXM4-80GB", 312, 312, 19.5),
    ("NVIDIA A10", 125, 125, 31.2),
    ("NVIDIA A10G", 70, 70, 31.2),
    ("NVIDIA H100 80GB HBM3", 989, 989, 67),
    ("NVIDIA H100 PCIe", 756, 756, 51),
    ("NVIDIA H100 NVL", 835, 835, 60),
    ("NVIDIA H800", 989, 989, 67),
    ("NVIDIA H800 PCIe", 756, 756, 51),
    ("NVIDIA H20", 148, 148, 44),
    ("NVIDIA H200", 989, 989, 67),
    ("NVIDIA GH200 480GB", 989, 989, 67),
    ("NVIDIA B200", 2250, 2250, 75),
    ("NVIDIA GB200", 2500, 2500, 80),
    ("Tesla V100-SXM2-32GB", None, 125, 15.7),
    ("Tesla V100-PCIE-16GB", None, 112, 14),
    ("Tesla T4", None, 65, 8.1),
    ("NVIDIA L4", 121, 121, 30.3),
    ("NVIDIA L40", 181, 181, 90.5),
    ("NVIDIA L40S", 362, 362, 91.6),
    ("NVIDIA GeForce RTX 4090", 165.2, 165.2, 82.6),
    ("NVIDIA RTX 6000 Ada Generation", 364.2, 364.2, 91.1),
    ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None, None),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None, None),
    ("NVIDIA GeForce RTX 3090 Ti", None, None, None),
    ("NVIDIA GeForce RTX 4090 D", None, None, None),
    ("NVIDIA GeForce GT 1030", None, None, None),
    ("NVIDIA A1000", None, None, None),
]


@pytest.mark.parametrize("name, bf16, fp16, fp32", DEVICES)
def test_the_peak_of_a_device(
    name: str, bf16: float | None, fp16: float | None, fp32: float | None
) -> None:
    found = [peak_tflops_of(name, precision) for precision in (Precision.bf16, Precision.fp16)]
    assert found == [bf16, fp16]
    assert peak_tflops_of(name, Precision.fp32) == fp32


def test_every_kind_of_device_is_found_by_its_own_name() -> None:
    for name, rates in PEAK_RATES.items():
        assert peak_tflops_of(f"NVIDIA {name} 80GB", Precision.fp16) == rates.half
