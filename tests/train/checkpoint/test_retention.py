"""Which checkpoints stay."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from configs.run_checkpoints import step_folder, step_of
from train.checkpoint.store import Pins, kept

ROOT = Path("checkpoints")


def at(samples: list[int]) -> dict[Path, int]:
    return {step_folder(ROOT, step): seen for step, seen in enumerate(samples, start=1)}


def steps(folders: set[Path]) -> list[int]:
    return sorted(map(step_of, folders))


def test_the_newest_stay() -> None:
    assert steps(kept(at([10, 20, 30, 40]), keep_last=2, keep_every_samples=None)) == [3, 4]


def test_the_newest_stays_whatever_is_asked() -> None:
    assert steps(kept(at([10, 20]), keep_last=0, keep_every_samples=None)) == [2]


def test_the_first_at_or_after_each_multiple_stays() -> None:
    # Multiples of 100: reached by 100 itself, by 230 (200), by 400; 470 lies in the same interval as 400.
    samples = [90, 100, 170, 230, 260, 400, 470, 480]
    assert steps(kept(at(samples), keep_last=1, keep_every_samples=100)) == [2, 4, 6, 8]


def test_the_one_to_go_back_to_stays() -> None:
    assert steps(kept(at([10, 20, 30, 40]), 1, None, Pins(healthy_step=2))) == [2, 4]
    assert steps(kept(at([10, 20]), 1, None, Pins(healthy_step=9))) == [2]


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=25), st.integers(1, 4), st.integers(1, 100)
)
def test_deleting_as_one_goes_keeps_what_deleting_at_the_end_would(
    lengths: list[int], keep_last: int, every: int
) -> None:
    everything: dict[Path, int] = {}
    present: dict[Path, int] = {}
    seen = 0
    for step, length in enumerate(lengths, start=1):
        seen += length
        everything[step_folder(ROOT, step)] = present[step_folder(ROOT, step)] = seen
        keep = kept(present, keep_last, every)
        present = {folder: samples for folder, samples in present.items() if folder in keep}
    assert set(present) == kept(everything, keep_last, every)
