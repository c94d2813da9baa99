"""The head in chunks, and in the gradient's memory, against plain logits: on every cut of the vocabulary, at every border."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from configs.load import load_config
from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import rank_session

VOCAB, HIDDEN, SHRINK, SCALE = 64, 16, 0.25, 8.0
CHUNK = 4
# Several uneven blocks of the vocabulary.
BLOCK = 80


def given(num_targets: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Rows, matrix, targets and factors, the same on every rank."""
    generator = torch.Generator().manual_seed(num_targets)
    rows = torch.randn(num_targets, HIDDEN, generator=generator).to(dtype)
    matrix = torch.randn(VOCAB, HIDDEN, generator=generator).to(dtype)
    targets = torch.randint(VOCAB, (num_targets,), generator=generator)
    factors = torch.rand(num_targets, generator=generator)
    return rows, matrix, targets, factors


def chunked(
    rank: int, world_size: int, dtype_name: str, counts: list[int], in_place: bool
) -> list[Any]:
    """Loss, losses and gradients of this rank, for each number of targets."""
    from configs import computation
    from glm import head, head_in_place
    from glm.embedding import WordEmbedding

    computation.head_rows_at_once = head.head_rows_at_once = lambda *_: CHUNK
    head_in_place.HEAD_BLOCK = BLOCK
    if not in_place:
        head.head_rows_in_place = lambda *_, **__: 0
    words = [f"model.vocab_size={VOCAB}", f"model.hidden_size={HIDDEN}", "model.num_heads=4"]
    words += ["model.vocab_multiple=16", f"parallel.tp={world_size}"]
    config = load_config(words, world_size)
    results = []
    with rank_session(rank, world_size, config):
        embedding = WordEmbedding(config.model, 1).to(getattr(torch, dtype_name))
        embedding.gradient_shrink = SHRINK
        size = VOCAB // world_size
        for count in counts:
            rows, matrix, targets, factors = given(count, getattr(torch, dtype_name))
            embedding.weight.data.copy_(matrix[rank * size : (rank + 1) * size])
            embedding.weight.grad = None
            rows.requires_grad_()
            loss, losses = head.target_losses(embedding, rows, targets, factors, SCALE)
            (loss * SCALE / 4).backward()
            with torch.no_grad():
                again, _ = head.target_losses(embedding, rows, targets, factors)
            parts = (loss, losses, rows.grad, embedding.weight.grad, again)
            results.append([part.detach().float().numpy() for part in parts])
    return results


@pytest.mark.parametrize("dtype_name", ["float32", "bfloat16"])
@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize("in_place", [False, True])
def test_parts_are_the_plain_head(in_place: bool, tp: int, dtype_name: str) -> None:
    """No target, one, a chunk less one, a whole chunk, one more, several; all that fit the gradient's memory, and more."""
    dtype = getattr(torch, dtype_name)
    counts = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 2, HIDDEN, HIDDEN + CHUNK + 1]
    ranks = run_distributed(chunked, tp, dtype_name, counts, in_place)
    is_wide = dtype == torch.float32
    close = {"rtol": 1e-5, "atol": 1e-5} if is_wide else {"rtol": 2e-2, "atol": 2e-2}
    for number, count in enumerate(counts):
        rows, matrix, targets, factors = given(count, dtype)
        rows, matrix = rows.requires_grad_(), matrix.requires_grad_()
        losses = functional.cross_entropy((rows @ matrix.t()).float(), targets, reduction="none")
        loss = (losses * factors).sum()
        (loss * SCALE / 4).backward()
        found = [[torch.from_numpy(part) for part in rank[number]] for rank in ranks]
        for own_loss, own_losses, of_rows, _, again in found:
            torch.testing.assert_close(own_loss, loss.detach(), **close)
            torch.testing.assert_close(own_losses, losses.detach(), **close)
            assert rows.grad is not None
            torch.testing.assert_close(of_rows, rows.grad.float(), **close)
            torch.testing.assert_close(again, own_loss, **close)
            if not in_place:
                assert torch.equal(again, own_loss), "without gradients it is the same"
        whole = torch.cat([of_matrix for _, _, _, of_matrix, _ in found])
        assert matrix.grad is not None
        torch.testing.assert_close(whole, SHRINK * matrix.grad.float(), **close)


