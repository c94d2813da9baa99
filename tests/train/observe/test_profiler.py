"""Traces of chosen steps and ranks: complete, readable by a trace viewer, summed up to the step; and never in the way."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from configs.schema import Config
from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import config_of, rank_session, train
from tests.helpers.whole_runs import command, compared, run_attempt
from train.observe.observers import ObservedStep
from train.profile.__main__ import cli
from train.profile.shares import SHARES, shares_of
from train.profile.trace import read_trace
from train.progress import Progress

PHASES = {"X", "M", "i", "s", "f"}


def check_schema(trace: Any) -> None:
    """What Chrome's trace viewer and Perfetto ask of a file in the "JSON object" format."""
    assert isinstance(trace["traceEvents"], list)
    for event in trace["traceEvents"]:
        assert event["ph"] in PHASES
        assert isinstance(event["name"], str)
        assert isinstance(event["ts"], int | float)
        assert isinstance(event["pid"], int | str) and isinstance(event["tid"], int | str)
        assert isinstance(event.get("args", {}), dict)
        if event["ph"] == "X":
            assert isinstance(event["dur"], int | float) and event["dur"] >= 0
        if event["ph"] in "sf":
            assert isinstance(event["id"], int | str)
        if event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")


def test_two_steps_on_chosen_ranks_of_two_stages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tmp_path, "parallel.tp=2", "parallel.pp=2", "log.details_every_steps=1")
    run, plain = tmp_path / "run", tmp_path / "plain"
    profiled = ("log.profile_steps=[3,4]", "log.profile_ranks=[0,3]")
    assert run_attempt(4, (*words, f"run.dir={run}", *profiled)) == [0] * 4
    assert run_attempt(4, (*words, f"run.dir={plain}")) == [0] * 4
    assert compared(run) == compared(plain)
    assert not (plain / "profile").exists()

    names = sorted(path.name for path in (run / "profile").iterdir())
    assert names == ["step_3_to_4_rank_0.json.gz", "step_3_to_4_rank_3.json.gz"]
    for name in names:
        path = run / "profile" / name
        whole = json.loads(gzip.decompress(path.read_bytes()))
        check_schema(whole)
        ranges = [event["name"] for event in whole["traceEvents"] if event["ph"] == "X"]
        for part in ("forward", "backward", "optimizer", "communication", "bubble", "data"):
            assert part in ranges
        # One layer a stage.
        assert {each for each in ranges if each.startswith("layer ")} == {
            f"layer {int('3.' in name)}"
        }

        shares = shares_of(read_trace(path))
        assert shares.steps == [3, 4] and not shares.on_gpu
        total = sum(shares.step_seconds)
        assert sum(shares.parts.values()) == pytest.approx(total, rel=0.05)
        assert all(seconds >= 0 for seconds in shares.parts.values())
        ends = "head and loss" if "3." in name else "embedding"
        for part in (ends, "attention", "MLP", "norms and residuals", "optimizer", "communication"):
            assert shares.parts[part] > 0, part
        assert shares.parts["bubble"] > 0

    capsys.readouterr()
    assert cli([str(run)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("Rank ")][0].startswith(
        "Rank 0, steps 3 to 4"
    )
    assert max(map(len, shown)) <= 80
    assert sum(line.startswith("sum ") for line in shown) == 2
    assert any(line.startswith("Pipeline bubble: ") for line in shown)
    assert cli([str(run), "--rank", "3"]) == 0
    second = [number for number, line in enumerate(shown) if line.startswith("Rank 3")]
    assert capsys.readouterr().out.splitlines() == shown[second[0] :]


def profiled(rank: int, world_size: int, words: tuple[str, ...], folder: Path) -> dict[str, float]:
    """The parts of a step that is profiled without a run around it."""
    from torch.nn.modules import module

    from configs.run_paths import RunPaths
    from glm.loss import GLMLoss
    from train import parts
    from train.engine.pipeline import PipelineEngine
    from train.observe.profiler import Profiler
    from train.waits import _waits

    config: Config = config_of(words, world_size)
    config.log.profile_steps = [2, 2]
    call = GLMLoss.__call__
    said: list[str] = []
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        profiler = Profiler(config, session, engine, RunPaths(folder), said.append, said.append)
        profiler.begin(1)
        assert not parts._listeners and GLMLoss.__call__ is call
        train(engine, session, config, 0, 1)
        profiler.begin(2)
        assert parts._listeners and GLMLoss.__call__ is not call
        train(engine, session, config, 1, 1)
        profiler.close()
        profiler.finish()
        assert not parts._listeners and GLMLoss.__call__ is call and not _waits.told
        assert not module._global_forward_hooks and not module._global_forward_pre_hooks
        engine.close()
    assert not said
    (path,) = (folder / "profile").iterdir()
    shares = shares_of(read_trace(path))
    assert sum(shares.parts.values()) == pytest.approx(sum(shares.step_seconds), rel=0.05)
    return dict(shares.parts)


@pytest.mark.parametrize("recompute", ["none", "full", "selective"])
def test_layers_that_are_computed_again_count_where_they_belong(
    tmp_path: Path, recompute: str
) -> None:
    words = (f"parallel.recompute={recompute}", "precision=bf16")
    (parts,) = run_distributed(profiled, 1, words, tmp_path)
    assert set(parts) <= set(SHARES)
    for name in (
        "embedding",
        "attention",
        "MLP",
        "norms and residuals",
        "head and loss",
        "optimizer",
    ):
        assert parts[name] > 0
    # What is left over is the engine's own.
    assert parts["other"] < 0.5 * sum(parts.values())


def test_a_profile_that_cannot_be_written_is_said_once_and_training_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "profile").write_text("in the way")
    words = command(tmp_path, f"run.dir={run}", "log.profile_steps=[2,3]")
    assert run_attempt(1, words) == [0]
    said = [line for line in (run / "log.txt").read_text().splitlines() if "The profile of" in line]
    assert len(said) == 1
    assert "The profile of rank 0 was not written: File exists." in said[0]
    assert (run / "profile").read_text() == "in the way"


