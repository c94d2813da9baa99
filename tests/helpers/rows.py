"""Rows compared with tables written by hand."""

import numpy as np

from data_pipeline.packing import Sample, attention_mask


def assert_row(sample: Sample, expected: dict[str, list[int]], attention: str) -> None:
    """The row's arrays and its attention mask are the expected ones."""
    for name, values in expected.items():
        array = getattr(sample, name)
        is_flag = name in ("loss_mask", "is_context")
        assert array.dtype == (np.bool_ if is_flag else np.int64), name
        assert array.astype(int).tolist() == values, name
    rows = ["".join(".x"[int(seen)] for seen in row) for row in attention_mask(sample)]
    assert rows == attention.split()
