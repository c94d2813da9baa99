"""A run folder in any state is looked at, or refused with one message: no traceback, no wait, no foreign words."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import UserError
from configs.load import load_config, to_stored_yaml
from data_pipeline import __main__ as commands
from data_pipeline.dataset import GLMDataset
from data_pipeline.look.run_record import changed_data, step_of, stored_config
from data_pipeline.look.subject import open_target
from data_pipeline.tokenizer import keep_tokenizer, kept_tokenizer
from tests.helpers.texts import sentences

SMALL = ("model.seq_length=128", "model.vocab_size=262", "data.tokenizer=bytes")
FILES = (
    "config.yaml",
    "metrics.jsonl",
    "tokenizer/spec.txt",
    "checkpoints/step_00000002/manifest.json",
)
# Looks like a line of its own, and like an order to the terminal.
HOSTILE = "\x1b[31mred\x07\u202e\r"
untimed = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    texts = [f"{HOSTILE} {text}" for text in sentences(100)]
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    words = ["prepare", folder / "a.jsonl", "--output", folder / "a", "--tokenizer", "bytes"]
    assert commands.cli([str(word) for word in words]) == 0
    for ending in ("bin", "idx", "json"):
        os.link(folder / f"a.{ending}", folder / f"b{HOSTILE}.{ending}")
    return folder


@pytest.fixture(scope="module")
def run_folder(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with a checkpoint, named as a sweep names its runs."""
    folder = tmp_path_factory.mktemp("runs") / "default-optim.clip=0.5"
    checkpoint = folder / "checkpoints" / "step_00000002"
    checkpoint.mkdir(parents=True)
    keep_tokenizer("bytes", folder / "tokenizer")
    config = load_config([*SMALL, f"data.paths=[{shards / 'a'}]"])
    (folder / "config.yaml").write_text(to_stored_yaml(config))
    lines = [{"step": step, "samples_seen": 8 * step} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    dataset = open_target(folder).dataset
    body = {"data_state": {"dataset": dataset.describe()}, "progress": {"samples_drawn": 16}}
    (checkpoint / "manifest.json").write_text(json.dumps(body))
    return folder


@pytest.fixture(scope="module")
def dataset(run_folder: Path) -> GLMDataset:
    return open_target(run_folder).dataset


def look(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = commands.cli([str(word) for word in words])
    out, err = capsys.readouterr()
    assert code in (0, 2)
    assert err.count("\n") <= 1
    assert (code == 2) == bool(err)
    return code, out, err


def test_a_run_named_by_a_sweep_is_looked_at_with_every_command(
    run_folder: Path, shards: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(run_folder.parent)
    for folder in (run_folder, run_folder.name, f"./{run_folder.name}/"):
        assert "as trained sample 3, in step 1" in look(capsys, "show", folder, "--index", 3)[1]
        assert "samples 0 to 10" in look(capsys, "stats", folder, "--to", 10)[1]
        _, out, _ = look(capsys, "verify", folder)
        assert [line.partition(":")[0] for line in out.splitlines()] == [
            f"{shards}/a",
            f"{shards}/a.valid",
        ]
    code, _, err = look(capsys, "show", "runs/default-optim.clip=0.5")
    assert code == 2 and "or token shard named runs/default-optim.clip=0.5." in err
    assert "There is no key" in look(capsys, "show", "optim.clap=0.5")[2]


def read_all_of(folder: Path, dataset: GLMDataset) -> list[str]:
    """Read everything of a run that looking at it reads; the messages of what cannot be."""
    readers = (
        lambda: stored_config(folder),
        lambda: kept_tokenizer(folder),
        lambda: step_of(folder, 3),
        lambda: changed_data(folder, dataset),
    )
    said: list[str] = []
    for read in readers:
        try:
            read()
        except UserError as error:
            said.append(str(error))
    return said


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _nothing(path: Path) -> None:
    path.symlink_to("gone")


@pytest.fixture
def put_back(run_folder: Path):
    """The files of the run are as they were after each test."""
    kept = {name: (run_folder / name).read_bytes() for name in FILES}
    yield
    for name, content in kept.items():
        path = run_folder / name
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(content)


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize("kind", [Path.mkdir, _pipe, _loop, _nothing, Path.touch])
@pytest.mark.parametrize("name", FILES)
def test_other_kinds_of_files_are_neither_waited_for_nor_a_traceback(
    name: str, kind: Callable[[Path], None], run_folder: Path, dataset: GLMDataset
):
    (run_folder / name).unlink()
    kind(run_folder / name)
    for said in read_all_of(run_folder, dataset):
        assert Path(name).name in said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in list(items):
        found.append((value, key))
        found += places(inner) if isinstance(inner, dict | list) else []
    return found


@pytest.mark.usefixtures("put_back")
@given(st.data())
@untimed
def test_damaged_records_of_a_run_end_with_one_message_or_none(
    run_folder: Path, dataset: GLMDataset, data: st.DataObject
):
    path = run_folder / data.draw(st.sampled_from(FILES))
    whole = path.read_bytes()
    if path.suffix == ".json" and data.draw(st.booleans()):
        body = json.loads(whole)
        container, key = data.draw(st.sampled_from(places(body)))
        container[key] = data.draw(JSON)
        path.write_text(json.dumps(body))
    else:
        at = data.draw(st.integers(0, len(whole)))
        cut = data.draw(st.integers(0, 3))
        path.write_bytes(whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + cut :])
    try:
        assert len(read_all_of(run_folder, dataset)) <= 1
    finally:
        path.write_bytes(whole)


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize(
    "line",
    ["{}", "[1]", '{"step": "1", "samples_seen": 3}', "[" * 5000, '{"step": 1, "samples_seen": 0}'],
)
def test_a_damaged_line_in_the_middle_is_said_and_not_passed_over(line: str, run_folder: Path):
    path = run_folder / "metrics.jsonl"
    path.write_text(line + "\n" + path.read_text())
    assert (
        step_of(run_folder, 3) == "in a step that is not known: line 1 of metrics.jsonl is damaged"
    )


def test_control_characters_of_texts_and_names_are_shown_and_not_obeyed(
    shards: Path, tmp_path: Path, capsys
):
    name = f"{shards}/b{HOSTILE}"
    page = tmp_path / "page.html"
    shown = [
        look(capsys, *words)[1]
        for words in (
            ("show", name, *SMALL, "--objective", "gmask"),
            ("stats", name, *SMALL, "--to", 10),
            ("verify", name),
            ("show", name, *SMALL, "--html", page),
        )
    ]
    shown += [page.read_text("utf-8"), look(capsys, "verify", f"{name}{HOSTILE}")[2]]
    for text in (*shown[:3], *shown[4:]):
        assert not set("\x1b\x07\u202e\r") & set(text)
        assert r"\x1b[31mred\x07\u202e\x0d" in text or r"\x1b" in text
    assert r"\x1b[31mred\x07\u202e\x0d" in shown[0]