def one_process(count: int, dtype: torch.dtype) -> tuple[Any, tuple[torch.Tensor, ...]]:
    from glm.embedding import WordEmbedding
    from glm.tensor_parallel import ensure_initialised

    ensure_initialised()
    words = [f"model.vocab_size={VOCAB}", f"model.hidden_size={HIDDEN}", "model.num_heads=4"]
    embedding = WordEmbedding(load_config([*words, "model.vocab_multiple=16"]).model, 1).to(dtype)
    rows, matrix, targets, factors = given(count, dtype)
    embedding.weight.data.copy_(matrix)
    return embedding, (rows.requires_grad_(), targets, factors)


def test_many_chunks_in_half_precision_are_as_exact_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Added up in bf16, 256 chunks of one sign would stop growing at 256 times one of them."""
    from glm import head

    embedding, _ = one_process(1, torch.bfloat16)
    rows = torch.ones(2048, HIDDEN, dtype=torch.bfloat16, requires_grad=True)
    targets, factors = torch.zeros(2048, dtype=torch.int64), torch.ones(2048)
    found = {}
    for size in (1, 2048):
        monkeypatch.setattr(head, "head_rows_at_once", lambda *_, size=size: size)
        embedding.weight.grad = None
        head.target_losses(embedding, rows, targets, factors)[0].backward()
        found[size] = embedding.weight.grad.float()
    torch.testing.assert_close(found[1], found[2048], rtol=1e-2, atol=1e-2)


def test_the_matrix_may_have_a_wider_sum_elsewhere() -> None:
    from glm import head

    embedding, (rows, targets, factors) = one_process(9, torch.bfloat16)
    head.target_losses(embedding, rows, targets, factors)[0].backward()
    expected = embedding.weight.grad.float()
    embedding.weight.grad = None
    embedding.weight.main_grad = torch.ones(VOCAB, HIDDEN)
    told = []
    embedding.weight.grad_ready = lambda: told.append(True)
    (head.target_losses(embedding, rows, targets, factors)[0] / 4).backward()
    assert embedding.weight.grad is None and told == [True]
    exact = embedding.weight.main_grad - 1
    torch.testing.assert_close(exact, expected / 4, rtol=1e-2, atol=1e-3)


def test_a_target_far_below_the_others_has_a_finite_gradient() -> None:
    from glm import head

    embedding, (rows, targets, factors) = one_process(2, torch.float32)
    embedding.weight.data[1:].zero_()
    embedding.weight.data[0] = 1000.0
    rows.data.fill_(1.0)
    loss, losses = head.target_losses(embedding, rows, torch.tensor([1, 0]), factors)
    loss.backward()
    assert losses.tolist() == [16000.0, 0.0]
    assert rows.grad is not None and rows.grad.isfinite().all()
    assert embedding.weight.grad.isfinite().all()


def test_gradients_are_scaled_once() -> None:
    from glm import head

    embedding, (rows, targets, factors) = one_process(3, torch.float32)
    loss, _ = head.target_losses(embedding, rows, targets, factors)
    loss.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="once"):
        loss.backward()


def test_a_target_in_a_block_far_below_another_has_a_finite_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from configs import computation
    from glm import head, head_in_place

    monkeypatch.setattr(computation, "head_rows_at_once", lambda *_: 1)
    monkeypatch.setattr(head_in_place, "HEAD_BLOCK", BLOCK)
    embedding, (rows, _, _) = one_process(2, torch.float32)
    embedding.weight.data.zero_()
    embedding.weight.data[0] = 1000.0
    rows.data.fill_(1.0)
    factors = torch.ones(2)
    loss, losses = head.target_losses(embedding, rows, torch.tensor([VOCAB - 1, 0]), factors)
    loss.backward()
    assert losses.tolist() == [16000.0, 0.0]
    torch.testing.assert_close(embedding.weight.grad[VOCAB - 1], torch.full((HIDDEN,), -1.0))
    assert rows.grad is not None and rows.grad.isfinite().all()
    assert embedding.weight.grad.isfinite().all()
