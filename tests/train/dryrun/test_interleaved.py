"""The interleaved schedule rehearsed: every number of micro-batches completes, and planted faults are found."""

from collections.abc import Iterator
from typing import Any

import pytest

from configs import pipeline
from train.dryrun import interleaved
from train.dryrun.interleaved import rehearse


@pytest.mark.parametrize("pp", [2, 3, 4, 5])
@pytest.mark.parametrize("chunks", [2, 3])
def test_every_number_of_micro_batches_from_the_stages_on_completes(pp: int, chunks: int) -> None:
    for num_micro_batches in range(pp, 3 * pp + 2):
        assert rehearse(num_micro_batches, pp, chunks) == [], num_micro_batches


def test_the_whole_batch_of_the_published_run_completes() -> None:
    assert rehearse(176, 8, 3) == []


def test_a_group_that_leaves_too_small_a_rest_is_named() -> None:
    assert pipeline.group_size(4, 5) == 5
    (first, *_) = rehearse(5, 4, 2, group_size=4)
    assert first.startswith("stage 0: RuntimeError")


def test_a_tensor_of_another_micro_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = interleaved._Lines.ask
    sent = []

    def confused(self: Any, source: int, target: int, tensor: Any, is_sender: bool) -> Any:
        if is_sender:
            sent.append(tensor)
            tensor = tensor + 1.0 if len(sent) == 6 else tensor
        return ask(self, source, target, tensor, is_sender)

    monkeypatch.setattr(interleaved._Lines, "ask", confused)
    found = rehearse(4, 2, 2)
    assert any("is given a tensor of another one" in problem for problem in found)


def test_a_lost_transfer_is_a_hang_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = interleaved._Lines.ask
    sent = []

    def lossy(self: Any, source: int, target: int, tensor: Any, is_sender: bool) -> Any:
        sent.append(is_sender)
        if len(sent) == 5:
            return interleaved._Request(self, tensor)
        return ask(self, source, target, tensor, is_sender)

    monkeypatch.setattr(interleaved._Lines, "ask", lossy)
    assert rehearse(6, 3, 2) == ["with 6 micro-batches the pipeline hangs"]


def test_a_micro_batch_that_is_read_twice_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = interleaved._Stage._forward

    def stumbling(self: Any, micro_batches: Iterator[int], chunk: Any) -> Any:
        if self._stage == 1 and chunk.vp_stage == 1:
            micro_batches = iter([0])
        return forward(self, micro_batches, chunk)

    monkeypatch.setattr(interleaved._Stage, "_forward", stumbling)
    found = rehearse(4, 2, 2)
    assert any("is given a tensor of another one" in problem for problem in found)
    assert any("does not execute these exactly once" in problem for problem in found)
