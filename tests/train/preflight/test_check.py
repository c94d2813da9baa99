"""The whole check over gloo: four nodes of one rank each, one of them bad in a different way each time."""

import contextlib
import errno
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.load import load_config
from launch.slurm import slurm
from tests.helpers.distributed import run_distributed
from tests.helpers.places import ROOT
from train.preflight import network
from train.preflight.check import check_nodes
from train.preflight.driver import DriverReport
from train.preflight.measurement import Traffic
from train.preflight.meeting import Meeting, pairs_of
from train.preflight.probes import Probes
from train.preflight.table import add_excluded
from train.world import World

NODES = 4
CODE_BAD = 3
# Nodes between which nothing passes. Nodes 2 and 3 are a pair of the first round: the second must not suffer.
DEAD_LINKS = {"link": [{2, 3}], "cut off": [{1, 2}, {2, 3}]}


def unwritable(folder: Path) -> float:
    raise PermissionError(errno.EACCES, "Permission denied")


def broken(device: torch.device) -> float:
    raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nmore")


def sever(rank: int, links: list[set[int]], how: str) -> None:
    """Break the sums between nodes, in this rank."""
    make, run = network.open_group, network.bus_gb_per_second

    def open_group(store: torch.distributed.Store, ranks: list[int], *more: Any) -> Any:
        is_cut = set(ranks) in links
        if is_cut and how == "they never meet":
            store = torch.distributed.PrefixStore(f"of {rank}", store)
        group = make(store, ranks, *more)
        if is_cut:
            cut_groups.append(group)
        return group

    def bus_gb_per_second(group: Any, device: torch.device) -> float:
        if group in cut_groups and rank == min(min(ends) for ends in links):
            time.sleep(3600)  # the other end waits in its sum
        return run(group, device)

    cut_groups: list[Any] = []
    network.open_group, network.bus_gb_per_second = open_group, bus_gb_per_second


def check(
    rank: int,
    world_size: int,
    folder: str,
    fault: str,
    patience_seconds: float = 60.0,
    how: str = "",
) -> tuple[int, str]:
    """One rank; node 2 has the fault. Returns the exit code and what rank 0 printed."""

    def summed(*arguments: Any) -> Traffic:
        """Sums for real; the speeds of a busy machine would make verdicts of their own."""
        measured = network.measure_traffic(*arguments)
        assert bool(measured.errors) == (
            fault in DEAD_LINKS and any(rank in ends for ends in links)
        )
        assert all(measured.between_nodes.values())
        return Traffic(None, dict.fromkeys(measured.between_nodes, 10.0), measured.errors)

    links = DEAD_LINKS.get(fault, [])
    if links:
        sever(rank, links, how)
    is_bad = rank == 2
    if is_bad and fault == "absent":
        return CODE_BAD, ""  # it never comes
    if is_bad and fault == "silent":
        Meeting.open(World(rank, 0, world_size), "node2", patience_seconds)
        return CODE_BAD, ""  # it comes, and hangs in its driver
    own: dict[str, Any] = {
        "matmul_tflops": lambda device: 1.0 if is_bad and fault == "slow" else 10.0,
        "memory_gb_per_second": lambda device: 100.0,
        "disk_mb_per_second": lambda folder: 100.0,
        "traffic": summed,
        "driver": lambda device: DriverReport([], ["XID: not readable"]),
        "versions": lambda: {"torch": "1.0" if is_bad and fault == "version" else "2.0"},
    }
    if is_bad and fault == "unwritable":
        own["disk_mb_per_second"] = unwritable
    if fault == "left over":  # a process of a former job holds memory
        own["free_memory_gib"] = lambda device: 40.0 if is_bad else 79.0
    if is_bad and fault == "broken":
        own["matmul_tflops"] = broken
    if is_bad and fault == "clock":
        own["now"] = lambda: time.time() + 3600
    shards = Path(folder) / f"node{rank}" / "corpus.txt"
    if not (is_bad and fault == "data"):
        shards.parent.mkdir(parents=True, exist_ok=True)
        shards.write_text("text")
    config = load_config([f"run.dir={folder}/run", f"data.paths=[{folder}/corpus.txt]"])
    if fault == "data":
        # Nodes of a test share a disk: each looks at its own copy under the common name.
        from train.preflight import probes

        common = probes.data_state
        probes.data_state = lambda path: common(str(shards))
    world = World(rank, 0, world_size)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        meeting = Meeting.open(world, f"node{rank}", patience_seconds)
        code = check_nodes(
            config,
            meeting,
            torch.device("cpu"),
            Path(folder) / "bad_nodes.txt",
            patience_seconds,
            Probes(**own),
        )
    return code, printed.getvalue()


def outcome(
    folder: Path, fault: str, *more: Any, num_nodes: int = NODES
) -> tuple[set[int], str, list[str]]:
    """Exit codes, the table, and the excluded hosts."""
    results = run_distributed(check, num_nodes, str(folder), fault, *more)
    file = folder / "bad_nodes.txt"
    excluded = file.read_text().splitlines() if file.exists() else []
    return {code for code, _ in results}, results[0][1], excluded


