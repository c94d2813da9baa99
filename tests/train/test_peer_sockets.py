"""The limit of open files is raised for many ranks, left alone for few, and named where it cannot do."""

import resource

import pytest

from configs.errors import RankError
from tests.helpers.killing import run_forked
from tests.helpers.open_files import limit_open_files
from train.peer_sockets import make_room_for_peers
from train.world import World


@pytest.mark.parametrize(
    ("ranks", "before", "after"),
    [
        (768, (1024, 16384), (16384, 16384)),
        (768, (1024, 2048), (2048, 2048)),
        (8, (1024, 16384), (1024, 16384)),
        (8, (256, 16384), (16384, 16384)),
        (768, (4096, 16384), (4096, 16384)),
    ],
)
def test_the_limit_is_raised_where_the_ranks_need_it(
    ranks: int, before: tuple[int, int], after: tuple[int, int]
) -> None:
    def work() -> None:
        limit_open_files(*before)
        make_room_for_peers(World(5, 5, ranks))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == after

    assert run_forked(work) == 0


def test_a_limit_that_cannot_do_is_named_with_what_to_type() -> None:
    def work() -> None:
        limit_open_files(512, 700)
        with pytest.raises(RankError, match=r"rank 5 .* 768 ranks .* 700 files .* ulimit -n 3584"):
            make_room_for_peers(World(5, 5, 768))

    assert run_forked(work) == 0
