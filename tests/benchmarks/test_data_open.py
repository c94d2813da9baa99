"""A trillion tokens are opened by reading their headers: nothing is scanned, built or held."""

import os
import tracemalloc
from pathlib import Path

import pytest

from benchmarks.data_open import NUM_DOCUMENTS, SHARES, SPECIAL, measure, open_sources, write_sparse
from configs.schema import ObjectiveConfig
from data_pipeline.dataset import GLMDataset


@pytest.fixture(scope="module")
def trillion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trillion")
    for number, share in enumerate(SHARES):
        write_sparse(folder / f"corpus{number}", round(NUM_DOCUMENTS * share))
    return folder


def test_opening_and_a_batch_read_only_headers_and_rows(trillion: Path) -> None:
    sources = open_sources(trillion)
    assert sum(len(source.stream) for source in sources) == 10**12
    # Nearly all of it are the checksums of the .bin's blocks, a few bytes for every 16 MiB.
    assert measure(trillion)["read_mib_to_first_batch"] < 4


def test_opening_and_far_samples_hold_little_memory(trillion: Path) -> None:
    tracemalloc.start()
    dataset = GLMDataset(open_sources(trillion), SPECIAL, ObjectiveConfig(), 2048, 1)
    for epoch in range(3):
        for index in range(0, dataset.rows_per_epoch, dataset.rows_per_epoch // 50):
            dataset[epoch * dataset.rows_per_epoch + index]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One entry of four bytes for each document would be 4 GB, for each row 2 GB.
    assert peak < 50 * 2**20


def test_a_sample_costs_one_read_or_two(trillion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = GLMDataset(open_sources(trillion), SPECIAL, ObjectiveConfig(), 2048, 1)
    pread, reads = os.pread, 0

    def counted(file: int, size: int, offset: int) -> bytes:
        nonlocal reads
        reads += 1
        return pread(file, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    for index in range(0, dataset.rows_per_epoch, dataset.rows_per_epoch // 50):
        reads = 0
        dataset[index]
        # A row that goes on at the front of its source is read in two parts. Looking up a document would be 30 more.
        assert 1 <= reads <= 2
