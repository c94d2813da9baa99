"""Head and loss at GLM-130B's vocabulary: time against three bare products, memory against one gradient of the matrix.

Products and head take turns in one process, on CPU seconds of one thread; medians. One JSON line a width.
"""

import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.profiler import profile

from configs.load import load_config
from glm.embedding import WordEmbedding
from glm.head import target_losses
from glm.tensor_parallel import ensure_initialised

VOCAB, TARGETS, ROUNDS = 150_528, 512, 5


def measure(hidden_size: int, vocab_size: int, num_targets: int, rounds: int) -> dict[str, float]:
    """Compare the two.

    Returns:
        Medians of CPU seconds, their ratio, and the most bytes alive above the weights over one fp32 gradient's.
    """
    ensure_initialised()
    words = [f"model.hidden_size={hidden_size}", f"model.vocab_size={vocab_size}"]
    model = load_config([*words, "model.num_heads=8", "precision=fp32"]).model
    embedding = WordEmbedding(model, seed=1)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(num_targets, hidden_size, generator=generator)
    targets = torch.randint(vocab_size, (num_targets,), generator=generator)
    factors = torch.full((num_targets,), 1 / num_targets)

    def head() -> None:
        embedding.weight.grad = None
        given = rows.detach().requires_grad_()
        target_losses(embedding, given, targets, factors)[0].backward()

    def products() -> None:
        _three_products(rows, embedding.weight.detach())

    spent: dict[str, list[float]] = {"head": [], "products": []}
    for _ in range(rounds):
        spent["products"].append(_seconds(products))
        spent["head"].append(_seconds(head))
    medians = {name: statistics.median(values) for name, values in spent.items()}
    embedding.weight.grad = None
    with profile(profile_memory=True) as recorded:
        head()
    gradient = embedding.weight.numel() * 4
    return {
        "hidden": hidden_size,
        "vocabulary": vocab_size,
        "targets": num_targets,
        "rounds": rounds,
        "products_seconds": medians["products"],
        "head_seconds": medians["head"],
        "time_ratio": medians["head"] / medians["products"],
        "memory_ratio": _peak(recorded) / gradient,
    }


def _three_products(rows: Tensor, matrix: Tensor) -> None:
    logits = rows @ matrix.t()
    logits @ matrix
    logits.t() @ rows


def _seconds(work: Callable[[], None]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _peak(recorded: profile) -> int:
    events = sorted(
        (each for each in recorded.kineto_results.events() if each.name() == "[memory]"),
        key=lambda each: each.start_ns(),
    )
    alive = most = 0
    for event in events:
        alive += event.nbytes()
        most = max(most, alive)
    return most


def run() -> None:
    """Measure both widths."""
    for hidden_size in (512, 2048):
        print(json.dumps(measure(hidden_size, VOCAB, TARGETS, ROUNDS)), flush=True)
