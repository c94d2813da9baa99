"""Random numbers depend on their purpose alone."""

from enum import IntEnum

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.rng import key_for, rng_for


def test_same_path_gives_the_same_numbers_again():
    first, second = (rng_for(1, "sample", "text", 2, 3).random(5) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_numbers_are_those_of_every_version():
    # Pinned: another hash or generator would change the samples to come of every unfinished run.
    assert key_for(1234, "sample", "text", 0, 7) == 296504856931512160351713615901349368904
    assert rng_for(1234, "sample", "text", 0, 7).integers(1000, size=4).tolist() == [
        851,
        965,
        118,
        246,
    ]


@given(
    st.integers(0, 2**63),
    st.lists(st.one_of(st.integers(0, 99), st.text("ab", max_size=3)), max_size=4),
)
def test_another_seed_or_path_gives_another_key(seed: int, path: list[int | str]):
    key = key_for(seed, *path)
    assert key != key_for(seed + 1, *path)
    assert key != key_for(seed, *path, 0)
    assert key != key_for(seed, *path, "")


def test_words_of_a_path_are_kept_apart():
    assert key_for(1, "ab", "c") != key_for(1, "a", "bc")
    assert key_for(1, "1") != key_for(1, 1)


class Numbered(IntEnum):
    TWO = 2


def test_integers_of_any_type_are_the_same_key():
    assert key_for(1, Numbered.TWO, np.int64(3)) == key_for(np.int32(1), 2, 3)


def test_global_generator_is_neither_read_nor_moved():
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    first = rng_for(1, "x").random()
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(1)
    assert rng_for(1, "x").random() == first
