"""Opening a trillion tokens:  python -m benchmarks.data_open

A mixture of ten corpora with 10^9 documents and 10^12 tokens together is simulated by sparse files with real headers, of
which only what is read exists. Each measurement is a process of its own: seconds from opening the shards to the first
batch, memory, bytes read, and the time of random samples, beside a corpus of 1000 documents. Imports are not counted.
"""

import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np

from configs.schema import ObjectiveConfig
from data_pipeline.batch import collate
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.mixing.mixture import Stage
from data_pipeline.special_tokens import SpecialTokens
from data_pipeline.storage.shard_part import ShardPart
from data_pipeline.storage.shards import BLOCK_BYTES, FORMAT_VERSION, ShardInfo, open_stream

NUM_DOCUMENTS = 10**9
TOKENS_PER_DOCUMENT = 1000
SHARES = (0.3, 0.2, 0.12, 0.1, 0.08, 0.07, 0.05, 0.04, 0.03, 0.01)
VOCAB_SIZE = 60_000
SEQ_LENGTH = 2048
BATCH = 16
NUM_RANDOM = 2000
REPEATS = 3
SPECIAL = SpecialTokens(mask=1, gmask=2, sop=3, eop=4, eos=5, pad=0)


def run() -> None:
    """Print the figures."""
    results: dict[str, list[dict[str, float]]] = {"large": [], "small": []}
    with tempfile.TemporaryDirectory() as folder:
        for name, documents in (("large", NUM_DOCUMENTS), ("small", 1000)):
            (Path(folder) / name).mkdir()
            for number, share in enumerate(SHARES):
                write_sparse(Path(folder) / name / f"corpus{number}", round(documents * share))
        for _ in range(REPEATS):  # in turn, so that a busy moment meets both
            for name, found in results.items():
                found.append(_measured_apart(Path(folder) / name))
    rows = {
        name: {key: median(result[key] for result in found) for key in found[0]}
        for name, found in results.items()
    }
    difference = rows["large"]["random_microseconds"] - rows["small"]["random_microseconds"]
    _say(f"{'':28}{NUM_DOCUMENTS:>18,} documents{1000:>18,} documents")
    for key in rows["large"]:
        _say(f"{key:28}{rows['large'][key]:>28,.3f}{rows['small'][key]:>28,.3f}")
    _say(f"A random sample of the large mixture costs {difference:+.1f} microseconds more.")


def measure(folder: Path) -> dict[str, float]:
    """Open all shards of a folder, build a batch, then random samples: this process's figures."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read_before = _bytes_read()
    started = time.perf_counter()
    sources = open_sources(folder)
    stages = [Stage(0, SHARES), Stage(50_000, tuple(reversed(SHARES)))]
    dataset = GLMDataset(sources, SPECIAL, ObjectiveConfig(), SEQ_LENGTH, 1, stages=stages)
    opened = time.perf_counter()
    collate([dataset[index] for index in range(BATCH)])
    first_batch = time.perf_counter()
    read = _bytes_read() - read_before
    dataset.describe()
    described = time.perf_counter()
    by_size = GLMDataset(sources, SPECIAL, ObjectiveConfig(), SEQ_LENGTH, 1)
    collate([by_size[index] for index in range(BATCH)])
    drawn_by_size = time.perf_counter()
    largest = dataset.rows_per_epoch
    rng = np.random.default_rng(0)
    indices = rng.integers(largest, size=NUM_RANDOM).tolist()
    locating = time.perf_counter()
    for index in indices:
        dataset.locate(index)
    located = time.perf_counter()
    for index in indices:
        dataset[index]
    built = time.perf_counter()
    return {
        "open_seconds": opened - started,
        "first_batch_seconds": first_batch - started,
        "describe_seconds": described - first_batch,
        "first_batch_by_size_seconds": opened - started + drawn_by_size - described,
        "read_mib_to_first_batch": read / 2**20,
        "random_locate_microseconds": (located - locating) / NUM_RANDOM * 1e6,
        "random_microseconds": (built - located) / NUM_RANDOM * 1e6,
        "memory_of_imports_mib": before / 2**10,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
    }


def open_sources(folder: Path) -> list[Source]:
    """Open every shard of a folder."""
    return [
        Source(path.stem, ShardPart(open_stream(str(path.with_suffix(""))), VOCAB_SIZE))
        for path in sorted(folder.glob("*.idx"))
    ]


def write_sparse(prefix: Path, documents: int) -> None:
    """Write a shard of documents of equal length whose .bin and .idx are holes but for what opening reads."""
    tokens = documents * TOKENS_PER_DOCUMENT
    lengths, pointers, borders = 34, 34 + 4 * documents, 34 + 12 * documents
    with open(f"{prefix}.bin", "wb") as file:
        file.truncate(2 * tokens)
    with open(f"{prefix}.idx", "wb") as file:
        # Magic, version 1, uint16 tokens, sequences, document borders.
        file.write(struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, documents, documents + 1))
        last = documents - 1
        for offset, form, value in (
            (lengths + 4 * last, "<i", TOKENS_PER_DOCUMENT),
            (pointers + 8 * last, "<q", 2 * TOKENS_PER_DOCUMENT * last),
            (borders + 8 * documents, "<q", documents),
        ):
            file.seek(offset)
            file.write(struct.pack(form, value))
    info = ShardInfo(
        format_version=FORMAT_VERSION,
        sources=["sparse"],
        tokenizer="bytes",
        tokenizer_fingerprint="none",
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL.to_dict(),
        num_documents=documents,
        num_tokens=tokens,
        block_bytes=BLOCK_BYTES,
        block_crc32=[0xFFFFFFFF] * -(-2 * tokens // BLOCK_BYTES),
        index_crc32=0,
    )
    Path(f"{prefix}.json").write_text(json.dumps(asdict(info)))


def _measured_apart(folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.data_open", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def _bytes_read() -> int:
    """What this process has asked the kernel to read."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def _say(text: str) -> None:
    sys.stdout.write(text + os.linesep)


if __name__ == "__main__":
    if sys.argv[1:]:  # one process of the measurement
        _say(json.dumps(measure(Path(sys.argv[1]))))
    else:
        run()
