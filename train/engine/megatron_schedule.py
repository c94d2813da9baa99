"""Megatron-core's interleaved 1F1B, made to run on any device: the only module that imports its pipeline schedules.

Megatron-core takes for granted that tensors live on CUDA: it receives into `torch.cuda.current_device()`, and counts
tokens on "cuda". Here a communicator of our own receives on the rank's device, and the count, which nothing reads, stays
on CPU. All transfers are single sends and receives that overlap with computation: with two stages Megatron-core's
batched ones confuse what goes forward with what goes back, without an error.
"""

import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glm.light_imports import light_imports
from train.parts import BACKWARD, BUBBLE, COMMUNICATION, FORWARD, marked, part

with light_imports():
    from megatron.core.enums import ModelType
    from megatron.core.pipeline_parallel import p2p_communication, schedules
    from megatron.core.process_groups_config import ProcessGroupCollection
    from megatron.core.transformer.transformer_config import TransformerConfig


class _Torch(types.ModuleType):
    """PyTorch as the schedule sees it: `zeros`, which makes its count of tokens and nothing else, stays on CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def zeros(*size: Any, dtype: torch.dtype, device: str) -> Tensor:
        return torch.zeros(*size, dtype=dtype)


setattr(schedules, "torch", _Torch("torch"))  # noqa: B010
for _name, _part in (("forward_step", FORWARD), ("backward_step", BACKWARD)):
    setattr(schedules, _name, marked(_part, getattr(schedules, _name)))


class _Request:
    """A transfer under way, whose wait is marked: for what is received the stage idles."""

    def __init__(self, name: str, work: Any) -> None:
        self.wait = marked(BUBBLE if "recv" in name else COMMUNICATION, work.wait)


class _One:
    """The group of an axis that the schedule asks for and that a pass is not cut along."""

    @staticmethod
    def size() -> int:
        return 1


class Transfers(p2p_communication.P2PCommunicator):
    """Sends and receives hidden states and their gradients, all of one shape, between neighbouring stages.

    Args:
        group: the ranks of this pipeline, in the order of the stages.
        config: of the schedule.
        like: a tensor of the shape, type and device of what is transferred; its values are not read.
    """

    def __init__(self, group: Any, config: Any, like: Tensor) -> None:
        super().__init__(group, config)
        self._like = like

    def _communicate(
        self,
        *,
        tensor_send_next: Tensor | None,
        tensor_send_prev: Tensor | None,
        recv_prev: bool,
        recv_next: bool,
        tensor_shape: Any,
        wait_on_reqs: bool = True,
    ) -> tuple[Tensor | None, Tensor | None, Any]:
        received_prev = self._buffer() if recv_prev else None
        received_next = self._buffer() if recv_next else None
        requests = self.start(tensor_send_prev, received_prev, tensor_send_next, received_next)
        if wait_on_reqs:
            for request in requests.values():
                request.wait()
            return received_prev, received_next, None
        return received_prev, received_next, requests

    def start(
        self,
        send_prev: Tensor | None,
        recv_prev: Tensor | None,
        send_next: Tensor | None,
        recv_next: Tensor | None,
    ) -> dict[str, Any]:
        """Start transfers; what to wait on, by Megatron-core's names."""
        assert self.prev_rank is not None and self.next_rank is not None
        with part(COMMUNICATION):
            started = p2p_communication._p2p_ops(
                tensor_send_prev=send_prev,
                tensor_recv_prev=recv_prev,
                tensor_send_next=send_next,
                tensor_recv_next=recv_next,
                group=self.pp_group,
                prev_pipeline_rank=self.prev_rank,
                next_pipeline_rank=self.next_rank,
            )
        return {name: _Request(name, work) for name, work in started.items()}

    def _buffer(self) -> Tensor:
        return torch.empty_like(self._like).requires_grad_()


class Chunk(nn.Module):
    """A chunk as Megatron-core's schedule knows it.

    Args:
        number: of the chunk on this stage.
        config: of the schedule.
    """

    def __init__(self, number: int, config: Any) -> None:
        super().__init__()
        self.config = config
        self.vp_stage = number
        self.model_type = ModelType.encoder_or_decoder
        self.received: Tensor | None = None
        """Output of the part before this one, for the coming forward pass; None where tokens enter."""

    def set_input_tensor(self, received: Any) -> None:
        """Called before each forward pass."""
        (self.received,) = received


Forward = Callable[[Iterator[Any], Chunk], tuple[Tensor, Callable[[Tensor], tuple[Tensor, object]]]]
"""Runs the next micro-batch of an iterator through a chunk; returns its output, and a function from that of the last part
to (loss, anything)."""


def schedule_config(chunks: int, pp: int, dtype: torch.dtype) -> Any:
    """The schedule's settings. Megatron-core divides the loss by the number of micro-batches itself."""
    return TransformerConfig(
        # Sizes of a model that is not built.
        num_layers=pp * chunks,
        hidden_size=1,
        num_attention_heads=1,
        use_cpu_initialization=True,
        pipeline_model_parallel_size=pp,
        virtual_pipeline_model_parallel_size=chunks,
        pipeline_dtype=dtype,
        params_dtype=dtype,
        overlap_p2p_comm=True,
        batch_p2p_comm=False,
        batch_p2p_sync=False,
        # On gloo it gives wrong results without an error. It would save a hidden state for each pass that is kept.
        deallocate_pipeline_outputs=False,
    )


def run_interleaved(
    forward: Forward,
    chunks: Sequence[Chunk],
    batches: Sequence[Iterator[Any]],
    num_micro_batches: int,
    group_size: int,
    transfers: Transfers,
    forward_only: bool = False,
) -> None:
    """Run all passes of a step on one stage.

    Args:
        forward: see `Forward`.
        chunks: of this stage.
        batches: of each chunk, all micro-batches in order.
        num_micro_batches: of the step; at least as many as stages.
        group_size: micro-batches that run through a chunk before the next chunk's turn (configs/pipeline.py).
        transfers: to the neighbours.
        forward_only: no backward passes.
    """
    transfers.config.microbatch_group_size_per_vp_stage = group_size
    groups = ProcessGroupCollection()
    one: Any = _One()
    groups.tp = groups.cp = groups.dp_cp = groups.embd = groups.pos_embd = one
    groups.pp = transfers.pp_group
    schedules.forward_backward_pipelining_with_interleaving(
        forward_step_func=forward,
        data_iterator=list(batches),
        model=list(chunks),
        num_microbatches=num_micro_batches,
        # The communicator knows the shape of what it transfers.
        seq_length=1,
        micro_batch_size=1,
        forward_only=forward_only,
        p2p_communicator=transfers,
        pg_collection=groups,
    )
