"""Groups of one's own: from a folder or by path, composed as the presets are, wrong ones answered with file and key."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.help import answer
from configs.load import apply_overrides, composed, load_config, to_stored_yaml
from configs.schema import Config, Precision, Wandb
from launch.torchrun import torchrun

MODEL = "num_layers: 5\nhidden_size: 64\n"
EXPERIMENT = """\
defaults:
  - override /model: mine
  - override /optim: standard
precision: fp32
optim:
  lr: 8e-5
log:
  wandb: off
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own beside the current one, with a model and an experiment."""
    monkeypatch.chdir(tmp_path)
    for group, text in (("model", MODEL), ("experiment", EXPERIMENT)):
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / "mine.yaml").write_text(text)
    return tmp_path / "own"


def problems_of(*words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(list(words))
    return caught.value.problems


@pytest.mark.parametrize(
    "words",
    [
        ["--config-dir", "own", "model=mine"],
        ["model=mine", "--config-dir=own"],
        ["model=own/model/mine.yaml"],
    ],
)
def test_a_model_of_ones_own_is_taken(folder: Path, words: list[str]) -> None:
    model = load_config([*words, "model.num_layers=6"]).model
    assert (model.num_layers, model.hidden_size, model.num_heads) == (6, 64, 4)


@pytest.mark.parametrize(
    "words", [["--config-dir", "own", "experiment=mine"], ["experiment=own/experiment/mine.yaml"]]
)
def test_an_experiment_of_ones_own_chooses_other_groups_and_names_the_run(
    folder: Path, words: list[str]
) -> None:
    text = EXPERIMENT
    if len(words) == 1:  # beside a path lie other paths
        text = text.replace("/model: mine", "/model: ../model/mine.yaml")
    (folder / "experiment" / "mine.yaml").write_text(text)
    config = load_config(words)
    assert (config.experiment, config.model.num_layers, config.optim.global_batch_size) == (
        "mine", 5, 256,
    )  # fmt: skip
    assert (config.optim.lr, config.precision, config.log.wandb) == (
        8e-5, Precision.fp32, Wandb.off,
    )  # fmt: skip
    assert load_config([*words, "model=glm_110m"]).model.num_layers == 12


def test_an_experiment_wins_over_a_group_of_ones_own_as_over_a_preset(folder: Path) -> None:
    (folder / "optim").mkdir()
    (folder / "optim" / "quick.yaml").write_text("micro_batch_size: 8\nlr: 1e-2\n")
    config = load_config(["--config-dir=own", "optim=quick", "experiment=glm_10b_1node"])
    assert (config.optim.micro_batch_size, config.optim.lr) == (2, 1e-2)


def test_nothing_of_one_command_is_left_for_the_next(folder: Path) -> None:
    load_config(["--config-dir=own", "experiment=mine"])
    assert load_config([]) == Config()


def test_a_name_that_a_preset_has_is_refused(folder: Path) -> None:
    (folder / "model" / "glm_10b.yaml").write_text(MODEL)
    taken = "glm_10b is the name of a preset, model=glm_10b. Give the file another name."
    assert problems_of("--config-dir=own") == [f"own/model/glm_10b.yaml: {taken}"]
    assert problems_of("model=own/model/glm_10b.yaml") == [
        f"model (own/model/glm_10b.yaml): {taken}"
    ]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--config-dir=nowhere", "model=mine"], "--config-dir (nowhere) does not exist. model=mine is looked for there."),
        (["--config-dir=own/model", "seed=2"], "--config-dir (own/model) holds none of the folders model, optim, "),
        (["--config-dir"], "--config-dir needs a folder: --config-dir DIR"),
        (["--config-dir=own", "model=min"], "model (min) is not one of chatglm_6b, glm_10b, glm_110m, "),
        (["model=min.yaml"], "model (min.yaml): there is no file min.yaml. Did you mean "),
        (["model=own"], "model (own) is not one of "),
        (["model=own/"], "own is a folder, not a file."),
        (["model=own/model/mine.yaml/x"], "own/model/mine.yaml/x cannot be read: Not a directory."),
    ],
)  # fmt: skip
def test_a_file_that_is_not_there_is_one_message(
    folder: Path, words: list[str], problem: str
) -> None:
    (found,) = problems_of(*words)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("num_layer: 5", 'There is no key "model.num_layer". Did you mean model.num_layers?'),
        ("num_layers: many", "model.num_layers (many) must be a whole number."),
        ("num_layers: null", "model.num_layers (null) must be a whole number."),
        ("rope_2d: [1]", "model.rope_2d ([1]) must be true or false."),
        ("num_layers: {a: 1}", "model.num_layers ({'a': 1}) must be a whole number."),
        ("model:\n  num_layers: 5", 'the keys of model stand here, without model: above them.'),
        ("5: 5", 'There is no key "model.5".'),
        ("- num_layers", "it is not a mapping of keys to values."),
        ("just words", "it is not a mapping of keys to values."),
        ("num_layers: 5\nnum_layers: 6", "line 2: found duplicate key num_layers."),
        ("num_layers: [5", "line 1: "),
        ("num_layers: &a 5\nnum_heads: *a", "line 2: an alias (*a). Write the value out."),
        ("num_layers: 5\n---\nnum_layers: 6", "line 2: a second document begins."),
        ("a: " + "[" * 40 + "]" * 40, "line 1: it is nested without end."),
        ("num_layers: ${oc.env:HOME}", "model.num_layers (${oc.env:HOME}) must be a plain value"),
        ("num_layers: ${", "it holds ${, which begins an interpolation."),
        ("num_layers: ???", "model.num_layers (???) must be a plain value"),
        ("num_layers: !!python/object/apply:os.system [ls]", "line 1: could not determine a constructor"),
        ("defaults:\n  - tiny", "only an experiment may choose other groups."),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_said_with_file_and_key(
    folder: Path, text: str, problem: str
) -> None:
    (folder / "model" / "mine.yaml").write_text(text)
    (found,) = problems_of("--config-dir=own", "model=mine")
    assert found.startswith(f"own/model/mine.yaml: {problem}")


@pytest.mark.parametrize(
    "defaults", ["[mine]", "model", "[{model: mine}]", "[{override /experiment: a}]", "[{override /model: 5}]"]
)  # fmt: skip
def test_defaults_of_another_form_are_refused(folder: Path, defaults: str) -> None:
    (folder / "experiment" / "mine.yaml").write_text(f"defaults: {defaults}\n")
    (found,) = problems_of("--config-dir=own", "experiment=mine")
    assert found.startswith("own/experiment/mine.yaml: defaults (")
    assert 'must be lines such as "- override /model: NAME"' in found


def test_problems_of_files_and_words_come_together(folder: Path) -> None:
    (folder / "model" / "mine.yaml").write_text("num_layers: many\nhead: 2\n")
    assert len(problems_of("--config-dir=own", "model=mine", "optim.lrr=1", "seed=-1")) == 3
    (folder / "model" / "mine.yaml").write_text("num_layers: many\nhidden_size: few\n")
    assert len(problems_of("--config-dir=own", "model=mine", "optim.lrr=1", "seed=-1")) == 4


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    assert problems_of("model=own/pipe.yaml") == ["own/pipe.yaml is a pipe, not a file."]
    (folder / "binary.yaml").write_bytes(b"\xff\xfe")
    assert problems_of("model=own/binary.yaml") == ["own/binary.yaml is not UTF-8 text (byte 0)."]


@settings(max_examples=15, deadline=None)
@given(
    st.text(max_size=40)
    | st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4).map(
        lambda value: f"num_layers: {value!r}"
    )
)  # fmt: skip
def test_no_file_of_any_text_gives_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "some.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        composed([f"model={path}"])
    except ConfigError as error:
        assert str(path) in str(error) or "model.num_layers" in str(error)


def test_a_run_needs_its_files_only_once(folder: Path) -> None:
    words = ["--config-dir=own", "experiment=mine", "model.num_layers=6"]
    first, said = load_config(words), list[str]()
    run = folder.parent / "runs" / "mine"
    run.mkdir(parents=True)
    stopped = load_config([*words, "run.stop_after_samples=16"])  # which is over
    (run / "config.yaml").write_text(to_stored_yaml(stopped))
    (run / "overrides.txt").write_text("\n".join([*words, "run.stop_after_samples=16"]))
    folder.rename(folder.parent / "gone")

    assert load_config(words, log=said.append) == first
    assert said == [
        "--config-dir (own) does not exist. experiment=mine is looked for there. Its values are taken from "
        "runs/mine/config.yaml, as this run was started with them."
    ]
    again = load_config([*words, "optim.lr=3e-4"], log=said.append)
    assert (again.optim.lr, again.model.num_layers, again.optim.global_batch_size) == (3e-4, 6, 256)
    # Another choice is not what the run was started with, nor is another run.
    assert "does not exist" in problems_of("--config-dir=own", "model=mine", "run.name=mine")[0]
    assert "does not exist" in problems_of(*words, "run.name=other")[0]


def test_a_model_that_is_gone_is_the_one_of_the_run(folder: Path) -> None:
    words = ["model=own/model/mine.yaml", "run.dir=here", "seed=5"]
    first = load_config(words)
    Path("here").mkdir()
    Path("here/config.yaml").write_text(to_stored_yaml(first))
    Path("here/overrides.txt").write_text("\n".join(words))
    (folder / "model" / "mine.yaml").unlink()
    again = load_config([*words[:2], "seed=6"], log=lambda _: None)
    assert (again.model, again.seed) == (first.model, 6)


def test_a_stored_run_takes_no_groups(folder: Path) -> None:
    with pytest.raises(ConfigError, match="^--config-dir=own names a whole group, but a stored"):
        apply_overrides(Config(), ["--config-dir", "own"])


def test_help_and_started_ranks_use_the_folder(folder: Path) -> None:
    words = ["--config-dir", "own", "model=mine"]
    assert "default 5\n" in answer(["model.num_layers", *words])
    assert torchrun([*words, "seed=2"]).endswith("-m train --config-dir=own model=mine seed=2")
