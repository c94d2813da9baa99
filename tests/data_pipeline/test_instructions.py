"""Instruction records: stored and found again, each once before any twice, and one source of the mixture."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError, DataError
from configs.load import load_config
from configs.schema import MipPacking, ObjectiveConfig
from data_pipeline.__main__ import cli
from data_pipeline.corpus import ensure_prepared
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.instructions import NAME, Instructions, InstructionSet, mean_tokens
from data_pipeline.look.explain import explain
from data_pipeline.look.stats import gather
from data_pipeline.objective import Objective
from data_pipeline.opening import open_dataset
from data_pipeline.storage.shard_part import ShardPart
from data_pipeline.storage.shards import open_stream
from data_pipeline.tokenizer import load_tokenizer
from tests.helpers.shards import write_with_megatron
from tests.helpers.streams import CountingStream

BYTES = load_tokenizer("bytes")
KEYS = ("--prompt-key", "question", "--target-key", "answer")


def write_records(path: Path, number: int) -> Path:
    lines = (
        json.dumps({"question": f"{path.stem} {place}?", "answer": str(place) * (1 + place % 3)})
        for place in range(number)
    )
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def prepared(folder: Path, name: str, number: int) -> InstructionSet:
    records = write_records(folder / f"{name}.jsonl", number)
    words = ["prepare", str(records), "--output", str(folder / name), "--tokenizer", "bytes", *KEYS]
    assert cli([*words, "--valid-fraction", "0"]) == 0
    return opened(folder / name)


def opened(prefix: Path) -> InstructionSet:
    part = ShardPart(open_stream(str(prefix)), BYTES.vocab_size)
    return InstructionSet(prefix.name, part, BYTES.special.eos)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[InstructionSet]:
    folder = tmp_path_factory.mktemp("records")
    return [prepared(folder, name, size) for name, size in (("a", 7), ("b", 50), ("c", 13))]


def test_records_are_read_back_as_written(sets: list[InstructionSet]):
    assert [len(each) for each in sets] == [7, 50, 13]
    for number in range(50):
        record = sets[1].read(number)
        assert BYTES.decode(record.prompt.tolist()) == f"b {number}?"
        assert BYTES.decode(record.target.tolist()) == str(number) * (1 + number % 3)
        assert sets[1].num_tokens(number) == len(record.prompt) + len(record.target) + 1


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 2**32))
def test_every_record_that_counts_is_used_once_before_any_twice(
    sets: list[InstructionSet], cap: int, per_row: int, seed: int
):
    source = Instructions(sets, cap, per_row, seed)
    total = sum(min(len(each), cap) for each in sets)
    rows = -(-3 * total // per_row)
    drawn = [(p.data_set, p.number) for row in range(rows) for p in source.row(row).places]
    for epoch in range(3):
        counts = Counter(drawn[epoch * total : (epoch + 1) * total])
        assert max(counts.values()) == 1, "a record was used twice in an epoch"
        for each in sets:
            used = sum(name == each.name for name, _ in counts)
            assert used == min(len(each), cap)
    for each in sets:
        # Of a set above the cap, too, each record comes round before any returns.
        used = Counter(number for name, number in drawn[: 3 * total] if name == each.name)
        times = [used[number] for number in range(len(each))]
        assert max(times) - min(times) <= 1


def test_order_depends_on_seed_purpose_and_epoch(sets: list[InstructionSet]):
    def places(source: Instructions, first: int = 0) -> list[object]:
        return [place for row in range(first, first + 5) for place in source.row(row).places]

    source = Instructions(sets, 100, 2, 1)
    assert places(source) == places(Instructions(sets, 100, 2, 1))
    assert places(source) != places(Instructions(sets, 100, 2, 2))
    assert places(source) != places(Instructions(sets, 100, 2, 1, "valid"))
    assert places(source) != places(source, 35)
    assert source.row(35).epoch == 1 and source.num_rows == 35


def test_fingerprint_changes_with_sets_and_cap(sets: list[InstructionSet]):
    streams = [
        Instructions(sets, 100, 1, 1).stream,
        Instructions(sets[:2], 100, 1, 1).stream,
        Instructions(sets, 10, 1, 1).stream,
    ]
    assert len({stream.fingerprint for stream in streams}) == 3
    assert len(streams[0]) == sum(len(each.part) for each in sets)
    whole = np.concatenate([each.part.read(0, len(each.part)) for each in sets])
    assert streams[0].read(40, 200).tolist() == whole[40:200].tolist()
    assert mean_tokens(sets[:1], 100) == len(sets[0].part) / 7


def mixed(sets: list[InstructionSet], shares: list[tuple[int, float]]) -> GLMDataset:
    instructions = Instructions(sets, 100, 4, 1)
    return GLMDataset(
        [Source("one", CountingStream(90_000), 0.75), Source("two", CountingStream(9_000), 0.25)],
        BYTES.special,
        ObjectiveConfig(),
        256,
        seed=1,
        instructions=instructions,
        instruction_shares=shares,
    )


def test_share_of_instruction_rows_changes_by_stages_and_the_texts_keep_their_proportion(
    sets: list[InstructionSet],
):
    dataset = mixed(sets, [(0, 0.0), (100, 0.05), (500, 0.2)])
    names = [dataset.locate(index)[0].name for index in range(1000)]
    assert names[:100].count(NAME) == 0
    assert abs(names[100:500].count(NAME) - 20) <= 1
    assert abs(names[500:].count(NAME) - 100) <= 1
    assert abs(names[500:].count("one") - 300) <= 1


def test_instruction_rows_hold_four_records_and_are_explained(sets: list[InstructionSet]):
    dataset = mixed(sets, [(0, 0.5)])
    used: list[str] = []
    for index in range(30):
        sample = dataset[index]
        if sample.objective is not Objective.MIP:
            continue
        assert sample.segment_ids[::64].tolist() == [1, 2, 3, 4]
        found = explain(dataset, index, ObjectiveConfig(), BYTES)
        assert len(found.segments) == 4
        for segment in found.segments:
            context = sample.tokens[segment.context.start : segment.context.stop]
            prompt = BYTES.decode(context.tolist()).removesuffix("[MASK]")
            (span,) = segment.spans
            answer = BYTES.decode(sample.targets[span.places.start : span.places.stop].tolist())
            number = int(prompt[2:-1])
            assert answer == str(number) * (1 + number % 3) + "<eop>"
            assert segment.pieces[0].document == number and span.is_whole
            used.append(prompt)
    assert len(used) >= 56 and len(set(used)) == len(used)
    assert gather(dataset, range(30)).objectives["MIP"].samples * 4 == len(used)


def test_shards_of_texts_are_no_records(tmp_path: Path):
    write_with_megatron(tmp_path / "text", [[1, 2, 3], [4, 5]])
    with pytest.raises(DataError, match=r"has 5 texts in 2 documents.*--prompt-key prompt"):
        opened(tmp_path / "text")


def config_of(tmp_path: Path, *overrides: str) -> list[str]:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": f"text {n} " * 30}) + "\n" for n in range(60)))
    return [
        "model=tiny",
        "model.seq_length=128",
        "data.tokenizer=bytes",
        f"data.paths=[{corpus}]",
        f"data.cache_dir={tmp_path / 'cache'}",
        "data.prompt_key=question",
        "data.target_key=answer",
        *overrides,
    ]


def test_raw_files_are_prepared_once_and_held_out(tmp_path: Path):
    records = write_records(tmp_path / "q.jsonl", 300)
    config = load_config(config_of(tmp_path, f"data.instructions=[{records}]"))
    said: list[str] = []
    corpora = ensure_prepared(config.data, config.model.vocab_size, said.append)
    assert sum(str(records) in line for line in said) == 1
    again: list[str] = []
    assert ensure_prepared(config.data, config.model.vocab_size, again.append) == corpora
    assert not again
    seen: list[set[str]] = []
    for is_validation in (False, True):
        dataset = open_dataset(config, corpora, BYTES, is_validation=is_validation)
        assert dataset.shares_at(0)[NAME] == pytest.approx(0.05)
        rows = [dataset[index] for index in range(400)]
        prompts = {
            BYTES.decode(row.tokens[(row.segment_ids == number) & row.is_context].tolist())
            for row in rows
            if row.objective is Objective.MIP
            for number in range(1, 5)
        }
        seen.append(prompts)
    assert len(seen[0]) == 80 and len(seen[1]) > 5
    assert not seen[0] & seen[1]


def test_filled_windows_hold_more_records(tmp_path: Path):
    records = write_records(tmp_path / "q.jsonl", 300)
    words = config_of(
        tmp_path, f"data.instructions=[{records}]", "data.instruction_share=[[0,0.5]]"
    )
    config = load_config(words)
    corpora = ensure_prepared(config.data, config.model.vocab_size, lambda line: None)
    config.objective = replace(config.objective, mip_packing=MipPacking.filled)
    dataset = open_dataset(config, corpora, BYTES, is_validation=False)
    rows = (dataset[index] for index in range(40))
    segments = [int(row.segment_ids.max()) for row in rows if row.objective is Objective.MIP]
    assert set(segments) == {8}  # windows of 32 tokens, records of 13


def test_share_of_instructions_moves_over_the_ramp_without_stages_of_the_texts(tmp_path: Path):
    records = write_records(tmp_path / "q.jsonl", 300)
    words = (
        f"data.instructions=[{records}]",
        "data.instruction_share=[[0,0.1],[100,0.5]]",
        "data.stage_ramp_samples=200",
    )
    config = load_config(config_of(tmp_path, *words))
    corpora = ensure_prepared(config.data, config.model.vocab_size, lambda line: None)
    dataset = open_dataset(config, corpora, BYTES, is_validation=False)
    shares = [dataset.shares_at(index)[NAME] for index in (0, 99, 200, 300)]
    assert shares == pytest.approx([0.1, 0.1, 0.3, 0.5])


def test_instructions_may_be_all_that_is_trained(tmp_path: Path):
    records = write_records(tmp_path / "q.jsonl", 300)
    words = (f"data.instructions=[{records}]", "data.instruction_share=[[0,1],[20,0.5]]")
    config = load_config(config_of(tmp_path, *words))
    corpora = ensure_prepared(config.data, config.model.vocab_size, lambda line: None)
    dataset = open_dataset(config, corpora, BYTES, is_validation=False)
    assert {dataset[index].objective for index in range(20)} == {Objective.MIP}
    assert sum(dataset[index].objective is Objective.MIP for index in range(20, 40)) == 10
    held_out = open_dataset(config, corpora, BYTES, is_validation=True)
    assert held_out[0].objective is Objective.MIP


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.instruction_share=[[0,0.05]]", r"needs data.instructions \(\[\]\)"),
        ("data.instructions=[a] data.instruction_share=[[5,0.05]]", "must begin at sample 0"),
        ("data.instructions=[a] data.instruction_share=[[0,1.5]]", "shares between 0 and 1"),
        ("data.instructions=[a] data.instruction_share=[[0]]", r"points \[from_sample, share\]"),
        ("data.instructions=[a] data.instruction_cap=0", "must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(override.split())


def test_half_a_pair_of_keys_and_plain_text_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    text = tmp_path / "a.txt"
    text.write_text("words\n")
    words = ["prepare", str(text), "--output", str(tmp_path / "a"), "--tokenizer", "bytes"]
    assert cli([*words, "--prompt-key", "question"]) == 2
    assert "--prompt-key and --target-key go together" in capsys.readouterr().err
    assert cli([*words, *KEYS]) == 2
    assert "is plain text, without the fields question, answer" in capsys.readouterr().err


def test_records_without_a_held_out_shard_are_refused(tmp_path: Path):
    prepared(tmp_path, "q", 20)
    config = load_config(config_of(tmp_path, f"data.instructions=[{tmp_path / 'q'}]"))
    with pytest.raises(DataError, match=r"q has no held-out shard .*--valid-fraction 0.05"):
        ensure_prepared(config.data, config.model.vocab_size, lambda line: None)
