"""The small configurations and the special tokens that tests train with."""

from data_pipeline.special_tokens import SpecialTokens

# The ids of the hand-written tables in tests/data_pipeline/test_blanks.py. Ordinary tokens begin behind them.
SPECIAL = SpecialTokens(mask=1, gmask=2, sop=3, eop=4, eos=5, pad=0)
FIRST_WORD = 6
# Another numbering, for the trainings of rank_runs.py: a test of an optimizer asserts how their loss falls in 3 steps.
TRAINED_SPECIAL = SpecialTokens(mask=0, gmask=1, sop=2, eop=3, eos=4, pad=5)

# Sizes that 4 tensor-parallel ranks divide: for what must be equal on every layout.
EVEN_SIZES = (
    "model.hidden_size=32",
    "model.num_heads=4",
    "model.ffn_size=88",
    "model.vocab_multiple=8",
    "model.seq_length=128",
)

# A whole run on a text, read as bytes: for what happens around the training of `python -m train`.
TEXT_RUN = (
    *EVEN_SIZES,
    "precision=fp32",
    "model.num_layers=2",
    "model.vocab_size=264",
    "data.tokenizer=bytes",
    "optim.lr=1e-2",
    "optim.micro_batch_size=2",
    "optim.global_batch_size=8",
    "optim.total_samples=96",
    "eval.num_samples=8",
)

# Sizes at which the borders of data-parallel partitions fall inside rows: for what is stored and restored.
UNEVEN_RUN = (
    "model.num_layers=4",
    "model.hidden_size=20",
    "model.num_heads=2",
    "model.ffn_size=28",
    "model.vocab_size=120",
    "model.vocab_multiple=8",
    "model.seq_length=128",
    "optim.lr=1e-2",
    "optim.warmup_samples=16",
    "optim.micro_batch_size=1",
    "optim.global_batch_size=4",
    "optim.total_samples=40",
)
