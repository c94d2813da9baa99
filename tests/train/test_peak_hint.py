"""Whether a start says that MFU will be null, on stand-ins for CUDA."""

import pytest
import torch

from configs.schema import Precision
from train.device import peak_hint, peak_tflops

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "precision", "configured", "is_said"),
    [
        ("NVIDIA H100 80GB HBM3", Precision.bf16, None, False),
        ("Tesla V100-SXM2-32GB", Precision.fp16, None, False),
        ("Tesla V100-SXM2-32GB", Precision.bf16, None, True),
        ("NVIDIA GeForce GT 1030", Precision.fp32, None, True),
        ("NVIDIA GeForce GT 1030", Precision.fp32, 1.1, False),
    ],
)
def test_what_nobody_knows_is_asked_for_once(
    name: str,
    precision: Precision,
    configured: float | None,
    is_said: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    hint = peak_hint(GPU, precision, configured)
    assert (hint is not None) == is_said
    if hint is not None:
        assert name in hint and "cluster.peak_tflops=NUMBER" in hint
        assert precision.value in hint
    assert peak_hint(CPU, precision, configured) is None
    assert peak_tflops(CPU) is None
