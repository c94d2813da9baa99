"""What is said of slow ranks and of copies that differ, and a kernel that cannot time ranks."""

import os
from pathlib import Path

import pytest

from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import config_of, rank_session
from train.checksums import Difference
from train.rank_checks import difference_words, slow_words
from train.slow_ranks import Verdict

HOSTS = ["a", "a", "b", "b"]


def test_a_wrong_copy_is_named_with_its_host() -> None:
    one = Difference("layers.0.input_norm.weight", (2,), (0, 1, 2, 3))
    said = difference_words([one], HOSTS, 1200)
    assert said.startswith(
        "Silent error: in step 1,200 the bits of layers.0.input_norm.weight are wrong on rank 2 on b, of 4 ranks that "
        "hold it. A device,"
    )


def test_of_two_copies_both_are_named() -> None:
    two = Difference("final_norm.bias", (1, 3), (1, 3))
    said = difference_words([two, two, two], HOSTS, 7)
    assert (
        "the bits of final_norm.bias are not the same on rank 1 on a, rank 3 on b, and nobody can say which is right. "
        "So are those of 2 other parameters." in said
    )


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_slow_rank_is_named_and_so_is_its_end(is_alone: bool) -> None:
    said = slow_words(Verdict(3, True, 0.304, is_alone), "b")
    assert said.startswith("Rank 3 on b is slow: ") and "30 % longer" in said
    assert ("than before" in said) == is_alone
    assert "is no longer slower" in slow_words(Verdict(3, False, 0.01, is_alone), "b")


def untimed(rank: int, world_size: int, folder: Path) -> tuple[list[str], bool]:
    """A start on hosts of which the last one has no schedstat; what is said, and whether steps are watched."""
    import torch.distributed as dist

    from train import own_time
    from train.engine.pipeline import PipelineEngine
    from train.nodes import hosts_of
    from train.progress import Progress
    from train.rank_checks import RankChecks
    from train.run_folder import RunFolder
    from train.trackers import Trackers

    os.environ["SLURMD_NODENAME"] = "node-of-a-test"
    if rank == world_size - 1:
        own_time._SCHEDSTAT = str(folder / "none")
    said: list[str] = []
    trackers = Trackers([])
    trackers.log = said.append
    config = config_of(("precision=fp32", "parallel.tp=2"), world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        hosts = hosts_of(session)
        assert set(hosts.names) == {"node-of-a-test"}
        gather = dist.all_gather_object

        def gathered(found: list[object], own: object, **options: object) -> None:
            assert "node-of-a-test" not in repr(own), "the checks of each resume ask again"
            gather(found, own, **options)  # type: ignore[arg-type]

        dist.all_gather_object = gathered
        checks = RankChecks(config, session, engine, RunFolder(folder), trackers, hosts)
        for number in range(1, 12):
            with checks.of_step(number):
                pass
            assert checks.report(Progress(number)) is None
        is_watched = checks._own_time is not None
        checks.close()
        engine.close()
    return said, is_watched


def test_ranks_that_cannot_be_timed_are_said_and_all_ranks_agree(tmp_path: Path) -> None:
    for said, is_watched in run_distributed(untimed, 2, tmp_path):
        assert not is_watched
        assert len(said) == 1 and said[0].startswith("Slow ranks are not looked for: on ")
