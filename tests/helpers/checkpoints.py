"""Small checkpoints made by hand, as several ranks would write them."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.run_checkpoints import step_folder
from glm.checkpoint import manifest as format_
from glm.checkpoint.boxes import TensorSlice
from glm.checkpoint.manifest import Fragment, Manifest, StoredFile
from glm.checkpoint.writer import Piece, commit, write_rank_file

SHAPES = {"layers.0.mlp.dense_out.weight": (6, 4), "final_norm.weight": (5,)}
KINDS = {
    "parameter": torch.bfloat16,
    "master": torch.float32,
    "exp_avg": torch.float32,
    "exp_avg_sq": torch.float32,
}
NUM_RANKS = 3


def tensors(seed: int) -> dict[tuple[str, str], Tensor]:
    """Whole tensors by (name, kind)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        (name, kind): torch.randn(shape, generator=generator).to(dtype)
        for name, shape in SHAPES.items()
        for kind, dtype in KINDS.items()
    }


def pieces_of(rank: int, seed: int) -> list[Piece]:
    """What one of NUM_RANKS replicas owns: a flat third of each tensor."""
    pieces = []
    for (name, kind), whole in tensors(seed).items():
        flat = whole.reshape(-1)
        start, stop = (flat.numel() * (rank + i) // NUM_RANKS for i in (0, 1))
        for position, box in TensorSlice(tuple(whole.shape), None, 0, 1).boxes(start, stop - start):
            first = start + position
            pieces.append(Piece(name, kind, box, flat[first : first + box.volume]))
    return pieces


def write_files(
    checkpoints: Path, step: int, seed: int, attempt: str
) -> tuple[dict[str, StoredFile], list[Fragment]]:
    """Write every rank's file of a checkpoint, without committing it."""
    folder = step_folder(checkpoints, step)
    folder.mkdir(parents=True, exist_ok=True)
    files, fragments = {}, []
    for rank in range(NUM_RANKS):
        name = f"rank{rank:05d}-{attempt}.safetensors"
        files[name], parts = write_rank_file(folder, name, pieces_of(rank, seed))
        fragments += parts
    return files, fragments


def small_manifest(step: int, files: dict[str, StoredFile], fragments: list[Fragment]) -> Manifest:
    """A table of contents for such files."""
    return Manifest(
        step=step,
        progress={"step": step, "samples_seen": 10 * step},
        data_state={"seed": 1, "sources": [{"name": "corpus"}]},
        config="seed: 1\n",
        optimizer={"step": float(step)},
        tensors={name: list(shape) for name, shape in SHAPES.items()},
        slots={name: list(KINDS) for name in SHAPES},
        files=files,
        fragments=fragments,
        extra={"wandb_run_id": "abc"},
    )


def save(
    checkpoints: Path,
    step: int,
    seed: int,
    attempt: str = "0000000a",
    superseded: tuple[Path, ...] = (),
) -> Path:
    """Write and commit a checkpoint; returns its folder."""
    files, fragments = write_files(checkpoints, step, seed, attempt)
    folder = step_folder(checkpoints, step)
    commit(folder, small_manifest(step, files, fragments), superseded)
    return folder


def with_checksum(body: dict[str, Any]) -> str:
    """The text of a manifest as somebody writes it who knows the format: with a fitting checksum."""
    body = {key: value for key, value in body.items() if key != "crc32"}
    return format_._render({"crc32": format_._checksum(body), **body})


def forge(folder: Path, **changes: Any) -> Path:
    """Change fields of a checkpoint's manifest, with a fitting checksum; returns the folder."""
    path = folder / "manifest.json"
    path.write_text(with_checksum({**json.loads(path.read_text()), **changes}))
    return folder
