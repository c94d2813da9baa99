"""The check from one rank's view: measure, publish, sum with neighbours, hear the verdict."""

import json
import sys
from pathlib import Path

import torch

from configs import derive
from configs.errors import EXIT_DONE, EXIT_PEER_FAILED
from configs.schema import Config
from train.preflight.judge import CPU_LIMITS, GPU_LIMITS, judge
from train.preflight.measurement import Measurement, Traffic
from train.preflight.meeting import Meeting
from train.preflight.probes import Probes, measure
from train.preflight.table import add_excluded, render


def check_nodes(
    config: Config,
    meeting: Meeting,
    device: torch.device,
    exclude_file: Path | None,
    patience_seconds: float,
    probes: Probes,
) -> int:
    """Take part; returns the exit code, the same on every rank: 0, or 3 if a node must not join.

    Args:
        config: the run.
        meeting: the open store.
        device: of this rank.
        exclude_file: rank 0 adds bad hosts to it.
        patience_seconds: how long to wait for others.
        probes: how to measure.

    Raises:
        DistributedError: rank 0 is silent.
    """
    with meeting.clock(probes.now):
        offset = meeting.clock_offset_seconds(probes.now)
        own = measure(config, meeting.world, device, offset, probes)
        meeting.publish("measured", own.to_json())
        if meeting.world.is_main:
            return _lead(config, meeting, device, exclude_file, patience_seconds, probes)
        hosts: list[str] = json.loads(meeting.hear_main("hosts"))
        if hosts:
            traffic = probes.traffic(meeting, device, hosts, patience_seconds)
            meeting.publish("traffic", traffic.to_json())
        code = int(meeting.hear_main("code"))
        meeting.publish("left", "")
        return code


def _lead(
    config: Config,
    meeting: Meeting,
    device: torch.device,
    exclude_file: Path | None,
    patience_seconds: float,
    probes: Probes,
) -> int:
    said, silent = meeting.collect("measured")
    ranks = {rank: Measurement.from_json(text) for rank, text in said.items()}
    hosts = [] if silent else [ranks[rank].host for rank in range(meeting.world.size)]
    meeting.publish("hosts", json.dumps(hosts))
    traffic: dict[int, Traffic] = {}
    if hosts:
        own = probes.traffic(meeting, device, hosts, patience_seconds)
        meeting.publish("traffic", own.to_json())
        heard, silent = meeting.collect("traffic")
        traffic = {rank: Traffic.from_json(text) for rank, text in heard.items()}
    limits = GPU_LIMITS if device.type == "cuda" else CPU_LIMITS
    verdicts = judge(ranks, traffic, silent, derive.ranks_per_node(config), limits)
    sys.stdout.write(render(verdicts) + "\n")
    sys.stdout.flush()
    bad = [verdict.host for verdict in verdicts if verdict.problems]
    known = [host for host in bad if host in {rank.host for rank in ranks.values()}]
    if exclude_file is not None:
        add_excluded(exclude_file, known)
    code = EXIT_PEER_FAILED if bad else EXIT_DONE
    meeting.publish("code", str(code))
    # The store may be ours: let the others read the code before it closes.
    meeting.collect("left", [rank for rank in ranks if rank > 0 and rank not in silent])
    return code
