"""The drill's corpora: text with little chance in it, instructions with right answers, and the same instructions with wrong ones."""

import json
import random
import shutil
from pathlib import Path

from data_pipeline.preparation.prepare import prepare
from data_pipeline.tokenizer import load_tokenizer

TEXT, RIGHT, WRONG = "text", "right.jsonl", "wrong.jsonl"
_RECORDS = 2000
_NUMBERS = 70
_LINES = 40
"""Of a document."""


def make_corpora(folder: Path) -> Path:
    """Write all three into a folder, unless they are there; returns the folder."""
    if (folder / WRONG).exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    numbers = random.Random(0)
    written = folder / f"{TEXT}.txt"
    written.write_text(_text(numbers))
    prepare([str(written)], folder / TEXT, load_tokenizer("bytes"), valid_fraction=0.05)
    pairs = [(numbers.randrange(100), numbers.randrange(100)) for _ in range(_RECORDS)]
    prompts = [f"{a}+{b}=" for a, b in pairs]
    answers = [str(a + b) for a, b in pairs]
    _write(folder / RIGHT, prompts, answers)
    numbers.shuffle(answers)
    _write(folder / WRONG, prompts, answers)
    return folder


def own_copy(corpora: Path, folder: Path) -> Path:
    """A copy that a run may lose files of."""
    shutil.copytree(corpora, folder, dirs_exist_ok=True)
    return folder


def _text(numbers: random.Random) -> str:
    """Sentences that a small model soon predicts: as a large one does, it then has much to lose in an explosion."""
    lines = [
        f"{i} times {j} is {i * j}, and {j} times {i} is {j * i} too.\n"
        for i in range(_NUMBERS)
        for j in range(_NUMBERS)
    ]
    numbers.shuffle(lines)
    return "".join(
        line + ("\n" if number % _LINES == _LINES - 1 else "") for number, line in enumerate(lines)
    )


def _write(path: Path, prompts: list[str], answers: list[str]) -> None:
    lines = (
        json.dumps({"prompt": prompt, "target": answer})
        for prompt, answer in zip(prompts, answers, strict=True)
    )
    path.write_text("".join(f"{line}\n" for line in lines))
