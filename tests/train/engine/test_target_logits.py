"""Logits between two steps: on every layout those of one process, and the training after them keeps its bits."""

from typing import Any

import numpy as np
import pytest
import torch

from glm.filling import layout_of
from glm.model import GLMModel
from glm.prompt import Blanks
from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import allow_fp16, config_of, held_state, rank_session, train
from tests.helpers.tiny import TRAINED_SPECIAL

DROPOUT = ("model.hidden_dropout=0.2", "model.attention_dropout=0.2")
FP32 = ("precision=fp32", *DROPOUT)
TWO_STAGES = (*FP32, "parallel.pp=2")
CASES = {
    "one rank": (1, FP32),
    "matrices cut": (2, (*FP32, "parallel.tp=2")),
    "matrices and tokens cut": (2, (*FP32, "parallel.tp=2", "parallel.sequence=true")),
    "stages": (2, TWO_STAGES),
    "stages, recompute": (2, (*TWO_STAGES, "parallel.recompute=full")),
    "chunks": (2, (*TWO_STAGES, "parallel.schedule=interleaved", "parallel.chunks=2")),
    "everything": (8, (*TWO_STAGES, "parallel.tp=2", "parallel.sequence=true")),
    "bf16, overlap": (2, ("precision=bf16", "parallel.overlap=true", *DROPOUT)),
    "bf16, everything": (8, ("precision=bf16", "parallel.tp=2", "parallel.pp=2")),
    "fp16": (1, ("precision=fp16", *DROPOUT)),
}
# Contexts of several lengths, with spans that are empty, begun, and at the end of a text.
ROWS = [
    Blanks([10, 11, 0, 12, 13], [2], False, [[]]),
    Blanks([20, 0, 22, 23, 24, 25, 26, 27], [1], False, [[30, 31, 32]]),
    Blanks([40, 41, 42, 1], [3], True, [[43, 44, 45, 46]]),
]
SEQ_LENGTH = 24  # any number of tensor-parallel ranks here divides it


def asked(rank: int, world_size: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Train four steps with logits between them, and without; what both leave, and the first logits."""
    from train.engine.pipeline import PipelineEngine

    allow_fp16()
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:

        def logits() -> torch.Tensor | None:
            # The other replicas do not take part.
            if session.topology.dp_rank > 0:
                return None
            return engine.logits(*layout_of(ROWS, TRAINED_SPECIAL, SEQ_LENGTH))

        engine = PipelineEngine(config, session)
        steps = train(engine, session, config, 0, 4)
        undisturbed = (steps, held_state(engine, session, config))
        engine.close()

        engine = PipelineEngine(config, session)
        first = logits()
        steps = train(engine, session, config, 0, 2)
        for is_training in (True, False):
            engine.module.train(is_training)
            again = logits()
            assert engine.module.training == is_training
        steps += train(engine, session, config, 2, 2)
        disturbed = (steps, held_state(engine, session, config))
        engine.close()
        return {
            "is_last": session.topology.is_last_stage and session.topology.dp_rank == 0,
            "first": None if first is None else first.numpy(),
            "again": None if again is None else again.numpy(),
            "undisturbed": undisturbed,
            "disturbed": disturbed,
        }


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_one_process_and_disturb_no_training(case: str) -> None:
    world_size, overrides = CASES[case]
    config = config_of(overrides, world_size)
    model = GLMModel(config.model, config.seed).eval()
    with torch.no_grad():
        expected = model(*layout_of(ROWS, TRAINED_SPECIAL)).numpy()
    tolerance = 1e-5 if "precision=fp32" in overrides else 1e-2
    for found in run_distributed(asked, world_size, overrides):
        np.testing.assert_equal(found["disturbed"], found["undisturbed"])
        assert (found["first"] is not None) == found["is_last"]
        if found["is_last"]:
            np.testing.assert_allclose(found["first"], expected, rtol=tolerance, atol=tolerance)
            assert np.abs(found["again"] - found["first"]).max() > 0.01
            assert found["first"].dtype == np.float32


def test_nothing_runs_compiled_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    from glm.fused import Fused, eagerly

    compiled: list[str] = []
    doubled = Fused(lambda values: values * 2)
    monkeypatch.setitem(doubled.__dict__, "_compiled", lambda _: compiled.append("compiled"))
    on_gpu: Any = type("OnGPU", (torch.Tensor,), {"is_cuda": True})(torch.ones(2))
    doubled(on_gpu)
    with eagerly():
        assert doubled(on_gpu).tolist() == [2.0, 2.0]
    assert compiled == ["compiled"]
    doubled(on_gpu)
    assert compiled == ["compiled"] * 2


def test_attention_that_needs_the_compiler_takes_another_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from glm.fused import eagerly

    flexed: list[str] = []

    def flex(q: torch.Tensor, *_: Any) -> torch.Tensor:
        flexed.append("flex")
        return torch.zeros_like(q)

    monkeypatch.setattr("glm.attention.flex_attention", flex)
    inputs = layout_of(ROWS, TRAINED_SPECIAL)
    by_path: dict[str, torch.Tensor] = {}
    for path in ("flex", "reference"):
        config = config_of((f"model.attention={path}", "device=cuda"), 1)
        model = GLMModel(config.model, config.seed).eval()
        with torch.no_grad(), eagerly():
            by_path[path] = model(*inputs)
        assert not flexed
    torch.testing.assert_close(by_path["flex"], by_path["reference"])
    GLMModel(config_of(("model.attention=flex", "device=cuda"), 1).model, 1)(*inputs)
    assert flexed
