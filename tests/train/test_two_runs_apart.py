"""Two runs with everything in common but run.dir: neither the cache nor wandb lets one change what the other has.

Second copies: tests/train/checkpoint/test_claim.py. Local copies: tests/data_pipeline/storage/test_copies_apart.py.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import load_config
from data_pipeline.corpus import Corpora, ensure_prepared
from data_pipeline.opening import open_shard
from data_pipeline.tokenizer import load_tokenizer
from tests.helpers.texts import sentences
from train.wandb_account import run_id

SMALL = ("model.vocab_size=262", "data.tokenizer=bytes", "model.seq_length=128")


def prepared(top: Path, run: str) -> Corpora:
    words = [*SMALL, f"run.dir={top / run}", f"data.paths={top / 'text.jsonl'}"]
    config = load_config([*words, f"data.cache_dir={top / 'cache'}"])
    return ensure_prepared(config.data, config.model.vocab_size, lambda _: None)


def tokens_of(corpora: Corpora) -> list[int]:
    stream = open_shard(corpora.train[0], load_tokenizer("bytes"))
    return stream.read(0, len(stream)).tolist()


@given(st.lists(st.tuples(st.sampled_from("AB"), st.booleans()), min_size=2, max_size=4))
@settings(max_examples=5, deadline=None)
def test_in_one_cache_each_start_finds_its_text_as_it_was(starts: list[tuple[str, bool]]):
    """Starts of two runs in any order, before some of which somebody edits the corpus."""
    with TemporaryDirectory() as name:
        top, text = Path(name), Path(name) / "text.jsonl"
        seen: list[tuple[Corpora, list[int]]] = []
        for number, (run, is_edited) in enumerate(starts):
            if is_edited or not text.exists():
                lines = [f'{{"text": "{number} {sentence}"}}\n' for sentence in sentences(60)]
                text.write_text("".join(lines))
                os.utime(text, ns=(number * 10**9, number * 10**9))
            corpora = prepared(top, run)
            tokens = tokens_of(corpora)
            assert bytes(t for t in tokens[:80] if t < 256).split()[0].isdigit()
            seen.append((corpora, tokens))
            for earlier, its_tokens in seen:  # what earlier starts were given is still the same
                assert tokens_of(earlier) == its_tokens
        edits = sum(is_edited for _, is_edited in starts[1:])
        assert len({corpora.train[0].prefix for corpora, _ in seen}) == 1 + edits


@given(st.sampled_from([None, "", "../elsewhere", 7]), st.integers(2, 5))
@settings(max_examples=8, deadline=None)
def test_each_run_reports_to_a_wandb_run_of_its_own(stored: object, number: int):
    with TemporaryDirectory() as top:
        folders = [Path(top) / f"run{index}" for index in range(number)]
        ids = [run_id(folder, stored, lambda _: None) for folder in folders]
        assert len(set(ids)) == number
        assert [run_id(folder, stored, lambda _: None) for folder in folders] == ids
        assert sorted(path.relative_to(top).parts[0] for path in Path(top).rglob("run_id.txt")) == [
            folder.name for folder in folders
        ]
