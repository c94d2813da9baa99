"""The sbatch script as it is rendered and sent; test_slurm_*.py say what it does, tests/slurm runs it on a real cluster."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError, UserError
from configs.load import load_config
from launch import slurm as module
from launch.slurm import slurm
from launch.sweep import Variant
from tests.helpers.slurm_script import (
    FOUR_NODES,
    command,
    render,
)


def directives(*words: str) -> set[str]:
    """The #SBATCH lines, without the mark."""
    script = render(list(words))
    return {line.removeprefix("#SBATCH ") for line in script.splitlines() if "#SBATCH" in line[:8]}


def test_the_published_run_asks_for_its_nodes_and_gpus() -> None:
    lines = directives("experiment=glm_130b", "cluster.account=glm", "cluster.partition=a100")
    assert lines == {
        "--job-name=glm_130b",
        "--partition=a100",
        "--account=glm",
        "--nodes=96",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--time=24:00:00",
        "--signal=B:USR1@300",
        "--output=runs/glm_130b/slurm/job_%j.txt",
        "--open-mode=append",
        "--requeue",
    }


def test_every_key_of_the_cluster_reaches_the_script() -> None:
    words = [
        *FOUR_NODES,
        "device=cpu",
        "cluster.min_nodes=2",
        "cluster.qos=long",
        "cluster.time=2-00:00:00",
        "cluster.signal_seconds=900",
        "cluster.requeue=false",
        "cluster.exclude=[node7,node9]",
        "cluster.cpus_per_rank=6",
        "cluster.setup=['module load cuda/12.1']",
        "cluster.environment=['NCCL_DEBUG=a b','XDG_CACHE_HOME=/x']",
        "cluster.container=apptainer exec --nv glm.sif",
        "cluster.srun_options=['--mpi=none']",
        "cluster.sbatch_options=['--exclusive']",
        "cluster.max_restarts=5",
    ]
    lines = directives(*words)
    assert {
        "--nodes=2-4",
        "--no-kill",
        "--qos=long",
        "--time=2-00:00:00",
        "--signal=B:USR1@900",
        "--no-requeue",
        "--exclude=node7,node9",
        "--cpus-per-task=6",
        "--exclusive",
    } <= lines
    assert not [line for line in lines if "gpu" in line]
    script = render(words)
    for line in (
        "module load cuda/12.1",
        "export OMP_NUM_THREADS=6",
        "export NCCL_DEBUG='a b'",
        "container=(apptainer exec --nv glm.sif)",
        "srun_options=(--cpus-per-task=6 --mpi=none)",
        "max_restarts=5",
    ):
        assert f"\n{line}\n" in script
    chosen = [*FOUR_NODES, "cluster.cpus_per_rank=6", "cluster.environment=['OMP_NUM_THREADS=2']"]
    assert "OMP_NUM_THREADS=6" not in render(chosen)


