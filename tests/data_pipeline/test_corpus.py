"""From `data.paths` to shards: made once, found again, and every mistake reported with what to type."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig
from data_pipeline import corpus
from data_pipeline.corpus import Corpora, ensure_prepared
from data_pipeline.preparation import python_docs
from data_pipeline.preparation.make_part import place
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.train_tokenizer import train_tokenizer
from data_pipeline.storage.shards import open_stream
from data_pipeline.tokenizer import keep_tokenizer, kept_tokenizer, load_tokenizer
from tests.helpers.killing import KilledAtCall, run_forked
from tests.helpers.places import ROOT
from tests.helpers.texts import sentences, shard_bytes

VOCAB_SIZE = 300


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences(60)))
    return path


def config(tmp_path: Path, *paths: object, **options: object) -> DataConfig:
    cache = str(tmp_path / "cache")
    return DataConfig(paths=[str(path) for path in paths], cache_dir=cache, **options)


def ensure(data: DataConfig, said: list[str] | None = None) -> Corpora:
    return ensure_prepared(data, VOCAB_SIZE, ([] if said is None else said).append)


def texts_of(prefix: str, tokenizer: str) -> list[str]:
    stream = open_stream(prefix)
    text = load_tokenizer(tokenizer).decode(stream.read(0, len(stream)).tolist())
    return text.split("<eos>")[:-1]


def own_shards(folder: Path, valid_fraction: float = 0.1) -> str:
    train_tokenizer(sentences(60), folder / "tokenizer.json", VOCAB_SIZE)
    tokenizer = load_tokenizer(f"hf:{folder / 'tokenizer.json'}")
    jsonl = folder / "own.jsonl"
    jsonl.write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences(60)))
    prepare([str(jsonl)], folder / "own", tokenizer, valid_fraction)
    return str(folder / "own")


def silent(_: str) -> None:
    pass


def bytes_shards(folder: Path) -> str:
    text = folder / "b.txt"
    text.write_text("".join(f"{text}\n\n" for text in sentences(60)))
    prepare([str(text)], folder / "b", load_tokenizer("bytes"), 0.1)
    return str(folder / "b")


def megatron_shards(prefix: Path) -> str:
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    for text in sentences(20):
        builder.add_item(torch.tensor([*text.encode(), 260]))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")
    return str(prefix)


def test_corpus_is_prepared_once_and_says_where_it_is_kept(jsonl: Path, tmp_path: Path):
    said: list[str] = []
    data = config(tmp_path, jsonl)
    made = ensure(data, said)
    cache = tmp_path / "cache"
    assert len(said) == 2
    assert said[0].startswith(
        f"Training a tokenizer of 300 tokens on {jsonl}; it is kept in {cache}"
    )
    assert said[1].startswith(f"Preparing {jsonl}; its token shards are kept in {cache}/corpus-")
    (train,), (valid,) = made.train, made.valid
    assert train.name == valid.name == "corpus.jsonl"
    kept = texts_of(train.prefix, made.tokenizer) + texts_of(valid.prefix, made.tokenizer)
    assert sorted(kept) == sorted(sentences(60))
    assert ensure(data, said) == made
    assert len(said) == 2


def test_shards_are_made_again_when_anything_that_they_depend_on_changes(
    jsonl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    prefixes = {ensure(config(tmp_path, jsonl)).train[0].prefix}
    prefixes.add(ensure(config(tmp_path, jsonl, valid_fraction=0.2)).train[0].prefix)
    prefixes.add(ensure(config(tmp_path, jsonl, tokenizer="bytes")).train[0].prefix)
    prefixes.add(ensure_prepared(config(tmp_path, jsonl), 310, lambda _: None).train[0].prefix)
    assert len(prefixes) == 4
    os.utime(jsonl, (1, 1))
    prefixes.add(ensure(config(tmp_path, jsonl)).train[0].prefix)
    jsonl.write_text(jsonl.read_text().replace("text", "body"))
    prefixes.add(ensure(config(tmp_path, jsonl, text_key="body")).train[0].prefix)
    assert len(prefixes) == 6
    monkeypatch.setattr(corpus, "_FORMAT_VERSION", 999)
    prefixes.add(ensure(config(tmp_path, jsonl, text_key="body")).train[0].prefix)
    assert len(prefixes) == 7


def test_same_files_give_the_same_fingerprints_elsewhere(jsonl: Path, tmp_path: Path):
    one = ensure(config(tmp_path / "one", jsonl))
    two = ensure(config(tmp_path / "two", jsonl))
    for first, second in zip([*one.train, *one.valid], [*two.train, *two.valid], strict=True):
        assert first.prefix != second.prefix
        assert open_stream(first.prefix).fingerprint == open_stream(second.prefix).fingerprint


def test_prepared_shards_can_be_named_as_a_corpus(jsonl: Path, tmp_path: Path):
    first = ensure(config(tmp_path, jsonl))
    again = ensure(config(tmp_path, first.train[0].prefix))
    assert again.train[0].prefix == first.train[0].prefix
    assert again.valid[0].prefix == first.valid[0].prefix
    fingerprints = {load_tokenizer(made.tokenizer).fingerprint for made in (first, again)}
    assert len(fingerprints) == 1


def test_own_shards_are_used_as_they_are_with_their_tokenizer(tmp_path: Path):
    prefix = own_shards(tmp_path)
    made = ensure(config(tmp_path, prefix))
    assert made.train[0].prefix == prefix
    assert made.valid[0].prefix == f"{prefix}.valid"
    assert made.tokenizer == f"hf:{tmp_path}/own.tokenizer/tokenizer.json"
    assert not (tmp_path / "cache").exists()


def test_moved_shards_bring_their_tokenizer(tmp_path: Path):
    (tmp_path / "old").mkdir()
    own_shards(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    made = ensure(config(tmp_path, tmp_path / "new" / "own"))
    assert texts_of(made.train[0].prefix, made.tokenizer)[0] in sentences(60)


def test_several_corpora_keep_their_weights_and_get_unique_names(jsonl: Path, tmp_path: Path):
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / "corpus.jsonl"
    other.write_text("".join(json.dumps({"text": t}) + "\n" for t in sentences(30, seed=5)))
    made = ensure(config(tmp_path, jsonl, other, weights=[3.0, 1.0]))
    assert [(shard.name, shard.weight) for shard in made.train] == [
        ("corpus.jsonl", 3.0),
        ("corpus.jsonl-2", 1.0),
    ]
    assert [shard.name for shard in made.valid] == ["corpus.jsonl", "corpus.jsonl-2"]


def test_nothing_is_held_out_beside_a_validation_corpus(jsonl: Path, tmp_path: Path):
    other = tmp_path / "valid.txt"
    other.write_text("a whole text that is only for validation\n")
    made = ensure(config(tmp_path, jsonl, valid_paths=[str(other)]))
    assert texts_of(made.train[0].prefix, made.tokenizer) == sentences(60)
    assert [shard.name for shard in made.valid] == ["valid.txt"]
    held_out = texts_of(made.valid[0].prefix, made.tokenizer)
    assert held_out == ["a whole text that is only for validation"]


def test_megatron_corpus_is_used_with_a_named_tokenizer(tmp_path: Path):
    prefix = megatron_shards(tmp_path / "m")
    with pytest.raises(DataError, match="plain Megatron corpus.*data.tokenizer=hf:FILE"):
        ensure(config(tmp_path, prefix, valid_paths=[prefix]))
    made = ensure(config(tmp_path, prefix, valid_paths=[prefix], tokenizer="bytes"))
    assert texts_of(made.train[0].prefix, made.tokenizer) == sentences(20)


def test_shards_without_held_out_ones_ask_for_a_validation_corpus(tmp_path: Path):
    prefix = own_shards(tmp_path, valid_fraction=0.0)
    with pytest.raises(DataError, match=r"data.valid_paths=\[PREFIX_OR_FILE\]"):
        ensure(config(tmp_path, prefix))


def test_last_documents_of_a_megatron_corpus_are_held_out(tmp_path: Path):
    prefix = megatron_shards(tmp_path / "plain")
    said: list[str] = []
    made = ensure(config(tmp_path, prefix, tokenizer="bytes", valid_fraction=0.2), said)
    (train,), (valid,) = made.train, made.valid
    assert train.prefix == valid.prefix == prefix
    assert train.documents is not None
    assert valid.documents == (train.documents[1], 20)
    assert said == [f"{prefix}: documents {train.documents[1]} to 19, its last, are held out"]
    with pytest.raises(DataError, match="data.valid_fraction=0.05"):
        ensure(config(tmp_path, prefix, tokenizer="bytes", valid_fraction=0.0))


def test_text_of_which_nothing_is_held_out_asks_for_a_validation_corpus(
    jsonl: Path, tmp_path: Path
):
    with pytest.raises(DataError, match="data.valid_fraction=0.05"):
        ensure(config(tmp_path, jsonl, valid_fraction=0.0))


def test_shards_of_another_tokenizer_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="made with the tokenizer hf:.*, not bytes"):
        ensure(config(tmp_path, own_shards(tmp_path), tokenizer="bytes"))


def test_tokenizer_larger_than_the_model_says_what_fits(jsonl: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="Try model.vocab_size=262"):
        ensure_prepared(config(tmp_path, jsonl, tokenizer="bytes"), 256, lambda _: None)


def test_last_path_is_checked_before_work_on_the_first(jsonl: Path, tmp_path: Path):
    said: list[str] = []
    with pytest.raises(DataError, match="gone.txt does not exist"):
        ensure(config(tmp_path, jsonl, tmp_path / "gone.txt"), said)
    assert said == []


@pytest.mark.parametrize("content", ["", "\n\n", '{"text": ""}\n{"text": " "}\n'])
def test_empty_corpus_is_refused_and_nothing_is_kept(content: str, tmp_path: Path):
    path = tmp_path / "empty.jsonl"
    path.write_text(content)
    for tokenizer in (None, "bytes"):
        with pytest.raises(DataError, match="no text"):
            ensure(config(tmp_path, path, tokenizer=tokenizer))
    left = [item.name for item in (tmp_path / "cache").iterdir()]
    assert all(name.endswith(".lock") for name in left)


def test_killed_at_any_moment_the_same_call_prepares_the_same(tmp_path: Path):
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"{text}\n\n" for text in sentences(120)))
    data = config(tmp_path / "whole", path, tokenizer="bytes")
    wanted = shard_bytes(Path(ensure(data).train[0].prefix))

    def prepare_and_die(killed: DataConfig, moment: int) -> int:
        def work() -> None:
            killer = KilledAtCall(moment)
            for name in ("mkdir", "rename", "write_text"):
                killer.wrap(Path, name)
            killer.wrap(os, "replace")
            ensure(killed)

        return run_forked(work)

    code, moment = -9, 0
    while code == -9:
        moment += 1
        killed = config(tmp_path / str(moment), path, tokenizer="bytes")
        code = prepare_and_die(killed, moment)
        made = ensure(killed)
        assert shard_bytes(Path(made.train[0].prefix)) == wanted
        folders = [item for item in Path(str(killed.cache_dir)).iterdir() if item.is_dir()]
        assert len(folders) == 1
    assert code == 0
    assert moment > 8


def test_tokenizer_of_the_weights_is_taken_whatever_became_of_the_texts(
    jsonl: Path, tmp_path: Path
):
    data = config(tmp_path, jsonl)
    first = ensure(data)
    keep_tokenizer(first.tokenizer, tmp_path / "run" / "tokenizer")
    own = kept_tokenizer(tmp_path / "run")
    added = tmp_path / "added.jsonl"
    added.write_text(json.dumps({"text": "quite other words"}) + "\n" + jsonl.read_text())
    said: list[str] = []
    for paths in ([added, jsonl], [jsonl, added]):
        changed = config(tmp_path, *paths, valid_paths=[str(jsonl)])
        made = ensure_prepared(changed, VOCAB_SIZE, said.append, own=own)
        assert made.tokenizer == own
    assert not any(line.startswith("Training a tokenizer") for line in said)
    with pytest.raises(DataError, match=f"Prepare it again with --tokenizer {own}, which is the r"):
        ensure_prepared(config(tmp_path, bytes_shards(tmp_path)), VOCAB_SIZE, silent, own=own)


@pytest.mark.parametrize("damage", ["tokens.json", "tokens.valid.idx", "tokenizer.json"])
def test_damaged_entries_of_the_cache_are_made_again(damage: str, jsonl: Path, tmp_path: Path):
    data = config(tmp_path, jsonl)
    first = ensure(data)
    (path,) = (tmp_path / "cache").glob(f"*/{damage}")
    whole = path.read_bytes()
    path.write_bytes(b"[")
    said: list[str] = []
    assert ensure(data, said) == first
    assert path.read_bytes() == whole
    assert any("is damaged: it is made again" in line for line in said)


def test_default_corpus_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(python_docs, "python_docs", lambda: iter(sentences(50)))
    made = ensure(DataConfig(cache_dir=str(tmp_path / "cache")))
    assert made.train[0].name == "python-docs"
    kept = [texts_of(shard.prefix, made.tokenizer) for shard in (*made.train, *made.valid)]
    assert sorted(kept[0] + kept[1]) == sorted(sentences(50))


_TRAINS = """
import sys
from configs.schema import DataConfig, ObjectiveConfig
from data_pipeline.corpus import ensure_prepared
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.storage.shards import open_stream
from data_pipeline.tokenizer import keep_tokenizer, kept_tokenizer, load_tokenizer
made = ensure_prepared(DataConfig(paths=[sys.argv[1]]), 4096, print)
sources = [Source(shard.name, open_stream(shard.prefix)) for shard in made.train]
special = load_tokenizer(made.tokenizer).special
GLMDataset(sources, special, ObjectiveConfig(), 64, 1)[0]
print(*(name for name in sys.modules if name in ("datasets", "pyarrow", "torch", "megatron")))
"""


def test_prepared_shards_open_without_heavy_imports(tmp_path: Path):
    prefix = own_shards(tmp_path)
    command = [sys.executable, "-c", _TRAINS, prefix]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "\n"


def test_text_that_one_corpus_holds_out_and_another_trains_on_is_told(tmp_path: Path):
    texts = sentences(2000)
    wanted = sorted(texts, key=place)[len(texts) // 2 :][:3]
    prefixes = []
    for name, held in (("large", texts), ("small", wanted)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in held))
        prepare([str(path)], tmp_path / name, load_tokenizer("bytes"), 0.05)
        prefixes.append(tmp_path / name)
    (held_out,) = texts_of(f"{prefixes[1]}.valid", "bytes")
    assert held_out in texts_of(str(prefixes[0]), "bytes")
    said: list[str] = []
    ensure(config(tmp_path, *prefixes), said)
    assert len(said) == 1 and "large below 0.05, small below 0." in said[0]
    said.clear()
    ensure(config(tmp_path, prefixes[0], prefixes[0]), said)
    assert said == []
