"""The counts of the real layers, engine and command."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

import benchmarks.cost
from benchmarks.__main__ import main
from benchmarks.counting.gradients import GradientCost
from benchmarks.counting.network import NetworkCost
from benchmarks.counting.rows import allowed_share
from benchmarks.counting.stage import stage_costs
from benchmarks.counting.tally import Tally
from benchmarks.counting.waterfall import waterfall
from configs import derive
from configs.load import load_config
from configs.schema import Config, Precision
from tests.helpers.distributed import run_distributed
from tests.helpers.places import ROOT

SHAPE = (
    "experiment=glm_130b",
    "precision=bf16",
    "cluster.gpu=H200",
    "model.hidden_dropout=0",
    "model.attention_dropout=0",
)


def shape(*words: str) -> Config:
    return load_config([*SHAPE, *words])


def network_of(rank: int, world_size: int, config: Config) -> NetworkCost:
    from benchmarks.counting.network import count_network

    return count_network(config)


def gradients_of(rank: int, world_size: int, precision: Precision) -> GradientCost:
    from benchmarks.counting.gradients import count_gradients

    return count_gradients(precision)


def printed_by(rank: int, world_size: int, words: list[str], presets: list[str]) -> tuple[int, str]:
    """Exit code of the command, and what it prints; of presets only the given ones, if any."""
    import benchmarks.cost
    from benchmarks.__main__ import main

    if presets:
        benchmarks.cost._presets = lambda: presets
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["cost", *words])
    return code, out.getvalue()


def network(config: Config) -> NetworkCost:
    (found,) = run_distributed(network_of, 1, config)
    return found


def gradients(precision: Precision) -> GradientCost:
    (found,) = run_distributed(gradients_of, 1, precision)
    return found


def printed(words: list[str], presets: list[str] | None = None) -> list[str]:
    ((code, out),) = run_distributed(printed_by, 1, words, presets or [])
    assert code == 0, out
    return out.splitlines()


@pytest.fixture(scope="module")
def kept() -> NetworkCost:
    """Of the 130B shape at tp 4, nothing recomputed."""
    return network(shape("parallel.recompute=none"))


def test_the_products_are_those_of_the_layers_matrices(kept: NetworkCost) -> None:
    config = shape()
    tokens = config.model.seq_length
    forward = 2 * tokens * derive.matrix_weights(config.model) // 4
    assert kept.layer.forward.products.flops == forward
    assert kept.layer.backward.products.flops == 2 * forward
    head = 2 * tokens * config.model.hidden_size * derive.padded_vocab_size(config.model) // 4
    # A chunk of targets is finished at once, gradients included.
    assert kept.head.forward.products.flops == 3 * head
    assert kept.head.backward.products.flops == 0
    assert kept.embedding.both.products.flops == 0


def test_attention_is_one_kernel_each_way(kept: NetworkCost) -> None:
    forward, backward = kept.layer.forward.attention, kept.layer.backward.attention
    # 24 heads of 2048 x 128 in bf16 for each of query, key, value and output; a sum in fp32 per query.
    values, sums = 24 * 2048 * 128 * 2, 24 * 2048 * 4
    assert (forward.kernels, forward.read, forward.written) == (1, 3 * values, values + sums)
    assert (backward.kernels, backward.read, backward.written) == (1, 5 * values + sums, 3 * values)
    product = 2 * 24 * 2048 * 2048 * 128
    assert (forward.flops, backward.flops) == (2 * product, 5 * product)


def test_a_layer_sums_twice_forward_over_the_tensor_parallel_ranks(kept: NetworkCost) -> None:
    hidden = 2048 * 12288 * 2
    assert kept.layer.forward.collectives == {"all-reduce": 2}
    assert kept.layer.forward.collective_bytes == {"all-reduce": 2 * hidden}


def test_layers_alone_need_no_tensor_parallel_sums() -> None:
    whole = network(load_config(["model=tiny", "precision=bf16"]))
    assert not whole.layer.both.collectives
    assert not whole.head.both.collectives


def test_full_recompute_is_one_more_forward_pass(kept: NetworkCost) -> None:
    again = network(shape("parallel.recompute=full"))
    assert again.layer.forward.other == kept.layer.forward.other
    products = kept.layer.forward.products + kept.layer.backward.products
    assert again.layer.backward.products.flops == products.flops
    more = again.layer.backward.other.moved - kept.layer.backward.other.moved
    # It stops when the last tensor that was kept is there again: the sum after the feed-forward is not.
    assert 0.75 * kept.layer.forward.other.moved < more <= kept.layer.forward.other.moved


@pytest.mark.parametrize(("sequence", "limit"), [("true", 1.1e9), ("false", 1.8e9)])
def test_the_fast_preset_moves_little_beside_its_products(sequence: str, limit: float) -> None:
    config = load_config(["experiment=glm_130b_h100", f"parallel.sequence={sequence}"])
    layer = network(config).layer
    assert layer.both.other.moved <= limit
    assert not layer.both.syncs
    if sequence == "false":
        assert layer.forward.collectives == layer.backward.collectives == {"all-reduce": 2}
    else:
        assert layer.forward.collectives == {"all-gather": 2, "reduce-scatter": 2}
        # The inputs of the column-parallel matrices are gathered again for their weights' gradients.
        assert layer.backward.collectives == {"all-gather": 4, "reduce-scatter": 2}


def test_rows_are_masked_as_the_objective_says() -> None:
    config = load_config(["model.seq_length=256", "objective.gmask_share=0"])
    # Four windows of a quarter: of all pairs at most a quarter is within one.
    assert 0.1 < allowed_share(config) < 0.25
    objective = replace(config.objective, gmask_share=1.0)
    assert 0.3 < allowed_share(replace(config, objective=objective)) < 1.0


def test_gradients_are_counted_in_the_real_engine() -> None:
    half, single = gradients(Precision.fp16), gradients(Precision.fp32)
    # Added to those of the micro-batches before: read both, write one.
    assert half.bytes_per_micro_batch == pytest.approx(3 * 2, rel=0.01)
    assert single.bytes_per_micro_batch == pytest.approx(3 * 4, rel=0.01)
    # Read in bf16, and added to an fp32 sum that is read and written.
    # The head adds its product to the sum itself.
    assert 9.5 < gradients(Precision.bf16).bytes_per_micro_batch <= 2 + 2 * 4


def test_a_stage_is_what_it_holds() -> None:
    config = shape("parallel.recompute=none")
    cost, handling = network(config), gradients(Precision.bf16)
    stages = stage_costs(config, cost, handling)
    assert [stage.layers for stage in stages] == [8, 9, 9, 9, 9, 9, 9, 8]
    layer = cost.layer.both
    alone: Tally = cost.plan + layer * 9
    moved = alone.other.moved + handling.bytes_per_micro_batch * 4_077_757_440
    assert stages[1].micro_batch.other.moved == pytest.approx(moved, rel=1e-6)
    assert stages[1].micro_batch.products.flops == 9 * layer.products.flops
    assert stages[1].step.products.flops == 176 * 9 * layer.products.flops
    # Hidden states in bf16 both ways, six fields of 8 bytes with those that go on.
    hidden, fields = 2048 * 12288 * 2, 2048 * 6 * 8
    assert stages[1].micro_batch.collective_bytes["send"] == 2 * hidden + fields
    assert stages[7].micro_batch.collective_bytes["send"] == hidden


def test_the_command_prints_a_table_and_a_line(tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    *table, line = printed(["model=tiny", "--operators", "--json", str(path)])
    assert max(map(len, table)) <= 100
    assert json.loads(line) == json.loads(path.read_text("utf-8"))
    assert json.loads(line)["layer_forward"]["other"]["kernels"] > 0
    assert any(row.startswith("layer forward ") for row in table)
    assert any("native_layer_norm" in row or "fused " in row for row in table)


def test_there_is_a_line_for_each_preset_and_layout() -> None:
    assert benchmarks.cost._presets() == sorted(
        path.stem for path in (ROOT / "configs/model").iterdir()
    )
    words = ["model.num_layers=2", "model.hidden_size=128", "model.num_heads=4"]
    words += ["model.ffn_size=384", "model.vocab_size=1024", "model.seq_length=256"]
    head, *rows, _ = printed(["--all", *words], ["glm_335m", "tiny"])
    assert len(rows) == 2 * 2 * 2 * 3
    assert max(map(len, [head, *rows])) <= 100
    assert rows[-1].split()[:4] == ["tiny", "bf16", "4", "full"]


def test_the_waterfall_falls() -> None:
    (first, before), (_, now) = waterfall()
    assert "7f75a97" in first
    for rows in (before, now):
        assert [row.seconds for row in rows] == sorted((row.seconds for row in rows), reverse=True)
    # The model of the first commit's rows, made apart from this one, gave 120, 59, 32 s.
    assert before[0].seconds[0] == pytest.approx(120, rel=0.15)
    assert before[1].seconds[0] == pytest.approx(59, rel=0.15)
    assert before[2].seconds[0] == pytest.approx(32, rel=0.15)
    assert now[-1].seconds[0] < before[-1].seconds[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--everything"],
            "there are --operators, --all, --constants, --waterfall and --json PATH",
        ),
        (["--json"], "--json cost.json"),
        (["precision=bf17"], "precision"),
    ],
)
def test_what_cannot_be_counted_is_said_in_one_message(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost", *words]) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert not told.out
