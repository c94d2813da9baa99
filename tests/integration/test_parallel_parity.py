"""The same training on every layout: losses, gradient norms and parameters agree with one process."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from configs import cutting
from configs.load import load_config
from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import assemble, held_state, rank_session, train_in_detail
from tests.helpers.tiny import EVEN_SIZES

CLIP = 0.1
OVERRIDES = (
    *EVEN_SIZES,
    "precision=fp32",
    "model.num_layers=4",
    "model.vocab_size=128",
    "optim.lr=1e-2",
    "optim.warmup_samples=0",
    f"optim.clip={CLIP}",
    # Adam divides each gradient by its own size: one that is rounding noise (of a key's bias, say, about 1e-7 here) would
    # move its weight by a whole learning rate in the direction of the noise. With this epsilon what is compared is far
    # above the noise of any processor, and the tolerances below hold with a margin of 8 instead of 1.
    "optim.eps=1e-6",
    "optim.micro_batch_size=2",
    "optim.global_batch_size=16",
    "optim.total_samples=76",
    "optim.batch_ramp.start=8",
    "optim.batch_ramp.increment=8",
    "optim.batch_ramp.samples=16",
)
NUM_STEPS = 5
SEQUENCE = ("parallel.sequence=true",)
INTERLEAVED = ("parallel.schedule=interleaved",)
# Five micro-batches, then ten: the groups of a step are all of them with 4 stages, 3 and 2 of them with 2 stages.
ODD_BATCHES = (
    "optim.batch_ramp.start=10",
    "optim.batch_ramp.increment=10",
    "optim.global_batch_size=20",
    "optim.total_samples=80",
)
LAYOUTS = [(2, 1, 1), (1, 2, 1), (1, 4, 1), (1, 1, 2), (2, 2, 1), (2, 2, 2)]
VARIANTS = {
    "plain": (),
    "recompute": ("parallel.recompute=full",),
    "dropout": ("model.hidden_dropout=0.1", "model.attention_dropout=0.1"),
    "dropout and recompute": (
        "model.hidden_dropout=0.1",
        "model.attention_dropout=0.1",
        "parallel.recompute=full",
    ),
}


def train_variants(
    rank: int, world_size: int, overrides: tuple[str, ...], variants: list[tuple[str, ...]]
) -> list[dict[str, Any]]:
    """Train a few steps of each variant in this rank; what it saw and what it holds at the end."""
    from train.engine.pipeline import PipelineEngine

    results = []
    with rank_session(rank, world_size, load_config(list(overrides), world_size)) as session:
        for variant in variants:
            config = load_config([*overrides, *variant], world_size)
            engine = PipelineEngine(config, session)
            steps = train_in_detail(engine, session, config, 0, NUM_STEPS)
            results.append({"steps": steps, **held_state(engine, session, config)})
            engine.close()
    return results


def losses_of(result: dict[str, Any]) -> list[float]:
    return [step.loss for step in result["steps"]]


def norms_of(result: dict[str, Any]) -> list[float]:
    return [step.grad_norm for step in result["steps"]]


def parameters_of(results: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Whole parameters from the ranks' shards; replicas and the tied copy must be the same."""
    return {name: values for (name, kind), values in assemble(results).items() if kind == "weights"}


@cache
def trained(
    tp: int, pp: int, dp: int, *extra: str, only: str = ""
) -> dict[str, list[dict[str, Any]]]:
    """Every variant on a layout, or one, in one start of its ranks: what each rank returned."""
    overrides = (*OVERRIDES, f"parallel.tp={tp}", f"parallel.pp={pp}", *extra)
    chosen = [only] if only else ["plain"] if extra and extra != SEQUENCE else list(VARIANTS)
    words = [VARIANTS[variant] for variant in chosen]
    ranks = run_distributed(train_variants, tp * pp * dp, overrides, words)
    return dict(zip(chosen, map(list, zip(*ranks, strict=True)), strict=True))


def one_process(variant: str) -> dict[str, Any]:
    return trained(1, 1, 1)[variant][0]


