"""The published model, built rank by rank with the real pipeline module on meta tensors."""

import pytest

from configs import cutting, derive
from configs.load import load_config
from tests.helpers.distributed import run_distributed

PUBLISHED = 128_697_794_560
STAGES, SHARDS = 8, 4


def parameters_of_ranks(
    rank: int, world_size: int, tp: int, pp: int, words: tuple[str, ...] = ()
) -> list[tuple[int, int]]:
    """(parameters, of which tied copies) of every rank of one replica, by a fake process group."""
    from glm.tensor_parallel import partition_dim
    from train.distributed import fake_session
    from train.engine import build_pipeline
    from train.topology import Topology
    from train.world import World, prepare_environment

    prepare_environment(World(), "cpu")
    layout = (
        f"parallel.tp={tp}",
        f"parallel.pp={pp}",
        "cluster.nodes=1",
        "cluster.gpus_per_node=1",
    )
    config = load_config(["experiment=glm_130b", *layout, *words], tp * pp)
    counts = []
    for place in range(tp * pp):
        topology = Topology(tp, pp, 1, place)
        with fake_session(topology) as session:
            module = build_pipeline(config, session, None)
        own = copies = 0
        for parameter in module.parameters():
            is_replica = partition_dim(parameter) is None and topology.tp_rank > 0
            if parameter.ds_pipe_replicated or is_replica:
                copies += parameter.numel()
            else:
                own += parameter.numel()
        counts.append((own, copies))
    return counts


@pytest.mark.parametrize("tp, pp", [(1, 1), (SHARDS, STAGES)])
def test_glm_130b_has_the_published_number_of_parameters(tp: int, pp: int) -> None:
    counts = run_distributed(parameters_of_ranks, 1, tp, pp)[0]
    assert len(counts) == tp * pp
    assert sum(own for own, _ in counts) == PUBLISHED
    model = load_config(["experiment=glm_130b"]).model
    assert derive.parameters(model) == PUBLISHED
    # The formula says what each rank really holds, tied and replicated copies included.
    held = [own + copies for own, copies in counts]
    assert held == [count for count in cutting.stage_parameters(model, pp, tp) for _ in range(tp)]


def test_all_norms_are_where_the_formula_says() -> None:
    words = ("model.norm=sandwich", "model.embedding_norm=true", "model.qk_norm=true")
    words = (*words, "model.num_layers=8")
    counts = run_distributed(parameters_of_ranks, 1, 2, 4, words)[0]
    model = load_config(["experiment=glm_130b", *words]).model
    assert sum(own for own, _ in counts) == derive.parameters(model)
    held = [own + copies for own, copies in counts]
    assert held == [count for count in cutting.stage_parameters(model, 4, 2) for _ in range(2)]
