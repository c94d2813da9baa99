"""The command at the end of a run: words of its own text, of each language, that a shell takes as they are."""

import shlex

import pytest

from configs.schema import ObjectiveConfig
from data_pipeline.tokenizer import load_tokenizer
from glm.prompt import Prompt
from train.showcase.typed import ANY_TEXT, texts_to_type

BYTES = load_tokenizer("bytes")
ENGLISH = "The file is read when the program begins to work."
GERMAN = "Die Datei wird gelesen, wenn die Arbeit beginnt."
CHINESE = "如果没有指定文件，则从标准输入读取数据，直到输入结束。"
HOSTILE = [
    '"$(rm -rf ~)" is `never` typed here!',
    "a \\ back\\slash, 100% of $HOME",
    "[MASK] it is",
]


def typed(*sources: list[str], **objective: float) -> list[str]:
    ids = [[BYTES.encode(text) for text in source] for source in sources]
    return texts_to_type(ids, BYTES, ObjectiveConfig(**objective), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("gmask_share", "marker"), [(0.5, "[MASK]"), (1.0, "[gMASK]")])
def test_each_language_has_a_few_words_of_its_own(gmask_share: float, marker: str) -> None:
    texts = typed([ENGLISH], [GERMAN], gmask_share=gmask_share)
    assert len(texts) == 2
    for text, whole in zip(texts, (ENGLISH, GERMAN), strict=True):
        assert Prompt.parse(text).marker == marker
        before, _, after = text.partition(marker)
        assert before.strip() in whole and after.strip() in whole and len(text) < 50
        # Words stay whole.
        assert set(before.split() + after.split()) <= set(whole.replace(".", "").split()) | {"."}


def test_chinese_is_cut_by_characters() -> None:
    (text,) = typed([CHINESE], gmask_share=0.5)
    before, _, after = text.partition("[MASK]")
    assert before in CHINESE and after in CHINESE and 3 <= len(before + after) <= 16


def test_the_beginning_of_a_sentence_is_preferred() -> None:
    long = f"{ENGLISH[:-1]} and when {ENGLISH.lower()[:-1]} it ends at once"
    for seed in range(4):
        (text,) = texts_to_type([[BYTES.encode(long)] * 50], BYTES, ObjectiveConfig(), seed)
        assert text.startswith("The ")


def test_a_shell_takes_it_as_it_is() -> None:
    assert typed(HOSTILE) == [ANY_TEXT[True]]
    (text,) = typed([*HOSTILE, ENGLISH])
    assert shlex.split(f'--text "{text}"') == ["--text", text]
    assert not set(text) & set('"$`\\!')


def test_without_text_something_can_be_typed_all_the_same() -> None:
    assert typed() == typed([]) == [ANY_TEXT[True]]
    assert typed(gmask_share=1.0) == [ANY_TEXT[False]]
    for text in ANY_TEXT.values():
        Prompt.parse(text)
