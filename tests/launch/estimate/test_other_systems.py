"""The speed model gives what others have measured, before it says anything about this trainer.

Their kernels' bytes are counted by hand from what their code does, per element in half precision (2 bytes):

GLM-130B's trainer, of 2022: a layer normalisation reads and writes (4, backward 10 with its parameters), a sum of bias,
dropout and residual is one kernel after a scaling of the residual (11, backward 17): twice each. Queries, keys and
values have bias, rotary positions in fp16 and copies (68). GeGLU has its biases, the activation and the product (18,
backward 22). Scores are multiplied, masked and normalised in fp32 by operators of their own, as its code reads; the
paper does not say if a fused kernel was used.

Megatron-LM of Korthikanti et al. 2022: fused softmax (13, backward 19), fused bias and dropout, selective recompute,
sequence parallelism, three chunks a stage. NVIDIA's of 2024: Transformer Engine, whose attention and biases are parts
of other kernels, the weight gradients added up in fp32 by the products, 70 % of the tensor-parallel sums beside
products, and the reduction over replicas overlapped.
"""

from dataclasses import replace

import pytest

from configs.hardware import PRESETS
from configs.load import load_config
from configs.schema import Recompute
from launch.estimate.network import Layout, Transformer
from launch.estimate.speed import flops_share, step_time
from launch.estimate.traffic import HeadTraffic, PassTraffic, Traffic

HEAD = HeadTraffic(hidden=24, logits=52, weights=4)
GLM_2022 = Traffic(
    forward=PassTraffic(30, 68, 18, 45, 0, 0),
    backward=PassTraffic(54, 68, 22, 53, 0, 0),
    head=HEAD,
    gradients=6,
    step=60,
    update=28,
    sums_forward=2,
    sums_backward=2,
)
MEGATRON_2022 = replace(
    GLM_2022,
    forward=PassTraffic(22, 28, 4, 13, 0, 0),
    backward=PassTraffic(38, 28, 8, 19, 0, 0),
)
NVIDIA_2024 = replace(
    GLM_2022,
    forward=PassTraffic(22, 0, 4, 0, 0, 0),
    backward=PassTraffic(38, 0, 8, 0, 0, 0),
    gradients=8,
    step=20,
    update=28,
)


def gpt(layers: int, hidden: int, heads: int, traffic: Traffic, fused: bool) -> Transformer:
    """A GPT of 51,200 tokens, rows of 2048 and a plain feed-forward of 4 h."""
    weights = 12 * hidden**2
    parameters = layers * weights + 51_200 * hidden
    sizes = (layers, hidden, 4 * hidden, weights, heads, 51_200, 2048, parameters)
    return Transformer(*sizes, traffic, materialises_scores=not fused)


def test_glm_130b_at_its_published_32_5_percent() -> None:
    config = load_config(["experiment=glm_130b"])
    ours = Transformer.of(config)
    # Its dropout is in the bytes above.
    network = replace(ours, traffic=GLM_2022, hidden_dropout=False, attention_dropout=False)
    gpu, layout = PRESETS["A100-40G"], Layout.of(config)
    assert layout.recompute is Recompute.full
    seconds = step_time(network, layout, gpu, 4224).total
    mfu = flops_share(network, 4224 / seconds, 768, gpu)
    assert mfu == pytest.approx(0.325, abs=0.03)


def test_nvidias_175b_at_its_published_53_5_percent() -> None:
    """128 H100, TP4 PP8 VP12, 256 rows, 8.309 s: dgxc-benchmarking, nemo_megatron/README_175b.md."""
    network, gpu = gpt(96, 12288, 96, NVIDIA_2024, fused=True), PRESETS["H100"]
    assert flops_share(network, 256 / 8.309, 128, gpu) == pytest.approx(0.535, abs=0.002)
    layout = Layout(4, 8, 4, 8, 1, Recompute.none, 2, 2, True, 12, False, 0.7, 1.0)
    seconds = step_time(network, layout, gpu, 256).total
    assert flops_share(network, 256 / seconds, 128, gpu) == pytest.approx(0.535, abs=0.03)


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "pp", "micro_batch_size", "batch", "seconds", "chunks"),
    [
        (48, 6144, 64, 1, 4, 4, 1.10, 1),
        (96, 12288, 96, 8, 1, 64, 13.75, 3),
        (105, 20480, 128, 35, 1, 280, 37.83, 3),
    ],
    ids=["22B", "175B", "530B"],
)
def test_megatrons_models_of_2022_within_a_tenth(
    layers: int,
    hidden: int,
    heads: int,
    pp: int,
    micro_batch_size: int,
    batch: int,
    seconds: float,
    chunks: int,
) -> None:
    network = gpt(layers, hidden, heads, MEGATRON_2022, fused=False)
    spread = (8, pp, 1, 8, micro_batch_size)
    layout = Layout(*spread, Recompute.selective, 2, 2, True, chunks, ends_count=False)
    modelled = step_time(network, layout, PRESETS["A100-80G"], batch).total
    assert modelled == pytest.approx(seconds, rel=0.1)


def test_what_is_recomputed_costs_what_it_computes() -> None:
    network = gpt(8, 4096, 32, NVIDIA_2024, fused=True)

    def step(recompute: Recompute) -> float:
        layout = Layout(2, 1, 1, 8, 1, recompute, 2, 2)
        return step_time(network, layout, PRESETS["H100"], 8).micro_batch

    none, selective, full = (step(each) for each in Recompute)
    tokens, hidden, inner = 2048, 4096, 4 * 4096
    # 22 bytes of each hidden state and 4 of each inner one, cut over two ranks, at 3.0 TB/s.
    again = 8 * tokens * (22 * hidden + 4 * inner / 2) / 3.0e12
    products = 8 * 2 * tokens * 12 * hidden**2 / 2 / 700e12
    attention = 8 * 2 * tokens * 2048 * hidden / 2 / 350e12
    # A fused attention kernel is computed again too.
    assert selective - none == pytest.approx(again + attention)
    assert full - selective == pytest.approx(products)


def test_sequence_parallelism_cuts_the_hidden_traffic_and_gathers_once_more() -> None:
    network = gpt(8, 4096, 32, NVIDIA_2024, fused=True)
    whole = step_time(network, Layout(4, 1, 1, 8, 1, Recompute.none, 2, 2), PRESETS["H100"], 8)
    cut = step_time(network, Layout(4, 1, 1, 8, 1, Recompute.none, 2, 2, True), PRESETS["H100"], 8)
    saved = 8 * 2048 * 4096 * (22 + 38) * 3 / 4 / 3.0e12
    assert whole.micro_batch - cut.micro_batch == pytest.approx(saved)
    assert cut.tensor_parallel / whole.tensor_parallel == pytest.approx(5 / 4)


@pytest.mark.parametrize("chunks", [1, 3, 12])
def test_chunks_divide_the_bubble(chunks: int) -> None:
    network = gpt(96, 12288, 96, NVIDIA_2024, fused=True)
    layout = Layout(4, 8, 4, 8, 1, Recompute.none, 2, 2, chunks=chunks)
    step = step_time(network, layout, PRESETS["H100"], 256)
    rest = step.total - step.gradients - step.update - step.bubble
    # (p - 1) / (v m): seven slots of 64.
    assert step.bubble / rest == pytest.approx(7 / (chunks * 64))