@pytest.mark.parametrize("tp, pp, dp", LAYOUTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layout_trains_like_one_process(variant: str, tp: int, pp: int, dp: int) -> None:
    check_layout(tp, pp, dp, variant)


@pytest.mark.parametrize("tp, pp, dp", [(1, 2, 1), (2, 2, 1), (1, 1, 2)])
def test_whole_optimizer_states_train_like_sharded_ones(tp: int, pp: int, dp: int) -> None:
    check_layout(tp, pp, dp, "plain", "parallel.zero_stage=0")


@pytest.mark.parametrize("variant", ["plain", "dropout and recompute"])
@pytest.mark.parametrize("tp, pp, dp", [(2, 1, 1), (4, 1, 1), (2, 2, 2)])
def test_tokens_cut_over_the_ranks_train_like_whole_rows(
    variant: str, tp: int, pp: int, dp: int
) -> None:
    check_layout(tp, pp, dp, variant, *SEQUENCE)


def test_tokens_cut_over_the_ranks_train_in_bf16() -> None:
    bf16 = ("precision=bf16",)
    reference = trained(1, 1, 1, *bf16)["plain"][0]
    for result in trained(2, 2, 1, *bf16, *SEQUENCE)["plain"]:
        np.testing.assert_allclose(losses_of(result), losses_of(reference), rtol=1e-3)
        np.testing.assert_allclose(norms_of(result), norms_of(reference), rtol=2e-2)


def test_bf16_trains_where_a_rank_counts_no_gradient_in_the_norm() -> None:
    """The last of four stages holds no layer: what stands there counts on tp rank 0 and on the first stage."""
    # A head of more than a layer, which has no layer beside it.
    bf16 = ("precision=bf16", "model.vocab_size=1024")
    assert (
        cutting.layers_of_parts(4, 4, cutting.head_layers(load_config([*OVERRIDES, *bf16]).model))[
            -1
        ]
        == 0
    )
    reference = trained(1, 1, 1, *bf16)["plain"][0]
    for result in trained(2, 4, 1, *bf16)["plain"]:
        np.testing.assert_allclose(losses_of(result), losses_of(reference), rtol=1e-3)
        np.testing.assert_allclose(norms_of(result), norms_of(reference), rtol=2e-2)


INTERLEAVED_CASES = {
    "2 stages of 2": ((1, 2, 1), (), "dropout and recompute", ()),
    "2 stages of 3, one entry each": ((1, 2, 1), ("parallel.chunks=3",), "plain", ()),
    "4 stages of 2": ((1, 4, 1), (), "dropout", ("model.num_layers=6",)),
    "4 stages of 2, odd batches": ((1, 4, 1), (), "plain", ("model.num_layers=6", *ODD_BATCHES)),
    "2 stages of 2, odd batches": ((1, 2, 1), (), "plain", ODD_BATCHES),
    "two replicas": ((1, 2, 2), (), "plain", ()),
    "tokens cut over tp 2": ((2, 2, 1), SEQUENCE, "dropout and recompute", ()),
    "whole optimizer states": ((1, 2, 1), ("parallel.zero_stage=0",), "plain", ()),
}


@pytest.mark.parametrize("case", INTERLEAVED_CASES)
def test_the_interleaved_schedule_trains_like_one_process(case: str) -> None:
    layout, extra, variant, model = INTERLEAVED_CASES[case]
    reference = trained(1, 1, 1, *model, only=variant) if model else trained(1, 1, 1)
    results = trained(*layout, *INTERLEAVED, *extra, *model, only=variant)[variant]
    check_equal(results, reference[variant][0])


def test_the_interleaved_schedule_gives_the_bits_of_the_default_one() -> None:
    """Each gradient adds up its micro-batches in the same order."""
    for one, other in zip(
        trained(1, 2, 1, only="dropout")["dropout"],
        trained(1, 2, 1, *INTERLEAVED, only="dropout")["dropout"],
        strict=True,
    ):
        assert losses_of(one) == losses_of(other)
    whole, expected = (
        parameters_of(trained(1, 2, 1, *extra, only="dropout")["dropout"])
        for extra in (INTERLEAVED, ())
    )
    for name, values in expected.items():
        np.testing.assert_array_equal(whole[name], values, err_msg=name)


@pytest.mark.parametrize("extra", [(), SEQUENCE], ids=["whole rows", "tokens cut"])
def test_the_interleaved_schedule_trains_in_bf16(extra: tuple[str, ...]) -> None:
    bf16 = ("precision=bf16",)
    reference = trained(1, 1, 1, *bf16)["plain"][0]
    for result in trained(2, 2, 1, *bf16, *INTERLEAVED, *extra)["plain"]:
        np.testing.assert_allclose(losses_of(result), losses_of(reference), rtol=1e-3)
        np.testing.assert_allclose(norms_of(result), norms_of(reference), rtol=2e-2)


QK_NORM = ("model.qk_norm=true",)
PRE = ("model.norm=pre", "model.embedding_norm=true", *QK_NORM)
SANDWICH = ("model.norm=sandwich", "model.embedding_norm=true", *QK_NORM)
MODEL_CASES = {
    "heads of qk_norm cut": (QK_NORM, (2, 1, 1), (), "plain"),
    "heads and tokens cut": (QK_NORM, (2, 2, 1), SEQUENCE, "plain"),
    "pre, tokens cut": (PRE, (2, 2, 1), SEQUENCE, "dropout and recompute"),
    "pre, replicas": (PRE, (1, 2, 2), (), "plain"),
    "sandwich": (SANDWICH, (2, 2, 1), (), "dropout and recompute"),
    "sandwich, interleaved": (
        SANDWICH,
        (2, 2, 1),
        (*INTERLEAVED, *SEQUENCE),
        "dropout and recompute",
    ),
    "post": (("model.norm=post",), (2, 2, 1), (), "plain"),
}


@pytest.mark.parametrize("case", MODEL_CASES)
def test_options_of_the_model_train_like_one_process(case: str) -> None:
    model, layout, extra, variant = MODEL_CASES[case]
    (reference,) = trained(1, 1, 1, *model, only=variant)[variant]
    check_equal(trained(*layout, *model, *extra, only=variant)[variant], reference)
    losses = losses_of(reference)
    assert losses[0] - losses[-1] > 0.3


def test_a_softmax_without_fp32_and_cut_heads_train_in_bf16() -> None:
    words = ("precision=bf16", *QK_NORM, "model.softmax_fp32=false")
    (reference,) = trained(1, 1, 1, *words)["plain"]
    for result in trained(2, 2, 1, *words, *SEQUENCE)["plain"]:
        np.testing.assert_allclose(losses_of(result), losses_of(reference), rtol=1e-3)
        np.testing.assert_allclose(norms_of(result), norms_of(reference), rtol=2e-2)


def check_layout(tp: int, pp: int, dp: int, variant: str, *extra: str) -> None:
    """Train on a layout what one process trained under ZeRO-1, and compare."""
    results = trained(tp, pp, dp, *extra)[variant]
    assert [step.num_samples for step in results[0]["steps"]] == [8, 8, 16, 16, 16]
    check_equal(results, one_process(variant))


def check_equal(results: list[dict[str, Any]], reference: dict[str, Any]) -> None:
    """Compare what the ranks of a layout trained with what one process trained."""
    np.testing.assert_allclose(losses_of(results[0]), losses_of(reference), rtol=1e-5)
    np.testing.assert_allclose(norms_of(results[0]), norms_of(reference), rtol=1e-4)
    np.testing.assert_allclose(
        [step.embedding_norm for step in results[0]["steps"]],
        [step.embedding_norm for step in reference["steps"]],
        rtol=1e-4,
    )
    whole, expected = parameters_of(results), parameters_of([reference])
    assert whole.keys() == expected.keys()
    for name, values in expected.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(whole[name], values, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


def test_the_learning_rate_is_one_where_the_loss_falls() -> None:
    losses = losses_of(one_process("plain"))
    assert losses[0] - losses[-1] > 0.5


def test_every_step_is_clipped() -> None:
    assert min(norms_of(one_process("plain"))) > CLIP


def test_recompute_and_repetition_change_no_bit() -> None:
    first = one_process("dropout")
    (ranks,) = run_distributed(train_variants, 1, OVERRIDES, [VARIANTS["dropout"]])
    again = ranks[0]
    recomputed = one_process("dropout and recompute")
    for other in (again, recomputed):
        assert other["steps"] == first["steps"]
        for name, (_, values) in first["weights"].items():
            np.testing.assert_array_equal(other["weights"][name][1], values, err_msg=name)
