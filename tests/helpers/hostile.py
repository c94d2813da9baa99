"""Checkpoints made by somebody who knows the format and wishes harm. Each attack changes a copy of a good one."""

import json
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.checkpoints import forge

Attack = Callable[[Path, Path], None]
"""Changes the checkpoint in the first folder; files in the second lie outside, and must stay as they are."""


class Bomb:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self._trace = str(trace)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self._trace, "w"))


def trace_of(outside: Path) -> Path:
    """The file that a pickle which was executed would have made."""
    return outside / "executed"


def body_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def first_file(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[0]


def _pickled_manifest(folder: Path, outside: Path) -> None:
    (folder / "manifest.json").write_bytes(pickle.dumps(Bomb(trace_of(outside))))


def _pickled_file(folder: Path, outside: Path) -> None:
    first_file(folder).write_bytes(pickle.dumps(Bomb(trace_of(outside))))


def _with_header(folder: Path, header: bytes) -> None:
    """Put other bytes in place of a header, with sizes and checksums that fit."""
    path, body = first_file(folder), body_of(folder)
    file = body["files"][path.name]
    path.write_bytes(header + path.read_bytes()[file["header_bytes"] :])
    longer = len(header) - file["header_bytes"]
    file.update(
        num_bytes=file["num_bytes"] + longer,
        header_bytes=len(header),
        header_crc32=zlib.crc32(header),
    )
    for part in body["fragments"]:
        part[6] += longer if part[5] == path.name else 0
    forge(folder, files=body["files"], fragments=body["fragments"])


def _fitting_pickled_header(folder: Path, outside: Path) -> None:
    _with_header(folder, pickle.dumps(Bomb(trace_of(outside))))


def _endless_header(folder: Path, outside: Path) -> None:
    path, body = first_file(folder), body_of(folder)
    header = path.read_bytes()[: body["files"][path.name]["header_bytes"]]
    _with_header(folder, (2**62).to_bytes(8, "little") + header[8:])


def _pickles_beside(folder: Path, outside: Path) -> None:
    """What DeepSpeed would have written, and nothing else."""
    for path in folder.iterdir():
        path.unlink()
    for name in ("mp_rank_00_model_states.pt", "manifest.pt", "latest"):
        (folder / name).write_bytes(pickle.dumps(Bomb(trace_of(outside))))


def _file_outside(folder: Path, outside: Path) -> None:
    path, body = first_file(folder), body_of(folder)
    path.rename(outside / "secret.safetensors")
    name = f"../../../{outside.name}/secret.safetensors"
    body["files"][name] = body["files"].pop(path.name)
    for part in body["fragments"]:
        part[5] = name if part[5] == path.name else part[5]
    forge(folder, files=body["files"], fragments=body["fragments"])


def _tensor_outside(folder: Path, outside: Path) -> None:
    body = body_of(folder)
    old, new = "final_norm.weight", "../../outside"
    body["tensors"][new] = body["tensors"].pop(old)
    body["slots"][new] = body["slots"].pop(old)
    for part in body["fragments"]:
        part[0] = new if part[0] == old else part[0]
    forge(folder, tensors=body["tensors"], slots=body["slots"], fragments=body["fragments"])


def _link_to_file(folder: Path, outside: Path) -> None:
    path = first_file(folder)
    path.rename(outside / "secret.safetensors")
    path.symlink_to(outside / "secret.safetensors")


def _link_to_manifest(folder: Path, outside: Path) -> None:
    path = folder / "manifest.json"
    path.rename(outside / "manifest.json")
    path.symlink_to(outside / "manifest.json")


def _link_to_endless_device(folder: Path, outside: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").symlink_to("/dev/zero")


def _pipe(folder: Path, outside: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")


def _huge_manifest(folder: Path, outside: Path) -> None:
    os.truncate(folder / "manifest.json", 2**40)


def _deep_manifest(folder: Path, outside: Path) -> None:
    (folder / "manifest.json").write_text("[" * 1_000_000)


def _doubled_key(folder: Path, outside: Path) -> None:
    path = folder / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"step":', '"step": 999, "step":', 1))


def _absurd_shape(folder: Path, outside: Path) -> None:
    tensors = body_of(folder)["tensors"]
    forge(folder, tensors={**tensors, "final_norm.weight": [2**24, 2**23]})


def _negative_place(folder: Path, outside: Path) -> None:
    fragments = body_of(folder)["fragments"]
    fragments[0][6] = -8
    forge(folder, fragments=fragments)


def _absurd_file(folder: Path, outside: Path) -> None:
    path, body = first_file(folder), body_of(folder)
    body["files"][path.name]["num_bytes"] = 2**47
    forge(folder, files=body["files"])


def _sparse_header(folder: Path, outside: Path) -> None:
    """A file with holes: it has the size that the manifest gives, and takes no room."""
    path, body = first_file(folder), body_of(folder)
    file = body["files"][path.name]
    longer = 2**43 - file["header_bytes"]
    file.update(num_bytes=file["num_bytes"] + longer, header_bytes=2**43)
    for part in body["fragments"]:
        part[6] += longer if part[5] == path.name else 0
    os.truncate(path, file["num_bytes"])
    forge(folder, files=body["files"], fragments=body["fragments"])


def _interlocking_boxes(folder: Path, outside: Path) -> None:
    """Boxes that interlock: comparing each with each would take hours."""
    body = body_of(folder)
    count = 30_000
    body["tensors"]["wall"] = [3 * count, 2]
    part = next(part for part in body["fragments"] if len(part[3]) == 2)
    body["slots"]["wall"] = [part[1]]
    for row in range(count):
        body["fragments"].append(["wall", *part[1:3], [3 * row, 0], [3, 1], *part[5:]])
        body["fragments"].append(["wall", *part[1:3], [max(3 * row - 1, 0), 1], [3, 1], *part[5:]])
    forge(folder, tensors=body["tensors"], slots=body["slots"], fragments=body["fragments"])


def _not_a_number(folder: Path, outside: Path) -> None:
    forge(folder, step=float("nan"))


FORMAT_ATTACKS: dict[str, tuple[Attack, str]] = {
    "pickle as manifest": (_pickled_manifest, "manifest.json"),
    "pickle as file": (_pickled_file, "safetensors is damaged"),
    "pickle as header": (_fitting_pickled_header, "header"),
    "endless header": (_endless_header, "header"),
    "pickles beside": (_pickles_beside, ""),
    "file outside": (_file_outside, "outside its folder"),
    "tensor outside": (_tensor_outside, "cannot be"),
    "link to a file": (_link_to_file, "not a regular file"),
    "link to a manifest": (_link_to_manifest, "not a regular file"),
    "link to a device": (_link_to_endless_device, "not a regular file"),
    "pipe": (_pipe, "not a regular file"),
    "huge manifest": (_huge_manifest, "absurdly large"),
    "deep manifest": (_deep_manifest, "damaged"),
    "doubled key": (_doubled_key, "damaged"),
    "absurd shape": (_absurd_shape, "final_norm.weight"),
    "negative place": (_negative_place, "damaged"),
    "absurd file": (_absurd_file, "has 140,737,488,355,328 bytes"),
    "sparse header": (_sparse_header, "absurdly large header"),
    "interlocking boxes": (_interlocking_boxes, "wall"),
    "no number": (_not_a_number, "damaged"),
}
"""Attacks on the format, and a part of the message that refuses each."""