@pytest.mark.parametrize(
    ("options", "is_ours"),
    [
        ("--exclusive,--gpu-freq=high", True),
        ("--exclusive,--gres=gpu:a100:8", False),
        ("--gpus-per-task=1", False),
        ("-G8", False),
        ("--gres=none", False),
        ("--gres=tmp:100G,--gres-flags=enforce-binding", True),
    ],
)
def test_who_says_how_to_ask_for_gpus_is_not_contradicted(options: str, is_ours: bool) -> None:
    lines = directives("experiment=glm_10b_1node", f"cluster.sbatch_options=[{options}]")
    assert ("--gpus-per-node=8" in lines) == is_ours
    assert set(options.split(",")) <= lines


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["experiment=glm_130b", "cluster.min_nodes=48"],
        ["experiment=glm_10b_1node", "run.name=a b"],
        ["data.paths=['it is $HOME/`x`.txt']", "data.text_key=it's"],
    ],
)
def test_every_script_is_bash_and_hands_over_the_words(words: list[str], tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(render(words))
    subprocess.run(["bash", "-n", str(script)], check=True)
    line = next(line for line in script.read_text().splitlines() if line.startswith("command=("))
    assert shlex.split(line.removeprefix("command=(").removesuffix(")"))[3:] == words


def test_a_folder_that_slurm_would_read_as_a_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must not contain '%'.*run\.name=NAME"):
        render(["run.name=50%"])


def test_without_slurm_here_the_message_says_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch is not on this machine"):
        slurm(["--submit"])
    assert not list(tmp_path.iterdir())
    slurm([])
    assert (tmp_path / "runs/default/submit.sbatch").is_file()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("sbatch: error: Invalid account or account/partition combination", "cluster.account=NAME"),
        ("sbatch: error: invalid partition specified: fast", "cluster.partition=NAME"),
        ("allocation failure: Requested node configuration is not available", "cluster.nodes=N"),
    ],
)
def test_a_refused_job_is_one_message_that_says_what_to_type(
    said: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command(tmp_path / "bin" / "sbatch", f"echo {shlex.quote(said)} >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(UserError) as caught:
        slurm(["--submit"])
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        slurm(["--sweep", "seed=1,2", "--submit"])
    assert [path.name for path in tmp_path.iterdir()] == [
        "bin"
    ]  # nothing is left of what was refused


def test_each_job_of_a_chain_waits_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    body = 'echo "$*" >> calls; case "$*" in *--test-only*) ;; *) wc -l < calls ;; esac'
    command(tmp_path / "bin" / "sbatch", body)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    answer = slurm(["--submit", "--chain", "3"])
    script = "runs/default/submit.sbatch"
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"--test-only {script}",
        f"--parsable {script}",
        f"--parsable --dependency=afterany:2 {script}",
        f"--parsable --dependency=afterany:3 {script}",
    ]
    assert "job 2, then 3, then 4" in answer
    assert "when_stopped=end\n" in Path(script).read_text()


def test_wrong_options_are_named_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        slurm(["--sumbit", "--chain"])
    assert caught.value.problems[0].startswith('There is no option "--sumbit" here.')
    assert caught.value.problems[1].startswith("--chain needs a value.")
    with pytest.raises(ConfigError, match=r"--chain \(0\) must be a whole number of at least 1"):
        slurm(["--chain=0"])


@pytest.mark.parametrize(
    ("words", "is_checked"),
    [([], True), (["device=cpu"], False), (["device=cpu", "cluster.preflight=true"], True)],
)
def test_nodes_with_gpus_are_checked_unless_told_otherwise(
    words: list[str], is_checked: bool
) -> None:
    assert (f"\npreflight={'yes' if is_checked else 'no'}\n") in render(words)


def test_a_script_that_this_command_did_not_write_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "runs/default/submit.sbatch"
    slurm([])
    slurm(["seed=2"])  # our own is
    assert "seed=2" in kept.read_text()
    subprocess.run(["bash", "-n", str(kept)], check=True)
    for text in ("echo my own\n", kept.read_text().replace("seed=2", "seed=3")):
        kept.write_text(text)
        with pytest.raises(UserError, match=r"it is not replaced. Move it away: mv runs/default/"):
            slurm([])
        assert kept.read_text() == text


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o700), (0o077, 0o700), (0o277, 0o500)])
def test_only_its_owner_reads_a_script(
    mask: int, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/default/slurm").mkdir(parents=True)
    before = os.umask(mask)
    try:
        slurm([])
    finally:
        os.umask(before)
    assert (tmp_path / "runs/default/submit.sbatch").stat().st_mode & 0o777 == mode


def test_what_the_job_will_miss_is_said_when_it_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.json").touch()
    (tmp_path / "there.bin").touch()
    slurm(["data.paths=[shards/pile,there]", "data.tokenizer=icetk:ice_text.model"])
    said = capsys.readouterr().err
    assert said.startswith(
        "Not on this machine: shards/pile (data.paths); ice_text.model (data.tokenizer)."
    )
    assert "The job needs these files on its nodes." in said
    slurm(["data.paths=there", "data.tokenizer=hf:here.json"])
    assert capsys.readouterr().err == ""


def test_it_says_where_the_script_is_and_how_to_send_it_and_prints_it_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = Path("runs/a b/submit.sbatch")
    assert slurm(["run.name=a b"]) == (
        f"The script is {kept}. Submit it from this folder:\n    sbatch '{kept}'"
    )
    printed = slurm(["run.name=a b", "--print"])
    assert kept.read_text().startswith(printed)
    assert "#SBATCH --job-name" in printed
    with pytest.raises(ConfigError, match="Leave out --print or --submit"):
        slurm(["--print", "--submit"])


HOSTILE = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=12
) | st.sampled_from(
    ["a\nfalse", "$(false)", "`false`", "';false;'", '"', "\\", "*", "~", "#", "!", "\r"]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(HOSTILE, max_size=4), HOSTILE)
def test_words_reach_the_ranks_as_they_were_typed(words: list[str], option: str) -> None:
    """Whatever they hold, none of it runs on the way."""
    config = load_config(["device=cpu"])
    config.cluster.srun_options = [option]
    config.cluster.environment = [f"VALUE={option}"]
    config.cluster.container = shlex.join(["box", option])
    script = module.render([Variant(words, {}, config)], words, "default", "runs/default")
    lines = script.partition("# --- what follows")[0]
    end = 'printf "%s\\0" "${command[@]}" "${srun_options[@]}" "${container[@]}" "$VALUE"\n'
    done = subprocess.run(
        ["bash", "-eu", "-c", lines + end], capture_output=True, check=True, cwd="/", env={}
    )
    assert not done.stderr
    assert done.stdout.decode().split("\0")[:-1] == [
        *("python", "-m", "train", *words, option, "box", option, option)
    ]


def test_a_directive_that_would_not_end_with_its_line_is_refused() -> None:
    config = load_config(["device=cpu"])
    config.cluster.sbatch_options = ["--comment=a\nfalse"]
    with pytest.raises(ConfigError, match="which an #SBATCH line cannot hold"):
        module.render([Variant([], {}, config)], [], "default", "runs/default")


def test_a_container_s_command_may_name_variables_of_the_job() -> None:
    script = render(["cluster.container='box run $HOME/a.sif $X/b \"c d\"'"])
    assert '\ncontainer=(box run "$HOME"/a.sif "$X"/b \'c d\')\n' in script