def test_good_nodes_may_join(tmp_path: Path) -> None:
    codes, table, excluded = outcome(tmp_path, "none")
    assert codes == {0}
    assert "All 4 nodes may join." in table
    assert excluded == []
    # Both neighbours in the ring were summed with: every node has a network speed.
    assert table.count("good (XID: not readable)\n") == NODES
    assert " - " in table  # one rank per node: no speed within it


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("unwritable", "run: Permission denied"),
        ("left over", "40 GiB of GPU memory free, the median is 79"),
        ("broken", "rank 2 could not measure itself: RuntimeError: CUDA error: uncorrectable ECC"),
        ("slow", "1 TFLOP/s of matrix products, the median is 10"),
        ("version", "torch is 1.0, elsewhere 2.0"),
        ("clock", "its clock is +3600.0 s off"),
        ("data", "corpus.txt is not there"),
    ],
)
def test_a_bad_node_is_named_and_excluded(tmp_path: Path, fault: str, words: str) -> None:
    codes, table, excluded = outcome(tmp_path, fault)
    assert codes == {CODE_BAD}
    assert excluded == ["node2"]
    (line,) = (line for line in table.splitlines() if line.startswith("node2"))
    assert words in line
    assert "1 of 4 nodes must not join: node2" in table


@pytest.mark.parametrize("how", ["they never meet", "one end hangs"])
def test_a_dead_link_is_named_and_spoils_no_other_sum(tmp_path: Path, how: str) -> None:
    codes, table, excluded = outcome(tmp_path, "link", 20.0, how)
    assert codes == {CODE_BAD}
    assert excluded == []
    assert table.count("good") == NODES
    assert "The all-reduce between node2 and node3 failed: " in table
    assert table.endswith("The run must not start on these nodes.\n")


def test_a_node_that_no_neighbour_reaches_is_excluded_and_they_are_not(tmp_path: Path) -> None:
    codes, table, excluded = outcome(tmp_path, "cut off", 20.0, "they never meet")
    assert codes == {CODE_BAD}
    assert excluded == ["node2"]
    assert table.count("good") == NODES - 1
    assert "no all-reduce with node1 nor node3 succeeded: " in table


def test_a_silent_rank_is_named_and_the_others_do_not_wait_for_ever(tmp_path: Path) -> None:
    codes, table, excluded = outcome(tmp_path, "silent", 6.0)
    assert codes == {CODE_BAD}
    (line,) = (line for line in table.splitlines() if line.startswith("node2"))
    assert line.endswith("rank 2 did not answer")
    assert excluded == ["node2"]


def test_a_rank_that_never_comes_keeps_the_run_from_starting(tmp_path: Path) -> None:
    codes, table, excluded = outcome(tmp_path, "absent", 6.0)
    assert codes == {CODE_BAD}
    assert "Ranks 2 never started: their nodes are not known." in table
    assert table.endswith("The run must not start on these nodes.\n")
    assert excluded == []


@pytest.mark.parametrize("words", [["parallel.tp=4", "parallel.pp=2"], ["experiment=glm_130b"]])
def test_a_node_must_show_the_gpus_that_the_script_asks_for(
    words: list[str], tmp_path: Path
) -> None:
    words = [*words, f"run.dir={tmp_path}/run", "data.paths=a"]
    asked = re.search(r"--gpus-per-node=(\d+)", slurm([*words, "--print"]))
    assert asked is not None
    world = World()

    def code_of_a_node_with(num_devices: int) -> int:
        probes = Probes(
            num_devices=lambda device: num_devices,
            matmul_tflops=lambda device: 10.0,
            memory_gb_per_second=lambda device: 100.0,
            disk_mb_per_second=lambda folder: 100.0,
            traffic=lambda *arguments: Traffic(None, {}),
        )
        meeting = Meeting.open(world, "node0", 5.0)
        device = torch.device("cpu")
        return check_nodes(load_config(words), meeting, device, None, 5.0, probes)

    assert code_of_a_node_with(int(asked[1])) == 0
    assert code_of_a_node_with(int(asked[1]) - 1) == CODE_BAD


@pytest.mark.parametrize("count", range(1, 9))
def test_every_node_meets_both_neighbours_and_never_two_at_once(count: int) -> None:
    names = [f"node{number}" for number in range(count)]
    rounds = pairs_of(names)
    for pairs in rounds:
        members = [name for pair in pairs for name in pair]
        assert len(set(members)) == len(members)
    met = [pair for pairs in rounds for pair in pairs]
    assert len(met) == len(set(met)) == (count if count > 2 else count - 1)
    for name in names:
        others = {other for pair in met if name in pair for other in pair} - {name}
        assert len(others) == min(count - 1, 2)


def test_the_file_of_excluded_nodes_names_each_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "excluded"
    add_excluded(path, [])
    assert not path.exists()
    add_excluded(path, ["node2"])
    add_excluded(path, ["node1", "node2"])
    assert path.read_text() == "node2\nnode1\n"


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launch", "preflight", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_the_command_checks_one_node_for_real(tmp_path: Path) -> None:
    done = command(f"run.dir={tmp_path}/run", SLURMD_NODENAME="node042")
    assert done.returncode == 0, done.stderr
    # SLURM excludes nodes by its own names, not by those of the hosts.
    assert done.stdout.splitlines()[1].startswith("node042 ")
    assert done.stdout.endswith("The node may join.\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--patience", "soon"), "--patience (soon) must be whole seconds. Try --patience 120."),
        (("--exclude-file",), "--exclude-file needs a value."),
        (("cluster.gpu=H1",), "Try cluster.gpu=H100"),
    ],
)
def test_a_mistake_is_one_message_and_code_2(words: tuple[str, ...], message: str) -> None:
    done = command(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and "Traceback" not in done.stderr
