"""manifest.json: what a checkpoint holds and where. Written last, it is the commit.

Everything in it is checked before it is used: it may be damaged, of a newer program, or made by somebody hostile.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from configs.errors import CheckpointError
from glm.checkpoint.boxes import Box, covers

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
KINDS = ("master", "exp_avg", "exp_avg_sq")
"""fp32 weights and Adam's moments. The weights in training precision are the masters, rounded."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_\-]+\.safetensors")
_LARGEST_AXIS = 2**40


@dataclass(frozen=True)
class Fragment:
    """One stored box."""

    tensor: str
    kind: str
    box: Box
    file: str
    key: str


@dataclass(frozen=True)
class StoredFile:
    """Size and checksum of one safetensors file."""

    num_bytes: int
    crc32: int


@dataclass(frozen=True)
class Manifest:
    """The whole table of contents."""

    step: int
    progress: dict[str, int]
    data_state: dict[str, Any]
    config: str
    """The run's resolved configuration, YAML."""
    optimizer: dict[str, Any]
    """Adam's step and, for fp16, the loss scaler's state."""
    tensors: dict[str, list[int]]
    """Whole shape of each parameter."""
    files: dict[str, StoredFile]
    fragments: list[Fragment]
    layout: dict[str, int] = field(default_factory=dict)
    """tp, pp and dp of the run that wrote it; for people."""
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Render."""
        body = {
            "format_version": FORMAT_VERSION,
            "step": self.step,
            "progress": self.progress,
            "layout": self.layout,
            "data_state": self.data_state,
            "optimizer": self.optimizer,
            "extra": self.extra,
            "config": self.config,
            "tensors": self.tensors,
            "files": {name: asdict(file) for name, file in self.files.items()},
            "fragments": [
                [part.tensor, part.kind, part.box.offset, part.box.shape, part.file, part.key]
                for part in self.fragments
            ],
        }
        return json.dumps(body) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "Manifest":
        """Parse and check.

        Args:
            text: content of manifest.json.
            where: its path, for messages.

        Raises:
            CheckpointError: it is damaged, incomplete, hostile, or of a newer version.
        """
        try:
            body = json.loads(text)
            version = int(body["format_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{where} is damaged: {error}.") from error
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"{where} has format version {version}; this program reads up to {FORMAT_VERSION}. Update it."
            )
        try:
            manifest = cls(
                step=int(body["step"]),
                progress={str(key): int(value) for key, value in body["progress"].items()},
                data_state=dict(body["data_state"]),
                config=str(body["config"]),
                optimizer=dict(body["optimizer"]),
                tensors={
                    str(name): [int(size) for size in shape] for name, shape in body["tensors"].items()
                },
                files={
                    str(name): StoredFile(int(file["num_bytes"]), int(file["crc32"]))
                    for name, file in body["files"].items()
                },
                fragments=[_fragment(part) for part in body["fragments"]],
                layout={str(key): int(value) for key, value in body["layout"].items()},
                extra=dict(body["extra"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{where} is damaged: {error!r}.") from error
        manifest.check(where)
        return manifest

    def check(self, where: str) -> None:
        """Verify that names are harmless and that every tensor is whole.

        Raises:
            CheckpointError: it is not so.
        """
        for name in self.files:
            if not _FILE_NAME.fullmatch(name):
                raise CheckpointError(f"{where} names a file outside its folder: {name!r}.")
        boxes: dict[tuple[str, str], list[Box]] = {}
        for part in self.fragments:
            self._check_fragment(part, where)
            boxes.setdefault((part.tensor, part.kind), []).append(part.box)
        for name, shape in self.tensors.items():
            for kind in KINDS:
                if not covers(shape, boxes.get((name, kind), [])):
                    raise CheckpointError(f"{where} does not hold all of {name} ({kind}).")

    def _check_fragment(self, part: Fragment, where: str) -> None:
        shape = self.tensors.get(part.tensor)
        inside = (
            shape is not None
            and len(shape) == len(part.box.offset) == len(part.box.shape)
            and all(0 < size < _LARGEST_AXIS for size in shape)
            and all(
                start >= 0 and count > 0 and start + count <= size
                for start, count, size in zip(part.box.offset, part.box.shape, shape, strict=True)
            )
        )
        if not inside or part.kind not in KINDS or part.file not in self.files:
            raise CheckpointError(f"{where} has a fragment that fits nothing: {part}.")

    @property
    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.tensors.values())


def _fragment(part: list[Any]) -> Fragment:
    tensor, kind, offset, shape, file, key = part
    box = Box(tuple(int(i) for i in offset), tuple(int(n) for n in shape))
    return Fragment(str(tensor), str(kind), box, str(file), str(key))


def merge(parts: Mapping[int, list[Fragment]]) -> list[Fragment]:
    """Join the ranks' fragments in rank order."""
    return [fragment for rank in sorted(parts) for fragment in parts[rank]]
