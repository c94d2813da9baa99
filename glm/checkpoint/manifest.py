"""manifest.json: what a checkpoint holds and where. Written last, it is the commit.

Its text carries a checksum of itself, so that a flipped digit is always noticed. Whoever can write a file can also
write a matching checksum, so every value is validated before it is used: reading a manifest allocates and opens nothing
that the files beside it do not really hold.
"""

import json
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from configs.errors import CheckpointError
from configs.run_paths import MANIFEST
from glm.checkpoint.boxes import Box, covers

FORMAT_VERSION = 2
"""1: Adam alone, every tensor has the same slots; 2: each tensor declares its own."""
_FIRST_WITH_SLOTS = 2
HIDDEN = f"superseded_{MANIFEST}"
"""Name of the manifest of a checkpoint that was given up: such a checkpoint is not found any more."""

PARAMETER, MASTER = "parameter", "master"
"""Slots of weights: in training precision (only where it is not fp32), and fp32. The others are the optimizer's."""

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""safetensors' names of the number formats that occur."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_\-]{1,100}\.safetensors")
_SLOT_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TENSOR_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,500}")
_LARGEST = 2**48
_LARGEST_HEADER = 2**27
_MOST_AXES = 8


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that is incomplete, or not as it was written: an older one may still be usable."""


@dataclass(frozen=True)
class Fragment:
    """One stored box and the bytes that hold it."""

    tensor: str
    kind: str
    dtype: str
    """A key of DTYPES."""
    box: Box
    file: str
    begin: int
    """First byte in the file."""
    crc32: int
    """Checksum of the bytes."""

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        return self.box.volume * DTYPES[self.dtype].itemsize

    def to_list(self) -> list[Any]:
        """Values in the order of the JSON list; without keys, because a manifest holds thousands of fragments."""
        return [
            self.tensor,
            self.kind,
            self.dtype,
            self.box.offset,
            self.box.shape,
            self.file,
            self.begin,
            self.crc32,
        ]

    @classmethod
    def from_list(cls, part: list[Any]) -> "Fragment":
        """Read a fragment from the list that `to_list` writes.

        Raises:
            TypeError, ValueError: the list does not describe a fragment.
        """
        tensor, kind, dtype, offset, shape, file, begin, crc32 = part
        box = Box(tuple(_number(start) for start in offset), tuple(_number(size) for size in shape))
        return cls(
            _text(tensor),
            _text(kind),
            _text(dtype),
            box,
            _text(file),
            _number(begin),
            _number(crc32),
        )


@dataclass(frozen=True)
class StoredFile:
    """One safetensors file: its header, then its fragments without a gap."""

    num_bytes: int
    header_bytes: int
    header_crc32: int


@dataclass(frozen=True)
class Manifest:
    """The whole table of contents."""

    step: int
    progress: dict[str, int]
    data_state: dict[str, Any]
    config: str
    """The run's resolved configuration without its cluster, YAML (configs/checkpoint_yaml.py)."""
    optimizer: dict[str, Any]
    """Adam's step, the engine's counters and, for fp16, the loss scaler's state; empty if only weights are stored."""
    tensors: dict[str, list[int]]
    """Whole shape of each parameter."""
    files: dict[str, StoredFile]
    fragments: list[Fragment]
    slots: dict[str, list[str]] = field(default_factory=dict)
    """What is stored of each parameter, as its optimizer declares it."""
    layout: dict[str, int] = field(default_factory=dict)
    """tp, pp and dp of the run that wrote it; informational only."""
    extra: dict[str, Any] = field(default_factory=dict)
    generation: int = 0
    """Generation of the attempt that wrote it: of two checkpoints, that of the later attempt counts."""

    @property
    def run_id(self) -> str | None:
        """Identity of the run that wrote it; None: written before runs had identities."""
        return None if self.extra.get("run_id") is None else str(self.extra["run_id"])

    @property
    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.tensors.values())

    def to_json(self) -> str:
        """Text of manifest.json, with its own checksum."""
        body = {
            "format_version": FORMAT_VERSION,
            "step": self.step,
            "generation": self.generation,
            "progress": self.progress,
            "layout": self.layout,
            "data_state": self.data_state,
            "optimizer": self.optimizer,
            "extra": self.extra,
            "config": self.config,
            "tensors": self.tensors,
            "slots": self.slots,
            "files": {name: asdict(file) for name, file in self.files.items()},
            "fragments": [part.to_list() for part in self.fragments],
        }
        # As it is read back from JSON: tuples are lists, keys are strings.
        body = json.loads(json.dumps(body, allow_nan=False))
        return _render({"crc32": _checksum(body), **body})

    @classmethod
    def from_json(cls, text: str, where: str) -> "Manifest":
        """Parse and validate a manifest.

        Args:
            text: content of manifest.json.
            where: its path, for messages.

        Raises:
            DamagedCheckpointError: it is damaged, incomplete or hostile.
            CheckpointError: it is of a newer version.
        """
        try:
            body = json.loads(text)
            # Not a character may differ from what `to_json` writes: a duplicate key could be read in two ways.
            is_intact = _render(body) == text and body.pop("crc32") == _checksum(body)
            version = _number(body["format_version"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedCheckpointError(f"{where} is damaged: {error!r}.") from error
        if not is_intact:
            raise DamagedCheckpointError(
                f"{where} is damaged: its checksum is not that of its text."
            )
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"{where} has format version {version}; this program reads up to {FORMAT_VERSION}. Update it: "
                'pip install --upgrade glm-pretraining, or for a clone: git pull && pip install -e "."'
            )
        try:
            fragments = [Fragment.from_list(part) for part in body["fragments"]]
            tensors = {
                name: [_number(size) for size in shape] for name, shape in body["tensors"].items()
            }
            if version >= _FIRST_WITH_SLOTS:
                slots = {
                    name: [_text(slot) for slot in known] for name, known in body["slots"].items()
                }
            else:
                stored = sorted({part.kind for part in fragments})
                slots = {name: stored for name in tensors}
            manifest = cls(
                step=_number(body["step"]),
                progress={name: _number(value) for name, value in body["progress"].items()},
                data_state=dict(body["data_state"]),
                config=_text(body["config"]),
                optimizer=dict(body["optimizer"]),
                tensors=tensors,
                files={
                    name: StoredFile(**{key: _number(value) for key, value in file.items()})
                    for name, file in body["files"].items()
                },
                fragments=fragments,
                slots=slots,
                layout={name: _number(value) for name, value in body["layout"].items()},
                extra=dict(body["extra"]),
                generation=_number(body.get("generation", 0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedCheckpointError(f"{where} is damaged: {error!r}.") from error
        manifest.check(where)
        return manifest

    def check(self, where: str) -> None:
        """Verify that names are harmless, that every tensor is whole and that the files hold nothing else.

        Raises:
            DamagedCheckpointError: one of these does not hold.
        """
        for problem in self._problems():
            raise DamagedCheckpointError(f"{where} {problem}.")

    def _problems(self) -> Iterable[str]:
        for name, file in self.files.items():
            if not _FILE_NAME.fullmatch(name):
                yield f"names a file that may lie outside its folder: {name[:200]!r}"
            # A header is read as a whole, and a sparse file of any size costs nothing to make.
            if file.header_bytes > _LARGEST_HEADER:
                yield f"says that {name} has an absurdly large header: {file.header_bytes:,} bytes"
        for name, shape in self.tensors.items():
            if not (_TENSOR_NAME.fullmatch(name) and _is_sane_shape(shape)):
                yield f"has a tensor that cannot be: {name[:200]!r} of shape {shape[:_MOST_AXES]}"
        if not self.tensors:
            yield "holds no weights"
        if self.slots.keys() != self.tensors.keys():
            yield "does not say of the same tensors what they are and what is stored of them"
        for name, slots in self.slots.items():
            if not {PARAMETER, MASTER} & set(slots):
                yield f"holds no weights of {name}"
        boxes: dict[tuple[str, str], list[Box]] = {}
        dtypes: dict[tuple[str, str], set[str]] = {}
        for part in self.fragments:
            if not self._fits(part):
                yield f"has a fragment that fits nothing: {part}"
            boxes.setdefault((part.tensor, part.kind), []).append(part.box)
            dtypes.setdefault((part.tensor, part.kind), set()).add(part.dtype)
        for name, shape in self.tensors.items():
            for kind in self.slots[name]:
                if not covers(shape, boxes.get((name, kind), [])):
                    yield f"does not hold every element of {name} ({kind}) exactly once"
                if len(dtypes.get((name, kind), ())) > 1:
                    yield f"holds {name} ({kind}) in several number formats"
        yield from self._gaps()

    def _fits(self, part: Fragment) -> bool:
        shape = self.tensors.get(part.tensor)
        return (
            shape is not None
            and part.kind in self.slots.get(part.tensor, [])
            and _SLOT_NAME.fullmatch(part.kind) is not None
            and part.dtype in DTYPES
            and part.file in self.files
            and len(shape) == len(part.box.offset) == len(part.box.shape)
            and all(
                count > 0 and start + count <= size
                for start, count, size in zip(part.box.offset, part.box.shape, shape, strict=True)
            )
        )

    def _gaps(self) -> Iterable[str]:
        """Fragments must follow one another without gap or overlap: each byte has exactly one checksum."""
        ends = {name: file.header_bytes for name, file in self.files.items()}
        for part in sorted(self.fragments, key=lambda part: part.begin):
            if part.begin != ends[part.file]:
                yield f"has bytes of {part.file} in no fragment or in two, at {ends[part.file]:,}"
            ends[part.file] = part.begin + part.num_bytes
        for name, file in self.files.items():
            if ends[name] != file.num_bytes:
                yield f"says that {name} has {file.num_bytes:,} bytes, but uses {ends[name]:,}"


def _render(body: dict[str, Any]) -> str:
    return json.dumps(body) + "\n"


def _checksum(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(canonical.encode()):08x}"


def _is_sane_shape(shape: list[int]) -> bool:
    return 0 < len(shape) <= _MOST_AXES and 0 < math.prod(shape) < _LARGEST


def _number(value: object) -> int:
    # In Python bool is an int, and a float such as 1e300 would be accepted as one.
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise ValueError(f"{str(value)[:50]} is not a count")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:50]} is not a text")
    return value
