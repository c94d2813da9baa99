"""A data set used from Python: opened in two lines, with a length, in a DataLoader; and no file fetches from the hub."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from configs.errors import DataError
from configs.load import load_config
from data_pipeline import corpus
from data_pipeline.batch import collate
from data_pipeline.corpus import ensure_prepared
from data_pipeline.look.subject import open_target
from data_pipeline.opening import open_data
from tests.helpers.texts import sentences

SMALL = ("model.seq_length=128", "model.vocab_size=262", "data.tokenizer=bytes")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "my.txt").write_text("\n\n".join(sentences(300)))
    return [*SMALL, f"data.paths={folder / 'my.txt'}", f"data.cache_dir={folder / 'cache'}"]


def test_the_length_is_where_the_run_ends_and_the_stream_goes_on(words: list[str]):
    run = ["optim.total_samples=24", "data.skip_samples=[[10,18]]", "eval.num_samples=4"]
    config = load_config([*words, *run])
    dataset, tokenizer = open_data(config)
    assert len(dataset) == 32
    assert [sample.index for sample in dataset] == list(range(32))
    assert tokenizer.decode(dataset[1000].tokens.tolist())
    with pytest.raises(IndexError):
        dataset[-1]
    held_out, _ = open_data(config, is_validation=True)
    assert len(held_out) == len(list(held_out)) == 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_of_pytorchs_gives_the_same_samples(words: list[str], num_workers: int):
    dataset, _ = open_data(load_config([*words, "optim.total_samples=24"]))
    loader: DataLoader[Any] = DataLoader(
        dataset,  # pyright: ignore[reportArgumentType]
        batch_size=8,
        num_workers=num_workers,
        collate_fn=collate,
    )
    batches = list(loader)
    assert len(batches) == len(loader) == 3
    for number, batch in enumerate(batches):
        assert batch.sample_index.tolist() == list(range(8 * number, 8 * number + 8))
    assert (batches[1].tokens[3] == dataset[11].tokens).all()


def test_what_is_looked_at_takes_paths_of_both_kinds(words: list[str], tmp_path: Path):
    shard = ensure_prepared(load_config(words).data, 262, lambda _: None).train[0].prefix
    for name in (shard, Path(shard)):
        target = open_target(name, ["model.seq_length=128"])
        assert [sample.index for sample in islice(target.dataset, 3)] == [0, 1, 2]
    with pytest.raises(DataError, match="has no config.yaml"):
        open_target(tmp_path)


@pytest.mark.parametrize("key", ["data.paths", "data.valid_paths", "data.instructions"])
def test_nothing_is_fetched_because_a_checkpoint_names_it(
    key: str, words: list[str], monkeypatch: pytest.MonkeyPatch
):
    fetched: list[str] = []

    def fetch(paths: list[str], *arguments: Any, **options: Any) -> None:
        fetched.extend(paths)
        raise DataError("fetched")

    config = load_config([*words, f"{key}=[someone/texts]"])
    # The corpus itself is there, as it is prepared beside a validation corpus and without one.
    for more in ([], [words[3].replace("data.paths", "data.valid_paths")]):
        open_data(load_config([*words, *more]))
    monkeypatch.setattr(corpus, "prepare", fetch)
    for typed in ([], ["eval.num_samples=4", "data.paths_=x"]):
        with pytest.raises(DataError, match=rf"hub \({key}: someone/texts\).*type {key}=\["):
            ensure_prepared(config.data, 262, lambda _: None, typed=typed)
    assert fetched == []
    for typed in ([f"{key}=[someone/texts]"], None):
        with pytest.raises(DataError, match="fetched"):
            ensure_prepared(config.data, 262, lambda _: None, typed=typed)
    assert set(fetched) == {"someone/texts"}


def test_data_that_were_fetched_before_are_used(words: list[str], monkeypatch: pytest.MonkeyPatch):
    prepare, own = corpus.prepare, load_config(words).data.paths
    monkeypatch.setattr(
        corpus, "prepare", lambda _, *rest, **options: prepare(own, *rest, **options)
    )
    config = load_config([*words, "data.paths=[someone/texts]"])
    made = ensure_prepared(config.data, 262, lambda _: None)
    assert ensure_prepared(config.data, 262, lambda _: None, typed=[]) == made
