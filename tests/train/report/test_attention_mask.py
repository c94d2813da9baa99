"""The schematic rows: what is drawn is exactly what the model attends to, for every objective and rule."""

from pathlib import Path

import numpy as np
import pytest

from configs.load import composed, to_stored_yaml
from configs.objectives import Objective
from configs.schema import Config
from data_pipeline.packing import Sample, attention_mask
from train.report.attention_mask import corners, instructions_of, panels, sample_of, segments_of
from train.report.panel import Panel
from train.report.read import RunData, read_run

VARIANTS = [
    ["model=tiny"],
    ["model=tiny", "objective.smask_share=0.5"],
    ["model=tiny", "objective.documents=isolated"],
    ["model=glm_110m", "objective.slice_rule=glm_130b", "model.seq_length=2048"],
    ["model=tiny", "objective.mip_packing=filled", "objective.mip_positions=blank"],
]


def config_of(words: list[str]) -> Config:
    return composed([*words, "data.instructions=[x.jsonl]"])


def drawn(sample: Sample) -> np.ndarray:
    """The mask that the page draws of a row, from the numbers that it is given."""
    found = np.zeros((len(sample.tokens), len(sample.tokens)), dtype=bool)
    for each in segments_of(sample):
        start, split, stop = each["start"], each["split"], each["stop"]
        found[start:split, start:split] = True
        found[split:stop, start:split] = True
        found[split:stop, split:stop] = np.tri(stop - split, dtype=bool)
    return found


@pytest.mark.parametrize("words", VARIANTS, ids=" ".join)
@pytest.mark.parametrize("objective", [Objective.MASK, Objective.GMASK, Objective.MIP])
def test_the_picture_is_the_mask_that_the_model_applies(
    words: list[str], objective: Objective
) -> None:
    config = config_of(words)
    is_text = objective is not Objective.MIP
    sample = sample_of(config, objective) if is_text else instructions_of(config)
    assert sample.loss_mask.any()
    assert np.array_equal(drawn(sample), attention_mask(sample))


@pytest.mark.parametrize("words", VARIANTS, ids=" ".join)
def test_each_target_begins_where_its_second_coordinate_does(words: list[str]) -> None:
    sample = sample_of(config_of(words), Objective.MASK)
    for each in segments_of(sample):
        assert all(sample.tokens[place] == 3 for place in each["spans"])  # <sop>
        assert bool(each["spans"]) == (each["split"] < each["stop"])


def test_corners_give_the_line_back() -> None:
    values = np.array([0, 1, 2, 3, 2, 2, 2, 7, 8, 9])
    found = corners(values, 100)
    places, heights = zip(*found, strict=True)
    assert np.array_equal(np.interp(np.arange(100, 110), places, heights), values)
    assert len(found) == 6
    assert corners(values[:1], 5) == [[5, 0]] and corners(values[:0], 5) == []


def panels_of(folder: Path, config: str) -> list[Panel]:
    (folder / "metrics.jsonl").write_text('{"step": 1, "samples_seen": 8, "tokens_seen": 8}\n')
    (folder / "config.yaml").write_text(config)
    return panels([read_run(folder)])


def test_a_panel_for_each_objective_of_the_run(tmp_path: Path) -> None:
    found = panels_of(tmp_path, to_stored_yaml(config_of(["model=tiny"])))
    assert [panel.key for panel in found] == ["mask/mask", "mask/gmask", "mask/mip"]
    assert found[1].title == "Attention mask of [gMASK] (70 % of the rows of text)"
    for panel in found:
        assert "schematic" in panel.note and panel.rows
        assert panel.data["length"] == 256 or panel.data["length"] % panel.data["window"] == 0
        assert len(panel.data["positions"]) == len(panel.data["segments"])
    only = panels_of(tmp_path, to_stored_yaml(composed(["objective.gmask_share=1.0"])))
    assert [panel.key for panel in only] == ["mask/gmask"]


def test_the_same_run_has_the_same_rows(tmp_path: Path) -> None:
    text = to_stored_yaml(config_of(["model=tiny"]))
    assert panels_of(tmp_path, text) == panels_of(tmp_path, text)
    assert panels_of(tmp_path, text) != panels_of(tmp_path, text.replace("seed: ", "seed: 1"))


def test_of_several_runs_those_are_shown_whose_rows_differ(tmp_path: Path) -> None:
    runs = list[RunData]()
    for name, words in (("a", []), ("b", ["seed=7"]), ("c", ["objective.gmask_share=1.0"])):
        (tmp_path / name).mkdir()
        panels_of(tmp_path / name, to_stored_yaml(composed(["model=tiny", *words])))
        runs.append(read_run(tmp_path / name))
    assert [panel.key for panel in panels(runs[:2])] == ["mask/mask", "mask/gmask"]
    found = {panel.key: panel.title for panel in panels(runs)}
    assert list(found) == ["mask/mask/0", "mask/gmask/0", "mask/gmask/1"]
    assert found["mask/mask/0"].endswith(": a") and found["mask/gmask/1"].endswith(": c")


@pytest.mark.parametrize(
    "change",
    [
        ("windows_per_row: 4", "windows_per_row: 0"),
        ("windows_per_row: 4", "windows_per_row: 7"),
        ("mask_fraction: 0.15", "mask_fraction: 7.0"),
        ("objective:", "objectives:"),
        ("seed: ", "seed: ["),
        ("shares: []", "shares: ['absent:0.1']"),
    ],
)
def test_a_configuration_that_cannot_train_has_none(
    tmp_path: Path, change: tuple[str, str]
) -> None:
    text = to_stored_yaml(config_of(["model=tiny"]))
    assert change[0] in text
    assert panels_of(tmp_path, text.replace(*change)) == []


def test_without_a_configuration_there_is_none(tmp_path: Path) -> None:
    assert panels_of(tmp_path, "") == []
