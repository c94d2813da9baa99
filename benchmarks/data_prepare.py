"""Preparing text:  python -m benchmarks.data_prepare

Throughput of `python -m data_pipeline prepare` beside the bare tokenizers library on the same text with all cores, in
turns, so that both meet the same machine; and the peak memory of all its processes for an input and for one twenty
times as large. The text is Python's documentation, repeated with its words exchanged.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import tokenizers

from data_pipeline.preparation.python_docs import python_docs
from data_pipeline.preparation.train_tokenizer import train_tokenizer

UNIT_BYTES = 16_000_000
SPEED_UNITS, MEMORY_UNITS = 12, (2, 40)
ROUNDS = 3
VOCAB_SIZE = 32_000
# Documents that the library is given at once: enough for all cores.
BATCH = 1000
# Share of words that a repetition exchanges for others of the same text.
EXCHANGED = 0.1


def run() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        train_tokenizer(python_docs(), work / "tokenizer.json", VOCAB_SIZE)
        sizes = {
            units: _write(work / f"{units}.jsonl", units * UNIT_BYTES)
            for units in (SPEED_UNITS, *MEMORY_UNITS)
        }
        _compare_speed(work, sizes[SPEED_UNITS])
        for units in MEMORY_UNITS:
            made = _prepare(work, units)
            allowed = 1024 + 200 * (made.processes - 1)
            print(
                f"{sizes[units] / 1e6:.0f} MB of text: peak RSS {made.rss:.0f} MiB, PSS {made.pss:.0f} MiB, summed "
                f"over {made.processes} processes (allowed: {allowed} MiB); "
                f"{sizes[units] / made.seconds / 1e6:.2f} MB/s"
            )


def _compare_speed(work: Path, size: int) -> None:
    ratios: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        bare, bare_cpu = _bare_speed(work / f"{SPEED_UNITS}.jsonl", work / "tokenizer.json")
        made = _prepare(work, SPEED_UNITS)
        speed, cpu_speed = size / made.seconds / 1e6, size / made.cpu_seconds / 1e6
        ratios.append((speed / bare, cpu_speed / bare_cpu))
        print(
            f"round {number + 1}: library {bare:.2f} MB/s ({bare_cpu:.2f} a CPU second), "
            f"prepare {speed:.2f} MB/s ({cpu_speed:.2f} a CPU second)"
        )
    wall, cpu = (statistics.median(values) for values in zip(*ratios, strict=True))
    print(f"prepare / library: {wall:.2f} in time, {cpu:.2f} in CPU time (medians; wanted: 0.85)")


@dataclass(frozen=True)
class _Made:
    """What a preparation took: start of the process to its end, memory in MiB."""

    seconds: float
    cpu_seconds: float
    rss: float
    pss: float
    processes: int


def _write(path: Path, size: int) -> int:
    """Write a .jsonl of at least `size` bytes of text; returns the bytes of text."""
    written = 0
    with path.open("w") as file:
        for text in _varied():
            if written >= size:
                return written
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            written += len(text.encode())
    raise AssertionError("the text has no end")


def _varied() -> Iterator[str]:
    """The documents again and again, with some of their words exchanged: no two repetitions are the same."""
    documents = [text.split(" ") for text in python_docs()]
    rng = np.random.default_rng(0)
    words = np.array([word for document in documents for word in document], dtype=object)
    while True:
        for document in documents:
            varied = np.array(document, dtype=object)
            places = np.flatnonzero(rng.random(len(varied)) < EXCHANGED)
            varied[places] = words[rng.integers(0, len(words), len(places))]
            yield " ".join(varied)


def _bare_speed(path: Path, tokenizer_file: Path) -> tuple[float, float]:
    """MB a second and a CPU second of the library's fastest batch call; reading is not counted."""
    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_file))
    seconds = cpu_seconds = 0.0
    done = 0
    with path.open() as file:
        while texts := [json.loads(line)["text"] for line in islice(file, BATCH)]:
            began, cpu_began = time.perf_counter(), time.process_time()
            tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            seconds += time.perf_counter() - began
            cpu_seconds += time.process_time() - cpu_began
            done += sum(len(text.encode()) for text in texts)
    return done / seconds / 1e6, done / cpu_seconds / 1e6


def _prepare(work: Path, units: int) -> _Made:
    """Run the command as typed, looking at its processes ten times a second."""
    command = [
        *(sys.executable, "-m", "data_pipeline", "prepare", str(work / f"{units}.jsonl")),
        *("--output", str(work / "made" / "a"), "--tokenizer", f"hf:{work / 'tokenizer.json'}"),
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak_rss = peak_pss = 0.0
    processes = 1
    while process.poll() is None:
        everyone = [process.pid, *_children(process.pid)]
        used = [_memory(pid) for pid in everyone]
        peak_rss = max(peak_rss, sum(rss for rss, _ in used))
        peak_pss = max(peak_pss, sum(pss for _, pss in used))
        processes = max(processes, len(everyone))
        time.sleep(0.1)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"prepare ended with exit code {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _Made(seconds, cpu_seconds, peak_rss, peak_pss, processes)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _memory(pid: int) -> tuple[float, float]:
    """RSS and PSS of a process in MiB; zeros if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    values = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
    return values["Rss:"] / 1024, values["Pss:"] / 1024


if __name__ == "__main__":
    run()
