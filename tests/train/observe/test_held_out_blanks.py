"""Which blanks a run fills: held-out sentences of all sources, posed as a user would type them, always the same ones."""

from pathlib import Path

import pytest

from configs.schema import Config
from data_pipeline.corpus import Corpora, CorpusShard
from data_pipeline.tokenizer import load_tokenizer
from glm.prompt import Objectives, Prompt
from tests.helpers.rank_runs import config_of
from tests.helpers.shards import write
from train.observe.held_out_blanks import HeldOutBlank, held_out_blanks

BYTES = load_tokenizer("bytes")
ENGLISH = [f"Number {number} comes before number {number + 1}." for number in range(40)]
MARKED = [
    "The [MASK] marker is a token.",
    "A text ends with [gMASK] here.",
    "Or with [sMASK] here.",
]
GERMAN = [f"Hier steht Zahl {number}, dort Zahl {number + 1}." for number in range(40)]


def corpora(folder: Path, *texts: list[str]) -> Corpora:
    shards = []
    for number, sentences in enumerate(texts):
        prefix = folder / f"source{number}"
        if not prefix.with_suffix(".bin").exists():
            write(prefix, [BYTES.encode(" ".join(sentences))], BYTES.vocab_size)
        shards.append(CorpusShard(prefix.name, str(prefix), None))
    return Corpora([], shards, "bytes")


def config(*words: str) -> Config:
    return config_of(("model.vocab_size=264", *words), 1)


def chosen(folder: Path, *words: str) -> list[HeldOutBlank]:
    return held_out_blanks(config(*words), corpora(folder, [*ENGLISH, *MARKED], GERMAN), BYTES)


def test_they_are_whole_sentences_of_every_source(tmp_path: Path) -> None:
    found = chosen(tmp_path)
    assert [each.objective for each in found] == ["mask"] * 4 + ["gmask"] * 2
    texts = []
    for each in found:
        marker = {"mask": "[MASK]", "gmask": "[gMASK]"}[each.objective]
        assert each.text.count(marker) == 1
        texts.append(each.text.replace(marker, each.truth))
        row = Prompt.parse(each.text).blanks(BYTES, Objectives.of(config()))
        assert (row.context, row.blank_positions, row.goes_on) == (
            each.row.context,
            each.row.blank_positions,
            each.objective == "gmask",
        )
        assert each.row.spans == [[]] and len(each.row.context) <= 65
    assert [text in ENGLISH for text in texts] == [True, False] * 3
    assert [text in GERMAN for text in texts] == [False, True] * 3
    assert len(set(texts)) == 6


def test_they_depend_on_text_and_seed_alone(tmp_path: Path) -> None:
    first = chosen(tmp_path)
    assert chosen(tmp_path, "optim.total_samples=4000", "eval.num_samples=3") == first
    assert chosen(tmp_path, "seed=7") != first


@pytest.mark.parametrize(
    ("share", "objectives"), [(0.0, ["mask"] * 4), (1.0, ["gmask"] * 2)], ids=["mask", "gmask"]
)
def test_only_what_is_trained_is_filled(
    share: float, objectives: list[str], tmp_path: Path
) -> None:
    found = chosen(tmp_path, f"objective.gmask_share={share}")
    assert [each.objective for each in found] == objectives


def test_a_sentence_that_leaves_no_room_is_not_taken(tmp_path: Path) -> None:
    long = [f"This sentence is longer than {number} others." for number in range(40)]
    of_both = corpora(tmp_path, [*long, "It is a short one.", *long])
    short = config("model.seq_length=32", "objective.windows_per_row=1", "objective.gmask_share=0")
    (found,) = held_out_blanks(short, of_both, BYTES)
    assert found.text.replace("[MASK]", found.truth) == "It is a short one."
    assert len(held_out_blanks(config("objective.gmask_share=0"), of_both, BYTES)) == 4


def test_sentences_about_markers_are_left_out(tmp_path: Path) -> None:
    assert held_out_blanks(config(), corpora(tmp_path, MARKED), BYTES) == []


def test_a_span_is_put_into_the_text_as_generation_does() -> None:
    row = Prompt.parse("Paris [MASK].").blanks(BYTES, Objectives())
    blank = HeldOutBlank("mask", "Paris [MASK].", "sleeps", row, 16)
    assert blank.filled(" sleeps \ufffd ") == "sleeps \ufffd"
    assert blank.filled("") == ""
