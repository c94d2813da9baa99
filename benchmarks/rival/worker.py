"""A process that has one of the two models, and answers requests of one line each, in JSON, one at a time.

This file and theirs.py run in the library's environment too, and import nothing of this program.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Rows = dict[str, Tensor]
HEADS = ("targets", "all")
"""Positions whose logits a head computes: those that have a loss, or every one of the rows."""


class Side(Protocol):
    """One of the two models."""

    module: nn.Module

    def loss(self, rows: Rows, head: str) -> Tensor:
        """Weighted cross-entropy of the targets, fp32."""
        ...

    def logits(self, rows: Rows) -> Tensor:
        """Of the targets: (targets, vocab)."""
        ...


def serve(
    build: Callable[[dict[str, Any], torch.dtype], Side],
    attention: Callable[[Any, Rows], float] = lambda *_: 0.0,
) -> None:
    """Answer the requests of standard input until it ends.

    Args:
        build: makes the model of the inputs in a precision.
        attention: CPU seconds of both passes of that model's attention alone.
    """
    # Libraries print: what they print goes to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(1)
    inputs = torch.load(sys.argv[1], weights_only=True)
    dtype = getattr(torch, sys.argv[2])
    side = build(inputs, dtype)
    count = sum(parameter.numel() for parameter in side.module.parameters())
    answers.write(json.dumps({"parameters": count}) + "\n")
    for line in sys.stdin:
        request = json.loads(line)
        rows = inputs["rows"][request["rows"]]
        if "logits_to" in request:
            with torch.no_grad():
                torch.save(side.logits(rows).float(), request["logits_to"])
            answers.write("{}\n")
        elif "products" in request:
            cpu = products(inputs["theirs"], rows, dtype)
            answers.write(json.dumps({"cpu": cpu, "attention": attention(side, rows)}) + "\n")
        else:
            answers.write(json.dumps(measured(side, rows, request["head"])) + "\n")


def measured(side: Side, rows: Rows, head: str) -> dict[str, float]:
    """Both passes of a micro-batch: seconds of the clock and of the CPU, the loss, and the gradient's norm."""
    side.module.zero_grad(set_to_none=True)
    gc.collect()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    loss = side.loss(rows, head)
    loss.backward()
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    squares = sum(
        float(parameter.grad.double().pow(2).sum())
        for parameter in side.module.parameters()
        if parameter.grad is not None
    )
    return {"seconds": seconds, "cpu": cpu, "loss": float(loss.detach()), "norm": squares**0.5}


def products(weights: dict[str, Tensor], rows: Rows, dtype: torch.dtype) -> float:
    """CPU seconds of the matrix products of both passes with each weight, and of nothing else; the head's with the targets.

    No attention is among them: what is allowed there depends on the rows.
    """
    seconds = 0.0
    for name, weight in weights.items():
        if weight.dim() != 2:
            continue
        is_head = name.endswith("word_embeddings.weight")
        count = len(rows["places"]) if is_head else rows["tokens"].numel()
        matrix = weight.to(dtype)
        given = torch.randn(count, matrix.shape[1]).to(dtype)
        gradient = torch.randn(count, matrix.shape[0]).to(dtype)
        begin = time.process_time()
        given @ matrix.t()
        gradient @ matrix
        gradient.t() @ given
        seconds += time.process_time() - begin
    return seconds
