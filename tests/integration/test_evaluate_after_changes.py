"""A run is measured with what belongs to it, whatever became of the files that its configuration names."""

import json
import shutil
from pathlib import Path

import pytest

from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.train_tokenizer import train_tokenizer
from data_pipeline.tokenizer import load_tokenizer
from tests.helpers.texts import sentences
from tests.helpers.tiny import TEXT_RUN
from tests.helpers.whole_runs import metrics, run_attempt
from train.evaluate import cli as evaluate

VOCAB_SIZE = 400
SMALL = (
    *(word for word in TEXT_RUN if not word.startswith(("model.vocab_size", "data.tokenizer"))),
    f"model.vocab_size={VOCAB_SIZE}",
    "optim.total_samples=32",
)
OTHER = [f"Quite another text, {n} lines long, zyx {n * n} wvu." for n in range(300)]


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def trained(folder: Path, *words: str) -> Path:
    """A finished run on texts of its own; its held-out loss is measured on others."""
    assert run_attempt(1, (*SMALL, f"run.dir={folder / 'run'}", *words)) == [0]
    return folder / "run"


def measured(
    run: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[dict[str, float], str]:
    """Held-out losses, and what was said beside them; a run's cache is not where evaluate's is."""
    assert evaluate([str(run), "--json", f"data.cache_dir={run.parent / 'cache'}", *words]) == 0
    told = capsys.readouterr()
    return json.loads(told.out)["losses"], told.err


@pytest.fixture
def texts(tmp_path: Path) -> tuple[Path, Path]:
    """A corpus, and one to be measured on."""
    return (
        write(tmp_path / "mine.jsonl", sentences(300)),
        write(tmp_path / "held.jsonl", sentences(60)[::3]),
    )


def test_a_tokenizer_that_was_trained_for_the_run_stays_when_its_texts_change(
    tmp_path: Path, texts: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, held = texts
    cache = tmp_path / "cache"
    run = trained(
        tmp_path, f"data.paths={corpus}", f"data.valid_paths=[{held}]", f"data.cache_dir={cache}"
    )
    before, _ = measured(run, capsys)
    assert before["valid/loss"] == pytest.approx(metrics(run)[-1]["valid/loss"], abs=1e-4)
    for changed in ([*sentences(300), *OTHER], OTHER):
        write(corpus, changed)
        assert measured(run, capsys)[0] == before
    corpus.unlink()
    shutil.rmtree(cache)  # what was prepared is gone as well
    assert measured(run, capsys)[0] == before


def test_a_tokenizer_that_was_named_is_the_runs_own_copy(
    tmp_path: Path, texts: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, held = texts
    named = tmp_path / "tokenizer.json"
    train_tokenizer(sentences(300), named, VOCAB_SIZE)
    run = trained(
        tmp_path,
        f"data.paths={corpus}",
        f"data.valid_paths=[{held}]",
        f"data.tokenizer=hf:{named}",
        f"data.cache_dir={tmp_path / 'cache'}",
    )
    before, _ = measured(run, capsys)
    assert before["valid/loss"] == pytest.approx(metrics(run)[-1]["valid/loss"], abs=1e-4)
    train_tokenizer(OTHER, named, VOCAB_SIZE)
    other, _ = measured(run, capsys, f"data.tokenizer=hf:{named}")
    assert other != before, "the two tokenizers do not differ"
    assert measured(run, capsys)[0] == before
    named.unlink()
    assert measured(run, capsys)[0] == before


def test_rows_held_out_of_a_corpus_that_has_changed_are_said_to_be_others(
    tmp_path: Path, texts: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, _ = texts
    run = trained(tmp_path, f"data.paths={corpus}", f"data.cache_dir={tmp_path / 'cache'}")
    before, told = measured(run, capsys)
    assert before["valid/loss"] == pytest.approx(metrics(run)[-1]["valid/loss"], abs=1e-4)
    assert "changed since" not in told
    write(corpus, [*sentences(300), *OTHER])
    after, told = measured(run, capsys)
    assert after != before
    assert "mine.jsonl: changed since the checkpoint was trained" in told
    # Who names other texts knows it.
    told = measured(run, capsys, f"data.paths=[{corpus}]", "data.valid_fraction=0.2")[1]
    assert "changed since" not in told


def test_shards_made_again_with_another_tokenizer_are_refused(
    tmp_path: Path, texts: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, held = texts
    own, other = tmp_path / "own" / "tokenizer.json", tmp_path / "other" / "tokenizer.json"
    for path, learnt in ((own, sentences(300)), (other, OTHER)):
        path.parent.mkdir()
        train_tokenizer(learnt, path, VOCAB_SIZE)
    shards = {name: tmp_path / "shards" / name for name in ("train", "held")}
    shards["train"].parent.mkdir()
    for name, text in (("train", corpus), ("held", held)):
        prepare([str(text)], shards[name], load_tokenizer(f"hf:{own}"), 0.0)
    run = trained(tmp_path, f"data.paths={shards['train']}", f"data.valid_paths=[{shards['held']}]")
    before, _ = measured(run, capsys)
    # The corpus of training is of no matter; the held-out one is, and says so.
    shutil.rmtree(shards["train"].parent)
    shards["train"].parent.mkdir()
    prepare([str(held)], shards["held"], load_tokenizer(f"hf:{own}"), 0.0)
    assert measured(run, capsys)[0] == before
    shutil.rmtree(shards["train"].parent)
    shards["train"].parent.mkdir()
    prepare([str(held)], shards["held"], load_tokenizer(f"hf:{other}"), 0.0)
    assert evaluate([str(run), "--json"]) == 2
    assert "which is the run's own" in capsys.readouterr().err
