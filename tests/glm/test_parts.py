"""The parts of a layer against the paper's numbers and formulas."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from configs.load import load_config
from configs.schema import RopeTables
from glm import counter_random, deepnorm
from glm.counter_random import key_of, mix, normal_, random_words, without_initial_values
from glm.dropout import Dropout, drop, keep_mask
from glm.embedding import ScaleGradient, WordEmbedding
from glm.loss import GLMLoss
from glm.mlp import GeGLU
from glm.rotary import rotary_tables, turned
from glm.row_fields import may_attend, pack_fields
from glm.tensor_parallel import ensure_initialised


def test_deepnorm_has_the_published_constants() -> None:
    # GLM-130B: 70 layers, hidden 12288, inner 32768.
    assert deepnorm.alpha(70) == pytest.approx(11.8322, abs=1e-4)
    assert deepnorm.beta(70) == pytest.approx(0.0845154, abs=1e-7)
    assert deepnorm.xavier_std(12288, 12288) == pytest.approx(0.009021, abs=1e-6)
    assert deepnorm.xavier_std(12288, 12288, deepnorm.beta(70)) == pytest.approx(7.624e-4, abs=1e-7)
    assert deepnorm.xavier_std(12288, 32768, deepnorm.beta(70)) == pytest.approx(5.631e-4, abs=1e-7)


def test_initial_weights_are_normal_and_any_slice_is_a_slice() -> None:
    whole = torch.empty(96, 128)
    normal_(whole, 0.5, key_of(1, "w"), full_width=128)
    rows, columns = torch.empty(32, 128), torch.empty(96, 64)
    normal_(rows, 0.5, key_of(1, "w"), full_width=128, row_offset=64)
    normal_(columns, 0.5, key_of(1, "w"), full_width=128, column_offset=64)
    assert torch.equal(rows, whole[64:]) and torch.equal(columns, whole[:, 64:])
    count = whole.numel()
    assert whole.mean().abs() < 4 * 0.5 / math.sqrt(count)
    assert abs(whole.std() - 0.5) < 4 * 0.5 / math.sqrt(2 * count)
    assert abs((whole / 0.5).pow(4).mean() - 3) < 4 * math.sqrt(96 / count)
    other = torch.empty(96, 128)
    normal_(other, 0.5, key_of(2, "w"), full_width=128)
    assert (torch.corrcoef(torch.stack([whole.flatten(), other.flatten()]))[0, 1]).abs() < 0.04


def test_random_words_use_every_bit_of_a_large_index() -> None:
    index = torch.tensor([5, 5 + 2**32, 5 + 2**40, 6])
    assert len(set(random_words(key_of(0), index)[0].tolist())) == 4


def test_random_words_are_two_rounds_of_the_hash() -> None:
    index, (low, high) = torch.tensor([0, 5, 2**40 + 7, 2**63 - 1]), key_of("anything")
    untouched = index.clone()
    streams = random_words(key_of("anything"), index, (0, 3))
    for words, step in zip(streams, (0, 3 * 0x9E3779B9 % 2**32), strict=True):
        expected = [
            mix(mix(torch.tensor(i % 2**32 ^ low)) + (i >> 32 ^ high ^ step) & 0xFFFFFFFF)
            for i in index.tolist()
        ]
        assert words.tolist() == [int(word) for word in expected]
    assert torch.equal(index, untouched)


# A rectangle that begins in row 2^20 and column 2^32 - 2 of a matrix of 2^33 + 5 columns.
GOLDEN = [
    "-0x1.c54ab8p-3 -0x1.4c8890p-6 -0x1.10cef0p-1 -0x1.debb2ep-3 -0x1.6bf972p-1",
    "0x1.0e0968p-3 -0x1.7733dcp-4 -0x1.30425ap-1 0x1.b8f972p-1 -0x1.72492ap-3",
    "-0x1.13fe82p-1 0x1.1d91aep-1 0x1.f57ef0p-5 0x1.d755cep-3 -0x1.ca7c56p-2",
]


def golden_rectangle() -> torch.Tensor:
    drawn = torch.empty(3, 5)
    key = key_of(7, "layers.3.mlp.dense_out.weight")
    normal_(drawn, 0.5, key, full_width=2**33 + 5, row_offset=2**20, column_offset=2**32 - 2)
    return drawn


def test_initial_weights_are_those_of_every_earlier_program() -> None:
    expected = [[float.fromhex(number) for number in row.split()] for row in GOLDEN]
    assert golden_rectangle().tolist() == expected


def test_initial_weights_do_not_depend_on_how_many_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = torch.empty(300, 700)  # more than one chunk
    normal_(whole, 0.5, key_of(1, "w"), full_width=700)
    assert whole.numel() > counter_random._CPU_CHUNK
    for chunk in (1, 3 * 700 + 5, 1 << 22):
        monkeypatch.setattr(counter_random, "_CPU_CHUNK", chunk)
        again = torch.empty(300, 700)
        normal_(again, 0.5, key_of(1, "w"), full_width=700)
        assert torch.equal(again, whole)


def test_a_weight_that_is_not_drawn_is_nan_and_the_next_is_drawn() -> None:
    with pytest.raises(KeyError), without_initial_values():
        assert golden_rectangle().isnan().all()
        raise KeyError
    assert not golden_rectangle().isnan().any()


def test_dropout_is_a_function_of_sample_layer_site_and_element() -> None:
    samples = torch.tensor([7, 8, 2**40 + 7])
    dropout = Dropout(0.1, seed=3, layer=2, site="mlp_output")

    def mask(of: Dropout, samples: torch.Tensor) -> torch.Tensor:
        return of.kept(samples, torch.zeros_like(samples), 2000).mask

    kept = mask(dropout, samples)
    assert torch.equal(kept, mask(dropout, samples))
    # Alone or in a batch, a sample has the same mask.
    assert torch.equal(kept[1:2], mask(dropout, samples[1:2]))
    assert not torch.equal(kept[0], kept[1]) and not torch.equal(kept[0], kept[2])
    other = Dropout(0.1, seed=3, layer=3, site="mlp_output")
    assert not torch.equal(kept, mask(other, samples))
    share = 1 - kept.float().mean()
    assert abs(share - 0.1) < 4 * math.sqrt(0.09 / kept.numel())
    dropped = drop(torch.ones(3, 2000), dropout.kept(samples, torch.zeros_like(samples), 2000))
    assert torch.equal(dropped > 0, kept) and dropped.max() == pytest.approx(1 / 0.9)
    assert dropout.is_active
    assert not dropout.eval().is_active and not Dropout(0.0, 3, 2, "mlp_output").is_active


def test_the_masks_are_those_of_the_first_version() -> None:
    samples, firsts = torch.tensor([7, 2**40 + 7]), torch.tensor([0, 2**33])
    kept = Dropout(0.3, seed=3, layer=2, site="mlp_output").kept(samples, firsts, 24)
    assert ["".join("x" if bit else "." for bit in row) for row in kept.mask.tolist()] == [
        "xx.x.x.xxxx.xxxxx.xxx..x",
        "x.xxxxx.x.xxx.xxxx.xx.xx",
    ]


def test_a_part_of_a_dropout_mask_is_its_part_of_the_whole_mask() -> None:
    key, samples = torch.tensor(key_of(1, "dropout", 0, "attention_weights")), torch.tensor([4])
    whole = keep_mask(samples, torch.tensor([0]), 4 * 36, key, 0.3)
    second = keep_mask(samples, torch.tensor([2 * 36]), 2 * 36, key, 0.3)
    assert torch.equal(second, whole[:, 2 * 36 :])
    by_token = keep_mask(samples.expand(24), torch.arange(24) * 6, 6, key, 0.3)
    assert torch.equal(by_token.view(1, -1), whole)


def test_rotation_depends_on_the_distance_only() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 16, generator=generator) for _ in range(2))

    def score(query_at: int, key_at: int) -> float:
        q_and_k = [
            turned(values, *rotary_tables(torch.tensor([[at]]), 16, 1e4, RopeTables.fp32))
            for values, at in ((q, query_at), (k, key_at))
        ]
        return float((q_and_k[0] * q_and_k[1]).sum())

    assert score(3, 10) == pytest.approx(score(103, 110), abs=1e-4)
    assert score(3, 10) != pytest.approx(score(3, 11), abs=1e-3)


def test_rotation_by_hand() -> None:
    # size 4, base 10000: frequencies 1 and 0.01; pairs are (0, 2) and (1, 3).
    tables = rotary_tables(torch.tensor([[2]]), 4, 1e4, RopeTables.fp32)
    result = turned(torch.tensor([[[1.0, 0.0, 0.0, 1.0]]]), *tables)[0, 0]
    expected = [math.cos(2), -math.sin(0.02), math.sin(2), math.cos(0.02)]
    assert result.tolist() == pytest.approx(expected, abs=1e-6)


def test_two_dimensional_rotation_by_hand() -> None:
    # Two parts of size 4 at positions 2 and 5: pairs are (0, 2), (1, 3) and (4, 6), (5, 7).
    tables = rotary_tables(torch.tensor([[2, 5]]), 4, 1e4, RopeTables.fp32)
    head = torch.tensor([[[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]]])
    expected = [
        *(math.cos(2), -math.sin(0.02), math.sin(2), math.cos(0.02)),
        *(math.cos(5), -math.sin(0.05), math.sin(5), math.cos(0.05)),
    ]
    assert turned(head, *tables)[0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_half_precision_tables_are_off_by_up_to_a_radian_as_the_trainer_s_were() -> None:
    positions = torch.arange(2048)[None]
    fp32, fp16 = (
        torch.atan2(*reversed(rotary_tables(positions, 128, 1e4, tables)))
        for tables in (RopeTables.fp32, RopeTables.fp16)
    )
    difference = (fp32 - fp16 + math.pi) % (2 * math.pi) - math.pi
    assert 0.5 < difference.abs().max() < 1.1
    assert difference.abs().mean() < 0.05


def test_embedding_gradient_shrink_scales_the_gradient_and_keeps_the_value() -> None:
    weight = torch.tensor([1.1, -2.3, 1e-3], dtype=torch.float16, requires_grad=True)
    used = ScaleGradient.apply(weight, 0.1)
    assert torch.equal(used, weight)
    used.sum().backward()
    assert torch.equal(weight.grad, torch.full((3,), 0.1, dtype=torch.float16))


def test_geglu_is_value_times_the_exact_gelu_of_the_gate() -> None:
    ensure_initialised()
    mlp = GeGLU(8, 16, 0.5, 0.5, seed=0, name="layers.0.mlp").double()
    hidden = torch.randn(3, 8, dtype=torch.float64)
    value = hidden @ mlp.dense_value.weight.T
    gate = hidden @ mlp.dense_gate.weight.T
    expected = (value * gate * (1 + torch.erf(gate / math.sqrt(2))) / 2) @ mlp.dense_out.weight.T
    torch.testing.assert_close(mlp(hidden), expected)


def test_the_layout_s_rule_by_hand() -> None:
    # Context 0 1, targets 2 3; another segment of one context token; padding.
    fields = pack_fields(
        torch.tensor([[1, 1, 1, 1, 2, 0]]),
        torch.tensor([[True, True, False, False, True, False]]),
        *(torch.zeros(1, 6, dtype=torch.int64) for _ in range(3)),
        torch.tensor([0]),
    )
    assert may_attend(fields)[0].int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_the_loss_weighs_rows_and_reports_objectives() -> None:
    model, hidden, losses_of = small_head()
    targets = torch.tensor([3, 4, 7, 2, 9])
    places, rows = torch.tensor([1, 2, 4, 6, 7]), torch.tensor([0, 0, 1, 1, 1])
    row_weights = torch.tensor([1 / 4, 1 / 6])  # each row's mean, over two rows
    loss, of_rows = GLMLoss(3), list[torch.Tensor]()
    loss.embedding, loss.on_rows = model, of_rows.append
    value = loss(hidden, (places, targets, rows, rows, row_weights))
    losses = losses_of(places, targets)
    first, second = losses[:2].mean(), losses[2:].mean()
    torch.testing.assert_close(value, (first + second) / 2)
    sums = loss.take()
    assert sums.mean_of(0) == pytest.approx(float(first))
    assert sums.mean_of(1) == pytest.approx(float(second))
    assert sums.mean_of(2) is None
    assert sums.mean == pytest.approx(float(value))
    assert loss.take().mean is None, "what was taken is not counted again"
    (table,) = of_rows
    torch.testing.assert_close(table[1], torch.tensor([1 / 2, 1 / 2]).double())
    torch.testing.assert_close(table[0], torch.stack([first, second]).detach().double() / 2)


def test_a_row_of_two_objectives_counts_for_each_with_its_own_targets() -> None:
    model, hidden, losses_of = small_head()
    targets, places = torch.tensor([5, 3, 4, 1]), torch.arange(4)
    labels = (
        places,
        targets,
        torch.zeros(4).long(),
        torch.tensor([0, 1, 1, 1]),
        torch.tensor([1 / 4]),
    )
    loss = GLMLoss(2)
    loss.embedding = model
    value = loss(hidden[:4], labels)
    losses = losses_of(places, targets)
    sums = loss.take()
    assert sums.mean_of(0) == pytest.approx(float(losses[0]))
    assert sums.mean_of(1) == pytest.approx(float(losses[1:].mean()))
    assert sums.weights == pytest.approx([1 / 4, 3 / 4])
    assert sums.mean == pytest.approx(float(losses.mean()))
    torch.testing.assert_close(value, losses.mean())
    loss.add_logits(hidden[:4] @ model.weight.t(), labels)
    assert loss.take().losses == pytest.approx(sums.losses)


def small_head() -> tuple[WordEmbedding, torch.Tensor, Any]:
    """An embedding, hidden states of two rows of four, and the plain losses at given places."""
    ensure_initialised()
    words = ["model.hidden_size=8", "model.num_heads=2", "model.vocab_size=16"]
    model = load_config([*words, "model.vocab_multiple=16"]).model
    embedding = WordEmbedding(model, seed=1)
    hidden = torch.randn(2 * 4, 8, generator=torch.Generator().manual_seed(0))

    def losses_of(places: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = hidden[places] @ embedding.weight.t()
        return functional.cross_entropy(logits, targets, reduction="none")

    return embedding, hidden, losses_of


def test_the_published_vocabulary_is_not_padded_further() -> None:
    from configs import derive

    assert derive.padded_vocab_size(load_config(["experiment=glm_130b"]).model) == 150528
