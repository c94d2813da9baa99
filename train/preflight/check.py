"""The check on one rank: measure, publish, all-reduce with neighbours, receive the verdict."""

import json
import sys
import time
from pathlib import Path

import torch

from configs import derive
from configs.errors import EXIT_DONE, EXIT_PEER_FAILED
from configs.schema import Config
from train.preflight.judge import CPU_LIMITS, GPU_LIMITS, SILENT, judge
from train.preflight.measurement import Measurement, Traffic
from train.preflight.meeting import Meeting
from train.preflight.network import longest_seconds
from train.preflight.probes import Probes, measure
from train.preflight.table import add_excluded, render

_FAILED = "could not measure itself: "


def check_nodes(
    config: Config,
    meeting: Meeting,
    device: torch.device,
    exclude_file: Path | None,
    patience_seconds: float,
    probes: Probes,
) -> int:
    """Take part in the check; all ranks call this.

    Args:
        config: configuration of the run.
        meeting: the open store.
        device: device of this rank.
        exclude_file: rank 0 adds bad hosts to it.
        patience_seconds: how long to wait for other ranks.
        probes: the measurements.

    Returns:
        The exit code, the same on every rank: 0, or 3 if the run must not start on these nodes.

    Raises:
        DistributedError: rank 0 does not answer.
    """
    with meeting.clock(probes.now):
        try:
            measured = measure(config, meeting, device, probes).to_json()
        except (RuntimeError, OSError) as error:  # such as the errors of a broken GPU
            measured = f"{_FAILED}{type(error).__name__}: {str(error).splitlines()[0]}"
        meeting.publish("measured", measured)
        if meeting.world.is_main:
            return _lead(config, meeting, device, exclude_file, patience_seconds, probes)
        hosts = _sum(meeting, device, patience_seconds, probes)
        code = int(meeting.wait_for_main("code", longest_seconds(hosts, patience_seconds)))
        meeting.publish("left", "")
        return code


def _sum(
    meeting: Meeting, device: torch.device, patience_seconds: float, probes: Probes
) -> list[str]:
    """All-reduce with the ranks of this node and its neighbours.

    Returns:
        The node of each rank; empty if some ranks did not answer.
    """
    hosts: list[str] = json.loads(meeting.wait_for_main("hosts"))
    if hosts:
        traffic = probes.traffic(meeting, device, hosts, patience_seconds)
        meeting.publish("traffic", traffic.to_json())
    return hosts


def _lead(
    config: Config,
    meeting: Meeting,
    device: torch.device,
    exclude_file: Path | None,
    patience_seconds: float,
    probes: Probes,
) -> int:
    ranks, silent = _collect_measurements(meeting)
    hosts = meeting.hosts()
    all_hosts = [] if silent else [hosts[rank] for rank in range(meeting.world.size)]
    meeting.publish("hosts", json.dumps(all_hosts))
    started = time.monotonic()
    _sum(meeting, device, patience_seconds, probes)
    traffic: dict[int, Traffic] = {}
    if not silent:
        left = started + longest_seconds(all_hosts, patience_seconds) - time.monotonic()
        found, missing = meeting.collect("traffic", seconds=left)
        traffic = {rank: Traffic.from_json(text) for rank, text in found.items()}
        silent = dict.fromkeys(missing, SILENT)
    limits = GPU_LIMITS if device.type == "cuda" else CPU_LIMITS
    judgement = judge(hosts, ranks, traffic, silent, derive.ranks_per_node(config), limits)
    sys.stdout.write(render(judgement) + "\n")
    sys.stdout.flush()
    if exclude_file is not None:
        add_excluded(exclude_file, judgement.bad_hosts)
    code = EXIT_DONE if judgement.is_good else EXIT_PEER_FAILED
    meeting.publish("code", str(code))
    # This rank may serve the store: let the others read the exit code before it closes.
    others = [rank for rank in range(1, meeting.world.size) if silent.get(rank) != SILENT]
    meeting.collect("left", others)
    return code


def _collect_measurements(meeting: Meeting) -> tuple[dict[int, Measurement], dict[int, str]]:
    """Collect the measurements of the ranks, and for the other ranks the reason why they have none."""
    texts, missing = meeting.collect("measured")
    silent = dict.fromkeys(missing, SILENT)
    silent |= {rank: text for rank, text in texts.items() if text.startswith(_FAILED)}
    ranks = {
        rank: Measurement.from_json(text) for rank, text in texts.items() if rank not in silent
    }
    return ranks, silent
