"""What the study compares: variants of one deep, narrow model, over learning rates and seeds."""

from collections.abc import Iterator

from benchmarks.stability.cells import CellName

SEEDS = (1, 2, 3)
RATES = (1e-3, 4e-3, 1.6e-2, 6.4e-2)
GRADIENTS_AT = 4e-3
"""The rate whose gradient norms are shown."""
STEPS, ROWS = 60, 4

_COMMON = (
    *("model.num_layers=24", "model.hidden_size=32", "model.num_heads=2", "model.ffn_size=88"),
    *("model.vocab_size=64", "model.vocab_multiple=8", "model.seq_length=64"),
    *("objective.windows_per_row=1", "optim.batch_ramp=null", "data.paths=[none]"),
    *(f"optim.micro_batch_size={ROWS}", f"optim.global_batch_size={ROWS}"),
    # A constant rate: a decay would let a run that is about to diverge end well.
    *(f"optim.total_samples={STEPS * ROWS}", "optim.schedule=constant"),
)
_NO_SHRINK = "stability.embedding_shrink=[[0,1.0]]"
_FP32 = (*_COMMON, "precision=fp32")
_BF16 = (*_COMMON, "precision=bf16", "model.attention=reference", _NO_SHRINK)

# Each but the first differs from it in one thing. The shrink is the default of `stability.embedding_shrink`.
VARIANTS: dict[str, tuple[str, ...]] = {
    "deepnorm": (*_FP32, _NO_SHRINK),
    "deepnorm, shrink 0.1": (*_FP32, "stability.embedding_shrink=[[0,0.1]]"),
    "deepnorm, embedding norm": (*_FP32, _NO_SHRINK, "model.embedding_norm=true"),
    "deepnorm, qk norm": (*_FP32, _NO_SHRINK, "model.qk_norm=true"),
    "post": (*_FP32, _NO_SHRINK, "model.norm=post"),
    "pre": (*_FP32, _NO_SHRINK, "model.norm=pre"),
    "sandwich": (*_FP32, _NO_SHRINK, "model.norm=sandwich"),
}
# The softmax is compared in bf16, where the two differ; both take the reference attention path.
SOFTMAX: dict[str, tuple[str, ...]] = {
    "bf16, fp32 softmax": _BF16,
    "bf16, bf16 softmax": (*_BF16, "model.softmax_fp32=false"),
}
SOFTMAX_RATES = (1.6e-2,)

WORDS = {**VARIANTS, **SOFTMAX}


def cells() -> Iterator[CellName]:
    """All cells of the study, seed after seed."""
    for variants, rates in ((VARIANTS, RATES), (SOFTMAX, SOFTMAX_RATES)):
        for seed in SEEDS:
            for rate in rates:
                for variant in variants:
                    yield CellName(variant, rate, seed)
