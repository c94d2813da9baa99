"""Corpora made by Megatron train as they are, and damaged ones end with one message: `python -m train` and `verify`."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from data_pipeline.__main__ import cli as data_command
from tests.helpers.distributed import Ranks
from tests.helpers.texts import sentences
from tests.helpers.tiny import TEXT_RUN
from tests.helpers.whole_runs import compared, metrics

EOS = 260
SMALL = (*TEXT_RUN, "optim.total_samples=32", "eval.num_samples=4")
TEXTS = sentences(250)


def write_with_megatron(prefix: Path, texts: Sequence[str], dtype: type[np.integer]) -> str:
    """Documents of several sequences, as Megatron's --split-sentences makes them; every seventh document is empty."""
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for number, text in enumerate(texts):
        ids = list(text.encode())
        middle = len(ids) // 3
        for sentence in (ids[:middle], ids[middle:], [EOS]):
            builder.add_item(torch.tensor(sentence))
        builder.end_document()
        if number % 7 == 0:
            builder.end_document()
    builder.finalize(f"{prefix}.idx")
    return str(prefix)


def _train(rank: int, world_size: int, overrides: tuple[str, ...], folder: str) -> None:
    from train.main import cli

    for stream, name in ((1, "out"), (2, "err")):
        file = os.open(f"{folder}/{name}-{rank}.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, stream)
    os._exit(cli(list(overrides)))


def train(folder: Path, *overrides: str, world_size: int = 1) -> tuple[list[int | None], str]:
    """`python -m train` below `folder`; exit codes and what all ranks wrote to stderr."""
    folder.mkdir(exist_ok=True)
    words = (*SMALL, f"run.dir={folder / 'run'}", f"data.cache_dir={folder / 'cache'}", *overrides)
    ranks = Ranks(_train, world_size, words, str(folder))
    try:
        codes = ranks.wait(120)
    finally:
        ranks.kill_all()
    return codes, "".join(path.read_text() for path in sorted(folder.glob("err-*.txt")))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The texts as shards of our own."""
    folder = tmp_path_factory.mktemp("ours")
    lines = (json.dumps({"text": text}) + "\n" for text in TEXTS)
    (folder / "texts.jsonl").write_text("".join(lines))
    words = ["prepare", folder / "texts.jsonl", "--output", folder / "corpus"]
    assert data_command([*map(str, words), "--tokenizer", "bytes", "--valid-fraction", "0"]) == 0
    return folder / "corpus"


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> str:
    prefix = tmp_path_factory.mktemp("valid") / "held-out"
    return write_with_megatron(prefix, sentences(60, seed=1), np.uint16)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_corpus_of_megatrons_trains_as_the_same_text_prepared_here(
    dtype: type[np.integer], ours: Path, valid: str, tmp_path: Path
):
    theirs = write_with_megatron(tmp_path / "corpus", TEXTS, dtype)
    runs = []
    for name, prefix in (("theirs", theirs), ("ours", str(ours))):
        words = (f"data.paths=[{prefix}]", f"data.valid_paths=[{valid}]")
        assert train(tmp_path / name, *words) == ([0], "")
        runs.append(compared(tmp_path / name / "run"))
    assert len(runs[0]) == 4
    assert runs[0] == runs[1]


def test_corpus_of_megatrons_needs_nothing_but_its_tokenizer(tmp_path: Path):
    prefix = write_with_megatron(tmp_path / "corpus", TEXTS, np.uint16)
    assert train(tmp_path / "a", f"data.paths=[{prefix}]") == ([0], "")
    assert metrics(tmp_path / "a" / "run")[-1]["valid/loss"] is not None
    code, said = train(tmp_path / "b", f"data.paths=[{prefix}]", "data.tokenizer=null")
    assert code == [2]
    assert said == (
        f"{prefix} is a plain Megatron corpus: its tokenizer is not known. Name it: data.tokenizer=hf:FILE.\n"
    )


def test_megatron_reads_our_shards_equal(ours: Path):
    read = IndexedDataset(str(ours))
    assert [read[number].tolist() for number in range(len(read))] == [
        [*text.encode(), EOS] for text in TEXTS
    ]
    assert read.document_indices.tolist() == list(range(len(TEXTS) + 1))
    assert read.sequence_lengths.tolist() == [len(text.encode()) + 1 for text in TEXTS]


def test_megatron_joins_our_shards_with_its_own(ours: Path, tmp_path: Path):
    theirs = write_with_megatron(tmp_path / "theirs", TEXTS[:3], np.uint16)
    builder = IndexedDatasetBuilder(str(tmp_path / "both.bin"), dtype=np.uint16)
    builder.add_index(str(ours))
    builder.add_index(theirs)
    builder.finalize(str(tmp_path / "both.idx"))
    assert train(tmp_path / "run", f"data.paths=[{tmp_path / 'both'}]") == ([0], "")
    assert data_command(["verify", str(tmp_path / "both"), "--vocab-size", "262"]) == 0


def copied(prefix: Path, folder: Path) -> Path:
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        if path.is_file():
            shutil.copy(path, folder / path.name)
    return folder / prefix.name


def truncate(prefix: Path) -> str:
    size = Path(f"{prefix}.bin").stat().st_size
    os.truncate(f"{prefix}.bin", size - 3)
    return f"{prefix}.bin has {size - 3:,} bytes, but {prefix}.idx describes {size:,}."


def flip(prefix: Path) -> str:
    content = bytearray(Path(f"{prefix}.bin").read_bytes())
    content[5000] ^= 1
    Path(f"{prefix}.bin").write_bytes(content)
    return f"{prefix}.bin is damaged in bytes 0 to {len(content):,}."


def exchange_index(prefix: Path) -> str:
    other = write_with_megatron(prefix.parent / "other", TEXTS[:9], np.uint16)
    shutil.copy(f"{other}.idx", f"{prefix}.idx")
    size, expected = (Path(f"{path}.bin").stat().st_size for path in (prefix, other))
    return f"{prefix}.bin has {size:,} bytes, but {prefix}.idx describes {expected:,}."


def break_index(prefix: Path) -> str:
    os.truncate(f"{prefix}.idx", Path(f"{prefix}.idx").stat().st_size // 2)
    return f"{prefix}.idx has "


def leave_out_index(prefix: Path) -> str:
    os.unlink(f"{prefix}.bin")
    return f"{prefix}.bin does not exist."


def plant_id(prefix: Path) -> str:
    """Every 2000th token: no rank can avoid one for long."""
    tokens = np.memmap(f"{prefix}.bin", dtype=np.uint16, mode="r+")
    tokens[1000::2000] = 262
    tokens.flush()
    os.unlink(f"{prefix}.json")  # as a corpus of Megatron's, which has no checksums
    return f"{prefix}.bin has token id 262 at token "


DAMAGES = [truncate, exchange_index, break_index, leave_out_index, plant_id]


@pytest.mark.parametrize("damage", DAMAGES)
def test_training_on_damaged_shards_ends_with_one_message(
    damage, ours: Path, valid: str, tmp_path: Path
):
    prefix = copied(ours, tmp_path)
    message = damage(prefix)
    code, said = train(tmp_path / "r", f"data.paths=[{prefix}]", f"data.valid_paths=[{valid}]")
    assert code == [2]
    assert said.startswith(message)
    assert said.count("\n") == 1


@pytest.mark.parametrize("damage", [flip, *DAMAGES])
def test_verify_names_the_damage(damage, ours: Path, tmp_path: Path, capsys):
    prefix = copied(ours, tmp_path)
    message = damage(prefix)
    assert data_command(["verify", str(prefix), "--vocab-size", "262"]) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith(message)


def test_rank_that_reads_an_unknown_id_reports_it_and_no_other_waits(
    ours: Path, valid: str, tmp_path: Path
):
    prefix = copied(ours, tmp_path)
    message = plant_id(prefix)
    words = (f"data.paths=[{prefix}]", f"data.valid_paths=[{valid}]")
    codes, said = train(tmp_path / "r", *words, world_size=2)
    assert set(codes) <= {2, 3}
    assert 2 in codes
    assert message in said
    assert "Traceback" not in said


def test_documents_without_tokens_are_no_matter(valid: str, tmp_path: Path):
    builder = IndexedDatasetBuilder(str(tmp_path / "c.bin"), dtype=np.uint16)
    for text in ["", "", *TEXTS[:80], "", ""]:
        builder.add_item(torch.tensor(list(text.encode()), dtype=torch.int64))
        builder.end_document()
    builder.finalize(str(tmp_path / "c.idx"))
    assert train(tmp_path / "r", f"data.paths=[{tmp_path / 'c'}]") == ([0], "")
    assert data_command(["show", str(tmp_path / "c"), "data.tokenizer=bytes"]) == 0


def _train_while_data_change(
    rank: int, world_size: int, overrides: tuple[str, ...], folder: str
) -> None:
    """As `_train`, but a byte of the corpus is changed in place in the third step."""
    from train.engine.pipeline import PipelineEngine

    original, steps = PipelineEngine.train_step, 0

    def train_step(self: PipelineEngine, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 3:
            with open(f"{folder}/corpus.bin", "r+b") as file:
                file.write(b"\xff")
        return original(self, *arguments)

    PipelineEngine.train_step = train_step
    _train(rank, world_size, overrides, folder)


def test_a_shard_that_is_changed_while_it_is_trained_on_ends_the_run_before_a_save(
    ours: Path, valid: str, tmp_path: Path
):
    for ending in ("bin", "idx", "json"):
        shutil.copyfile(f"{ours}.{ending}", tmp_path / f"corpus.{ending}")
    words = (
        *SMALL,
        f"run.dir={tmp_path / 'run'}",
        f"data.paths={tmp_path / 'corpus'}",
        f"data.valid_paths={valid}",
        "checkpoint.save_every_samples=16",
    )
    ranks = Ranks(_train_while_data_change, 1, words, str(tmp_path))
    try:
        assert ranks.wait(120) == [2]
    finally:
        ranks.kill_all()
    said = (tmp_path / "err-0.txt").read_text()
    assert "Data were changed while they were read" in said and "Traceback" not in said
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*")] == [
        "step_00000002"
    ]
    # As damaged as it is it is refused; restored, also with other times, the run goes on.
    codes, said = train(tmp_path, *words[len(SMALL) + 1 :])
    assert codes == [2] and "no longer has the checksum of its bytes 0 to" in said
    shutil.copyfile(f"{ours}.bin", tmp_path / "corpus.bin")
    assert train(tmp_path, *words[len(SMALL) + 1 :])[0] == [0]
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 3, 4]
