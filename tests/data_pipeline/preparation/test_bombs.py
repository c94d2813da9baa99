"""Archives of a few KiB that unpack to gigabytes: they are read in bounded memory, and refused or passed over."""

import gzip
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from tests.helpers.places import ROOT

MIB = 2**20
GOOD = b'{"text": "a good record"}\n'
# Reads a corpus in a process of its own and prints how many documents it has, how many records were passed over, and the
# memory that reading took: the peak of this process, less the one before. All that bounds it is smaller than in earnest,
# and so are the archives: records and parts of 1 MiB, and what of an archive is unpacked at once 2 MiB.
_READ = f"""
import re, sys
from pathlib import Path
from data_pipeline.preparation import archives, inputs, lines, zstd_reader
from data_pipeline.preparation.documents import Skipped

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

for owner in (archives, lines):
    owner.LONGEST_RECORD = {MIB}
inputs.PART_BYTES, zstd_reader._PIECE_BYTES = {MIB}, 64
skipped = Skipped()
warm = list(inputs.read_documents(sys.argv[1], ["text"], on_error=skipped))
before, skipped.count = peak(), 0
num_documents = sum(1 for _ in inputs.read_documents(sys.argv[2], ["text"], on_error=skipped))
print(num_documents, skipped.count, (peak() - before) // 1024)
"""


def pack(path: Path, pieces: Iterator[bytes]) -> Path:
    """Write an archive without holding what it unpacks to."""
    if path.suffix == ".gz":
        with gzip.open(path, "wb", compresslevel=1) as file:
            for piece in pieces:
                file.write(piece)
    else:
        with path.open("wb") as target, zstandard.ZstdCompressor().stream_writer(target) as file:
            for piece in pieces:
                file.write(piece)
    return path


def one_line(num_mib: int) -> Iterator[bytes]:
    """A good record, a line of so many MiB, another good record."""
    yield GOOD
    for _ in range(num_mib):
        yield b"a" * MIB
    yield b"\n" + GOOD


def many_lines(num_mib: int) -> Iterator[bytes]:
    """So many MiB of blank lines between good records."""
    yield GOOD
    for _ in range(num_mib):
        yield (b" " * 1023 + b"\n") * 1024
    yield GOOD


def read(path: Path) -> tuple[int, int, int]:
    """Documents, records passed over and MiB of memory that reading an archive takes."""
    small = pack(path.with_name(f"small.{path.name.partition('.')[2]}"), iter([GOOD]))
    words = [sys.executable, "-c", _READ, str(small), str(path)]
    outcome = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert outcome.returncode == 0, outcome.stderr
    num_documents, num_skipped, num_mib = map(int, outcome.stdout.split())
    return num_documents, num_skipped, num_mib


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_record_of_a_line_without_end_is_passed_over_in_bounded_memory(
    ending: str, tmp_path: Path
):
    path = pack(tmp_path / f"bomb.jsonl.{ending}", one_line(128))
    assert path.stat().st_size < MIB
    num_documents, num_skipped, num_mib = read(path)
    assert (num_documents, num_skipped) == (2, 1)
    assert num_mib < 24


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_plain_text_of_a_line_without_end_is_read_in_bounded_memory(ending: str, tmp_path: Path):
    path = pack(tmp_path / f"bomb.txt.{ending}", one_line(32))
    num_documents, num_skipped, num_mib = read(path)
    assert num_documents >= 32 * MIB // 8000 and num_skipped == 0
    assert num_mib < 24


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["gz", "zst"])
@pytest.mark.parametrize("content", [one_line, many_lines])
def test_prepare_unpacks_more_than_it_may_hold(content, ending: str, tmp_path: Path):
    path = pack(tmp_path / f"bomb.jsonl.{ending}", content(1024))
    words = [sys.executable, "-m", "data_pipeline", "prepare", str(path), "--output"]
    words += [str(tmp_path / "out"), "--tokenizer", "bytes", "--workers", "1"]
    words += ["--valid-fraction", "0"]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (640 * MIB, 640 * MIB))

    def prepare(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*words, *more],
            cwd=ROOT,
            preexec_fn=limited,
            capture_output=True,
            text=True,
            timeout=300,
        )

    outcome = prepare()
    assert "Traceback" not in outcome.stderr
    if content is one_line:
        assert outcome.returncode == 2
        assert f"{path}:2: a line of more than 64 MiB" in outcome.stderr
        outcome = prepare("--on-error", "skip")
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads((tmp_path / "out.json").read_text())["num_documents"] == 2
