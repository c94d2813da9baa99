"""Operations as PyTorch counts them in a real step, and what a run says of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from configs import derive, flops
from configs.flops import Computed
from configs.load import load_config
from configs.schema import Config, Recompute
from glm.attention_work import computed_pairs
from glm.model import GLMModel
from glm.row_fields import pack_fields
from glm.row_plan import RowPlan
from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import config_of, rank_session, small_dataset, train
from tests.helpers.whole_runs import command, metrics, run_attempt


def counter() -> FlopCounterMode:
    """PyTorch's counter, which leaves out products that are added in place and the kernels of attention on CPU."""

    def product(total: Any, left: Any, right: Any, *_: Any, **__: Any) -> int:
        return 2 * left[0] * left[1] * right[1]

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: product})


def counted(rank: int, world_size: int, words: tuple[str, ...]) -> tuple[int, int, int]:
    """Operations of the second step of a training, its targets, and the pairs of its rows."""
    from train.batches import BatchStream
    from train.engine.pipeline import PipelineEngine
    from train.observe.throughput import pairs_of
    from train.plan import TrainingPlan

    config = config_of(words, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        train(engine, session, config, 0, 1)
        with counter() as count:
            train(engine, session, config, 1, 1)
        engine.close()
        plan, size = TrainingPlan.from_config(config), config.optim.micro_batch_size
        rows = config.optim.global_batch_size
        stream = BatchStream(small_dataset(config), plan, session.topology, size, [], rows)
        batches = stream.next_step()
        stream.close()
    pairs = sum(pairs_of(batch, config, False) for batch in batches.micro_batches)
    return count.get_total_flops(), batches.num_targets, pairs


def plain(recompute: str) -> tuple[Config, tuple[str, ...]]:
    words = ("model.attention=reference", f"parallel.recompute={recompute}", "precision=fp32")
    return config_of(words, 1), words


@pytest.mark.parametrize("recompute", list(Recompute))
def test_a_step_of_the_engine_computes_what_is_counted(recompute: Recompute) -> None:
    config, words = plain(recompute.value)
    ((total, targets, pairs),) = run_distributed(counted, 1, words)
    rows = config.optim.global_batch_size
    assert 0 < targets < rows * config.model.seq_length
    assert pairs == rows * config.model.seq_length**2
    computed = Computed(rows, pairs, targets)
    assert flops.hardware_flops(config.model, computed, recompute, False) == pytest.approx(
        total, rel=0.02
    )


def test_a_row_whose_tokens_all_have_logits_computes_what_published_figures_count() -> None:
    words = ["model=tiny", "model.attention=reference", "model.seq_length=192"]
    model = load_config(words).model
    rows, seq = 2, model.seq_length
    ones = torch.ones(rows, seq, dtype=torch.long)
    fields = pack_fields(ones, ones * 0, ones, ones, ones, torch.arange(rows))
    network = GLMModel(model, seed=1)
    with counter() as count:
        logits = network(ones, fields)
        logits.float().square().mean().backward()
    assert len(logits) == rows * seq
    assert rows * derive.flops_per_sample(model) == pytest.approx(count.get_total_flops(), rel=0.02)
    assert computed_pairs(RowPlan(fields), model, False) == rows * seq**2


def test_a_run_says_how_much_of_its_attention_is_computed(tmp_path: Path) -> None:
    words = ("parallel.pp=2", "log.details_every_steps=4", "cluster.peak_tflops=0.1")
    # One window a row: [MASK] rows are attended segment by segment, or folded whole.
    assert run_attempt(2, command(tmp_path, f"run.dir={tmp_path / 'run'}", *words)) == [0, 0]
    details = [json.loads(line) for line in (tmp_path / "run" / "details.jsonl").open()]
    by_step = {line["step"]: line for line in metrics(tmp_path / "run")}
    model = load_config(list(command(tmp_path))).model
    for line in details:
        of_step = by_step[line["step"]]
        share = line["attention/computed_fraction"]
        assert 0 < share <= 1
        rows, seq = 8, model.seq_length
        targets = of_step["data/target_tokens_fraction"] * rows * seq
        computed = Computed(rows, share * rows * seq**2, targets)
        ratio = flops.model_flops(model, computed) / (rows * derive.flops_per_sample(model))
        assert line["speed/mfu_computed"] == pytest.approx(of_step["speed/mfu"] * ratio, rel=1e-6)
        assert line["speed/mfu_computed"] < line["speed/hfu_computed"]
