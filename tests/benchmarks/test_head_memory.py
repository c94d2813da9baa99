"""The benchmark of the head, at a small size: its memory is the promise that it measures."""

from benchmarks.head import measure


def test_neither_all_logits_nor_a_second_gradient_are_held() -> None:
    # All logits of 4096 targets would be 16 matrices of this width.
    measured = measure(hidden_size=256, vocab_size=65_536, num_targets=4096, rounds=1)
    assert 1.0 < measured["memory_ratio"] < 1.4
    assert measured["time_ratio"] > 0
