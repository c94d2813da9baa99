"""The stability study: its text by hand, its verdicts, and a small study that is interrupted and goes on."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import stability_study
from benchmarks.stability import outcome, pictures
from benchmarks.stability.cells import Cell, CellName, train_cell
from benchmarks.stability.outcome import final_loss, gradient_rows, rows, survives
from benchmarks.stability.text import FIRST_WORD, ChainStream
from benchmarks.stability.variants import GRADIENTS_AT, RATES, VARIANTS, WORDS, cells
from configs.load import load_config
from tests.helpers.distributed import run_distributed

TINY = ("model.num_layers=2", "optim.total_samples=16", "optim.warmup_samples=4")
NAMES = [CellName("deepnorm", 4e-3, 1), CellName("pre", 4e-3, 1)]


def test_the_entropy_of_the_text_is_that_of_its_shares() -> None:
    stream = ChainStream(50_000, 64, seed=1)
    # Shares 8, 4, 2 and 1 of 15.
    by_hand = -sum(n / 15 * math.log(n / 15) for n in (8, 4, 2, 1))
    assert stream.floor == pytest.approx(by_hand)
    tokens = stream.read(0, len(stream)).tolist()
    assert min(tokens) >= FIRST_WORD and max(tokens) < 64
    followers: dict[int, list[int]] = {}
    for one, other in zip(tokens, tokens[1:], strict=False):
        followers.setdefault(one, []).append(other)
    assert max(len(set(found)) for found in followers.values()) == 4
    most = max(followers.values(), key=len)
    counts = sorted((most.count(other) / len(most) for other in set(most)), reverse=True)
    assert counts == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15], abs=0.03)
    assert stream.floor + 1 < stream.unigram < math.log(64 - FIRST_WORD)


def test_every_seed_has_a_text_of_its_own_and_every_read_the_same() -> None:
    one, again, other = (ChainStream(100, 64, seed) for seed in (1, 1, 2))
    assert one.read(10, 50).tolist() == again.read(10, 50).tolist()
    assert one.read(10, 50).tolist() != other.read(10, 50).tolist()


def test_what_survives_is_finite_and_below_the_unigram_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outcome, "threshold", lambda _: 2.5)
    good = Cell("pre", 1e-3, 1, [9.0, *[2.0] * 5, *[2.8] * 5])
    assert final_loss(good) == pytest.approx(2.4)
    assert survives(good)
    assert not survives(Cell("pre", 1e-3, 1, [2.5] * 20))
    assert not survives(Cell("pre", 1e-3, 1, [2.0] * 20, is_finite=False))


def test_the_tables_count_survivors_and_take_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "threshold", lambda _: 2.5)
    found = [
        Cell("pre", RATES[0], seed, [loss] * 20, [3.0] * 20, [4.0] * 19 + [40.0], is_finite)
        for seed, loss, is_finite in ((1, 2.0, True), (2, 3.0, True), (3, 1.0, False))
    ]
    (line,) = [each for each in rows(found) if each.startswith("| pre |")]
    assert line.startswith("| pre | 1/3, 2.50 | 0/0, - |")
    monkeypatch.setattr(outcome, "VARIANTS", {"pre": ()})
    assert gradient_rows(found, RATES[0])[-1] == "| pre | 3 | 4 | 3 | 4 | 0.75 | 8 |"


def test_variants_and_names_of_the_study_are_configurations() -> None:
    assert len(set(cells())) == len(list(cells()))
    for words in WORDS.values():
        assert load_config(list(words)).model.num_layers == 24


def small_study(monkeypatch: pytest.MonkeyPatch, path: Path, names: list[CellName]) -> None:
    words = {variant: (*given, *TINY) for variant, given in WORDS.items()}
    monkeypatch.setattr(stability_study, "WORDS", words)
    monkeypatch.setattr(stability_study, "cells", lambda: names)
    assert stability_study.main(["--json", str(path)]) == 0


def test_a_study_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.json"
    small_study(monkeypatch, path, NAMES[:1])
    small_study(monkeypatch, path, NAMES)
    printed = capsys.readouterr().out
    assert printed.count("deepnorm, 0.004, seed 1:") == printed.count("pre, 0.004, seed 1:") == 1
    record = json.loads(path.read_text())
    assert [cell["variant"] for cell in record["cells"]] == ["deepnorm", "pre"]
    for cell in record["cells"]:
        assert len(cell["losses"]) == len(cell["embedding"]) == len(cell["rest"]) == 4
        assert cell["losses"][0] == pytest.approx(math.log(64), rel=0.2)
    monkeypatch.setattr(stability_study, "WORDS", {"deepnorm": ()})
    with pytest.raises(SystemExit, match="other settings. Move it away"):
        stability_study.read(path)


def trained(rank: int, world_size: int, names: list[CellName]) -> list[Cell]:
    from tests.helpers.rank_runs import rank_session

    words = (*VARIANTS["deepnorm"], *TINY)
    with rank_session(rank, world_size, load_config(list(words))) as session:
        return [train_cell(name, words, session) for name in names]


def test_a_cell_ends_at_a_number_that_is_not_finite_and_repeats_its_bits() -> None:
    names = [*NAMES[:1], *NAMES[:1], CellName("deepnorm", 1e38, 1)]
    (found,) = run_distributed(trained, 1, names)
    assert found[0] == found[1]
    assert not found[2].is_finite and 0 < len(found[2].losses) < 4


class Axes:
    """Notes what is drawn."""

    def __init__(self) -> None:
        self.drawn: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **_: self.drawn.append((name, args))


def test_pictures_have_a_line_for_each_variant_and_a_cross_for_what_is_not_finite() -> None:
    cell = {"rate": GRADIENTS_AT, "losses": [2.0] * 20, "embedding": [1.0] * 20, "rest": [2.0] * 20}
    made = [{**cell, "variant": variant, "seed": 1} for variant in VARIANTS]
    made[0]["is_finite"] = False
    axes, left, right = Axes(), Axes(), Axes()
    pictures.losses(axes, {"cells": made})
    pictures.gradients((left, right), {"cells": made})
    names = [name for name, _ in axes.drawn]
    assert names.count("errorbar") == len(VARIANTS) and names.count("plot") == 1
    for panel, value in ((left, 1.0), (right, 2.0)):
        lines = [args[0] for name, args in panel.drawn if name == "plot"]
        assert len(lines) == len(VARIANTS)
        assert all(line == pytest.approx([value] * 20) for line in lines)