def test_steps_that_a_run_does_not_reach_are_written_as_far_as_it_gets(tmp_path: Path) -> None:
    words = ("run.dir=" + str(tmp_path / "run"), "log.profile_steps=[11,500]")
    assert run_attempt(1, command(tmp_path, *words)) == [0]
    (path,) = (tmp_path / "run" / "profile").iterdir()
    assert path.name == "step_11_to_12_rank_0.json.gz"
    assert shares_of(read_trace(path)).steps == [11, 12]


@pytest.mark.parametrize("rank", [0, 3])
def test_all_ranks_wait_while_one_ends_its_profile_under_a_limit_of_its_own(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the others wait in the next step, whose limit ends the run."""
    from train.observe.profiler import Profiler

    config: Config = config_of(("log.profile_steps=[2,3]", "log.profile_ranks=[3]"), 4)
    done: list[str] = []
    session: Any = SimpleNamespace(
        topology=SimpleNamespace(rank=rank), barrier=lambda: done.append("all are here")
    )
    profiler = Profiler(config, session, cast(Any, None), cast(Any, None), done.append, done.append)
    monkeypatch.setattr(profiler, "_start", lambda _: setattr(profiler, "_profile", object()))
    monkeypatch.setattr(profiler, "_stop", lambda _: done.append("written"))
    for number in (1, 2, 3, 4):
        profiler.begin(number)
        assert not done
        progress = Progress(step=number, samples_seen=8 * number)
        profiler.end(ObservedStep(cast(Any, None), progress, cast(Any, None), None))
        if number == 3:
            of_this = ["written"] if rank == 3 else []
            assert done == ["ending the profile", *of_this, "all are here"]
            done.clear()
            monkeypatch.setattr(profiler, "_profile", None)
            monkeypatch.setattr(profiler, "_is_due", False)
