"""The verdicts as a table, and the file of excluded nodes."""

import os
from collections.abc import Sequence
from pathlib import Path

from train.preflight.judge import Judgement

_HEAD = (
    f"{'node':<24} {'TFLOP/s':>9} {'mem GB/s':>9} {'in node':>9} {'network':>9} {'disk MB/s':>10}  "
)


def render(judgement: Judgement) -> str:
    """Render one line per node with its speeds, problems and notes, then the problems that no single node causes."""
    lines = [_HEAD + "verdict"]
    for verdict in judgement.nodes:
        speeds = (
            f"{verdict.host:<24} {_number(verdict.matmul_tflops):>9} "
            f"{_number(verdict.memory_gb_per_second):>9} "
            f"{_number(verdict.within_node_gb_per_second):>9} "
            f"{_number(verdict.between_nodes_gb_per_second):>9} "
            f"{_number(verdict.disk_mb_per_second):>10}  "
        )
        notes = f" ({'; '.join(verdict.notes)})" if verdict.notes else ""
        lines.append(speeds + ("; ".join(verdict.problems) or "good") + notes)
    lines += judgement.problems
    bad, count = judgement.bad_hosts, len(judgement.nodes)
    if bad:
        lines.append(f"{len(bad)} of {count} nodes must not join: {', '.join(bad)}")
    elif judgement.problems:
        lines.append("The run must not start on these nodes.")
    else:
        lines.append(f"All {count} nodes may join." if count > 1 else "The node may join.")
    return "\n".join(lines)


def add_excluded(path: Path, hosts: Sequence[str]) -> None:
    """Add hosts to a file of excluded nodes, one per line, each once."""
    known = path.read_text().splitlines() if path.exists() else []
    new = [host for host in hosts if host not in known]
    if new:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Only the owner can read a new file; an existing file keeps its mode.
        with open(path, "w", encoding="utf-8", opener=_for_its_owner) as file:
            file.write("\n".join([*known, *new]) + "\n")


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"
