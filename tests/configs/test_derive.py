"""What follows from a configuration, against counts by hand, the published run, and plain loops."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import cutting, derive
from configs.load import load_config
from configs.schema import BatchRampConfig, Config, ModelConfig, Norm, OptimConfig, Recompute

GLM_130B = load_config(["experiment=glm_130b"])


def test_a_small_model_is_counted_by_hand() -> None:
    model = ModelConfig(
        num_layers=2, hidden_size=8, num_heads=2, ffn_size=16, vocab_size=10, vocab_multiple=4
    )
    embedding = 12 * 8
    attention = (24 * 8 + 24) + (8 * 8 + 8)
    feed_forward = 2 * (16 * 8 + 16) + (8 * 16 + 8)
    norms = 2 * (8 + 8)
    assert derive.padded_vocab_size(model) == 12
    assert derive.layer_parameters(model) == attention + feed_forward + norms == 744
    assert derive.parameters(model) == embedding + 2 * 744 + (8 + 8) == 1600
    # Half of every matrix and of its bias, but the whole norms and the whole biases of the two outputs.
    assert (
        derive.layer_parameters(model, tp=2) == (216 + 64 + 288 + 128) // 2 + 8 + 8 + norms == 396
    )
    assert cutting.stage_parameters(model, pp=2) == [96 + 744, 744 + 16 + 96]


@pytest.mark.parametrize(
    ("options", "of_layer", "outside"),
    [
        ({"norm": Norm.pre}, 0, 0),
        ({"norm": Norm.post}, 0, 0),
        ({"norm": Norm.sandwich}, 2 * (8 + 8), 0),  # two further norms
        ({"qk_norm": True}, 2 * (4 + 4), 0),  # of queries and of keys, over one head of 4
        ({"embedding_norm": True}, 0, 8 + 8),
    ],
    ids=str,
)
def test_further_norms_are_counted_by_hand(
    options: dict[str, Any], of_layer: int, outside: int
) -> None:
    model = ModelConfig(*(2, 8, 2, 16), vocab_size=10, vocab_multiple=4, **options)
    assert derive.layer_parameters(model) == 744 + of_layer
    assert derive.layer_parameters(model, tp=2) == 396 + of_layer  # whole on every rank
    assert derive.parameters(model) == 1600 + 2 * of_layer + outside
    # The first stage alone has the embedding's norm, the last one a copy of its matrix.
    assert cutting.stage_parameters(model, pp=2) == [
        *(96 + outside + 744 + of_layer, 744 + of_layer + 16 + 96)
    ]


def test_glm_130b_is_the_published_model() -> None:
    assert derive.parameters(GLM_130B.model) == 128_697_794_560
    assert derive.layer_parameters(GLM_130B.model) == 1_812_115_456
    assert derive.padded_vocab_size(GLM_130B.model) == 150_528
    assert derive.head_size(GLM_130B.model) == 128
    assert derive.embedding_init_std(GLM_130B.model) == 0.0052
    assert derive.embedding_init_std(ModelConfig(hidden_size=12288)) == pytest.approx(
        0.005208, abs=1e-6
    )


def test_glm_130b_has_nine_list_entries_on_each_of_eight_stages() -> None:
    # Embedding, 70 layers and head make 72; the final norm is the entry before the head.
    starts = [0, 9, 18, 27, 36, 45, 54, 63, 73]
    expected = [[range(start, stop)] for start, stop in zip(starts, starts[1:], strict=False)]
    assert cutting.stage_entries(70, 8) == expected


def test_a_head_of_about_a_layer_leaves_nine_times_eight() -> None:
    assert cutting.head_layers(GLM_130B.model) == pytest.approx(1.007, abs=0.001)
    sizes = (8, 9, 9, 9, 9, 9, 9, 8)
    assert cutting.layers_of_parts(70, 8) == cutting.layers_of_parts(70, 8, 1.007) == sizes


@pytest.mark.parametrize(
    "num_layers, parts, head, sizes",
    [
        (4, 4, 0.4, (1, 1, 1, 1)),  # by entries 1, 2, 1, 0: the second takes 2
        (4, 4, 1.0, (1, 2, 1, 0)),  # 2 either way
        (36, 8, 20.0, (5, 5, 5, 5, 5, 5, 6, 0)),  # the head is slowest, and has no layer beside it
        (12, 4, 3.0, (3, 4, 4, 1)),  # by entries 3, 4, 3, 2: the last takes 5
        (7, 4, 1.0, (2, 2, 2, 1)),
        (5, 1, 30.0, (5,)),
    ],
)
def test_parts_have_equal_operations_where_that_is_faster(
    num_layers: int, parts: int, head: float, sizes: tuple[int, ...]
) -> None:
    assert cutting.layers_of_parts(num_layers, parts, head) == sizes
    assert sum(sizes) == num_layers


def test_chunks_go_round_the_stages() -> None:
    # 6 layers, embedding and head on 2 stages in 2 chunks each: two entries a chunk, and the norm before the head.
    expected = [[range(0, 2), range(4, 6)], [range(2, 4), range(6, 9)]]
    assert cutting.stage_entries(6, 2, num_chunks=2) == expected


def test_glm_130b_trains_on_768_processes_with_176_micro_batches() -> None:
    dp = derive.data_parallel_size(GLM_130B, derive.planned_world_size(GLM_130B))
    assert dp == 24
    assert derive.grad_accum(GLM_130B.optim, dp, 4224) == 176
    assert derive.grad_accum(GLM_130B.optim, dp, 192) == 8


def test_glm_130b_takes_the_steps_of_its_log() -> None:
    optim = GLM_130B.optim
    # It stopped at step 49,300 after 400.6 B tokens, had the full batch after 4,296 steps, and warmed up until 2,318.
    assert derive.step_of(optim, 195_591_480) == 49_300
    assert round(195_591_480 * 2048 / 1e9, 1) == 400.6
    growing = [level for level in derive.ramp_levels(optim) if level.batch_size < 4224]
    assert len(growing) == 168
    assert sum(level.num_steps for level in growing) == 4296
    assert derive.step_of(optim, derive.warmup_samples(optim)) == 2317
    assert derive.num_steps(optim) == 4296 + math.ceil((219_726_562 - 5_494_584) / 4224)


def test_glm_130b_computes_at_the_speed_of_its_log() -> None:
    # 88.5 s a step on 768 GPUs were 134 TFLOP/s with recompute, and three quarters of that without: MFU 32.5 %.
    per_gpu = 4224 / 768 / 88.5 / 1e12
    with_recompute = derive.flops_per_sample(GLM_130B.model, recompute=Recompute.full) * per_gpu
    assert with_recompute == pytest.approx(134.1, abs=0.1)
    assert derive.flops_per_sample(GLM_130B.model) * per_gpu / 312 == pytest.approx(
        0.325, abs=0.003
    )


def test_operations_are_those_of_the_closed_formula() -> None:
    model = GLM_130B.model
    h, L, s, V = 12288, 70, 2048, 150528
    formula = 96 * s * L * h**2 * (1 + s / (6 * h) + V / (16 * L * h))
    assert derive.flops_per_sample(model, recompute=Recompute.full) == pytest.approx(
        formula, rel=1e-12
    )


@given(num_layers=st.integers(2, 60), parts=st.integers(2, 30), tenths=st.integers(0, 300))
def test_no_other_number_of_layers_beside_the_head_is_faster(
    num_layers: int, parts: int, tenths: int
) -> None:
    parts, head = min(parts, num_layers), tenths / 10
    sizes = cutting.layers_of_parts(num_layers, parts, head)
    assert sum(sizes) == num_layers and min(sizes[:-1]) >= 1 and sizes[-1] >= 0
    slowest = max(*sizes[:-1], sizes[-1] + head)
    for last in range(num_layers - parts + 2):
        assert (
            slowest <= max(math.ceil((num_layers - last) / (parts - 1)), last + head) / 0.98 + 1e-9
        )


@given(num_layers=st.integers(1, 100), pp=st.integers(1, 100))
def test_stages_cover_the_list_and_differ_by_one_entry_at_most(num_layers: int, pp: int) -> None:
    pp = min(pp, num_layers)
    stages = cutting.stage_entries(num_layers, pp)
    assert all(len(chunks) == 1 for chunks in stages)
    bounds = [chunks[0].start for chunks in stages] + [stages[-1][0].stop]
    assert (bounds[0], bounds[-1], len(bounds)) == (0, num_layers + 3, pp + 1)
    sizes = [stop - start for start, stop in zip(bounds, bounds[1:], strict=False)]
    sizes[-1] -= 1  # the final norm is not counted
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    # Norm and head never part; no stage is the embedding alone, which would lack undecayed parameters.
    assert bounds[-2] <= num_layers + 1
    assert bounds[1] >= 2


@given(
    num_layers=st.integers(1, 20),
    pp=st.integers(1, 8),
    tp=st.sampled_from([1, 2, 4]),
    hidden=st.just(64),
)
def test_stages_hold_the_model_and_one_more_copy_of_the_embedding(
    num_layers: int, pp: int, tp: int, hidden: int
) -> None:
    model = ModelConfig(num_layers=num_layers, hidden_size=hidden, num_heads=4, ffn_size=192)
    pp = min(pp, num_layers)
    copies = 0 if pp == 1 else derive.padded_vocab_size(model) * hidden
    assert sum(cutting.stage_parameters(model, pp)) == derive.parameters(model) + copies
    # Six vectors of each layer and the final norm are held by every tensor-parallel rank.
    replicated = (6 * num_layers + 2) * hidden * (tp - 1)
    cut = sum(cutting.stage_parameters(model, pp, tp)) * tp
    assert cut == derive.parameters(model) + copies + replicated


@st.composite
def ramps(draw: st.DrawFn) -> OptimConfig:
    start = draw(st.integers(1, 40))
    increment = draw(st.integers(1, 40))
    increments = draw(st.integers(0, 20))
    return OptimConfig(
        micro_batch_size=1,
        global_batch_size=start + increment * increments,
        total_samples=draw(st.integers(1, 3000)),
        batch_ramp=BatchRampConfig(start, increment, draw(st.integers(1, 3000))),
    )


@given(ramps())
def test_the_levels_of_a_ramp_are_the_steps_taken_one_by_one(optim: OptimConfig) -> None:
    one_by_one = []
    seen = 0
    while seen < optim.total_samples:
        one_by_one.append((seen, derive.batch_size_at(optim, seen)))
        seen += one_by_one[-1][1]
    by_level = [
        (level.first_sample + step * level.batch_size, level.batch_size)
        for level in derive.ramp_levels(optim)
        for step in range(level.num_steps)
    ]
    assert by_level == one_by_one
    assert derive.num_steps(optim) == len(one_by_one)
    for step, (position, _) in enumerate(one_by_one):
        assert derive.step_of(optim, position) == step


@given(ramps())
def test_a_batch_never_shrinks_and_ends_full(optim: OptimConfig) -> None:
    assert optim.batch_ramp is not None and optim.batch_ramp.samples is not None
    sizes = [derive.batch_size_at(optim, seen) for seen in range(optim.batch_ramp.samples + 1)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == optim.global_batch_size
    if optim.batch_ramp.samples >= 20:  # at least as long as it has increments
        assert sizes[0] == optim.batch_ramp.start


def test_the_batch_grows_at_equal_intervals() -> None:
    optim = OptimConfig(global_batch_size=16, batch_ramp=BatchRampConfig(4, 4, 300))
    assert [derive.batch_size_at(optim, seen) for seen in (0, 99, 100, 199, 200, 299, 300)] == [
        4, 4, 8, 8, 12, 12, 16,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given_keys", "derived"),
    [
        (BatchRampConfig(start=4), (4, 4, 100)),
        (BatchRampConfig(start=12), (12, 4, 100)),
        (BatchRampConfig(increment=2), (2, 2, 100)),
        (BatchRampConfig(samples=50), (8, 8, 50)),
        (BatchRampConfig(start=8, increment=24), (8, 24, 100)),
    ],
)
def test_each_key_of_a_ramp_may_be_given_alone(
    given_keys: BatchRampConfig, derived: tuple[int, int, int]
) -> None:
    optim = OptimConfig(
        micro_batch_size=4, global_batch_size=80, total_samples=4000, batch_ramp=given_keys
    )
    assert derive.batch_ramp(optim) == derive.BatchRamp(*derived)


@given(units=st.integers(1, 64), micro=st.integers(1, 8), start_units=st.integers(1, 64))
def test_derived_ramps_fit_wherever_their_first_and_full_batch_do(
    units: int, micro: int, start_units: int
) -> None:
    optim = OptimConfig(
        micro_batch_size=micro,
        global_batch_size=units * micro,
        batch_ramp=BatchRampConfig(start=min(start_units, units) * micro),
    )
    assert all(level.batch_size % micro == 0 for level in derive.ramp_levels(optim))
    assert derive.batch_size_at(optim, 10**9) == units * micro


def test_schedules_follow_the_length_of_the_run() -> None:
    optim = OptimConfig(lr=2e-3, total_samples=5000)
    assert derive.min_lr(optim) == 2e-4
    assert derive.warmup_samples(optim) == 500
    assert derive.decay_samples(optim) == 5000
    assert derive.wsd_decay_samples(optim) == 500
    optim = OptimConfig(min_lr=0.0, warmup_samples=0, decay_samples=4000, wsd_decay_samples=0)
    assert (derive.min_lr(optim), derive.warmup_samples(optim)) == (0.0, 0)
    assert (derive.decay_samples(optim), derive.wsd_decay_samples(optim)) == (4000, 0)


def test_intervals_are_shares_of_the_run_and_never_zero() -> None:
    config = load_config(["optim.total_samples=40"])
    assert (derive.save_every_samples(config), derive.eval_every_samples(config)) == (4, 10)
    config = load_config(["optim.total_samples=1"])
    assert (derive.save_every_samples(config), derive.eval_every_samples(config)) == (1, 1)
    config = load_config(["checkpoint.save_every_samples=7", "eval.every_samples=9"])
    assert (derive.save_every_samples(config), derive.eval_every_samples(config)) == (7, 9)


def test_a_run_is_named_after_its_experiment() -> None:
    assert derive.run_dir(Config()) == "runs/default"
    assert derive.run_dir(GLM_130B) == "runs/glm_130b"
    assert derive.run_dir(load_config(["run.name=second"])) == "runs/second"
    assert derive.run_dir(load_config(["run.dir=/data/x", "run.name=y"])) == "/data/x"


def test_a_slice_leaves_room_for_the_markers() -> None:
    assert derive.slice_length(512) == 456
    assert derive.slice_length(128) == 112
    assert derive.window_length(load_config(["model.seq_length=2048"])) == 512


def test_token_weighting_is_recognised() -> None:
    assert derive.counts_tokens(load_config(["objective.loss_weighting=token"]))
    assert not derive.counts_tokens(Config())
