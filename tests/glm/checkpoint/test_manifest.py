"""The manifest: nothing in it is believed before it is checked."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import CheckpointError
from glm.checkpoint.manifest import DamagedCheckpointError, Manifest
from tests.helpers.checkpoints import KINDS, save, small_manifest, with_checksum, write_files


@pytest.fixture
def text(tmp_path: Path) -> str:
    return (save(tmp_path, 3, seed=1) / "manifest.json").read_text()


def parse(body: dict[str, Any]) -> Manifest:
    """Parse a body as an attacker would send it: with a fitting checksum."""
    return Manifest.from_json(with_checksum(body), "here")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    before = small_manifest(7, *write_files(tmp_path, 7, seed=2, attempt="abcd1234"))
    assert Manifest.from_json(before.to_json(), "here") == before


@pytest.fixture(scope="module")
def module_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return (save(tmp_path_factory.mktemp("runs"), 3, seed=1) / "manifest.json").read_text()


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_one_flipped_bit_is_noticed(module_text: str, data: st.DataObject) -> None:
    content = bytearray(module_text.encode())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamagedCheckpointError):
        Manifest.from_json(content.decode("latin-1"), "here")


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_truncated_manifest_is_noticed(module_text: str, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(module_text) - 1))
    with pytest.raises(DamagedCheckpointError):
        Manifest.from_json(module_text[:length], "here")


def test_a_newer_version_is_refused_and_not_taken_for_damage(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"format version 3.*reads up to 2.*pip install") as e:
        parse({**json.loads(text), "format_version": 3})
    assert not isinstance(e.value, DamagedCheckpointError)


@pytest.mark.parametrize(
    "name",
    [
        "../other.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "x.pt",
        "..",
        "a\x00.safetensors",
        "",
    ],
)
def test_a_file_outside_the_folder_is_refused(text: str, name: str) -> None:
    body = json.loads(text)
    old = next(iter(body["files"]))
    body["files"][name] = body["files"].pop(old)
    for part in body["fragments"]:
        part[5] = name if part[5] == old else part[5]
    with pytest.raises(DamagedCheckpointError, match="outside its folder"):
        parse(body)


def test_a_tensor_of_absurd_size_is_refused(text: str) -> None:
    body = json.loads(text)
    body["tensors"]["final_norm.weight"] = [2**24, 2**24]
    with pytest.raises(DamagedCheckpointError, match="cannot be"):
        parse(body)


def test_a_tensor_larger_than_its_bytes_is_refused(text: str) -> None:
    body = json.loads(text)
    body["tensors"]["final_norm.weight"] = [2**30]
    with pytest.raises(DamagedCheckpointError, match="every element of final_norm.weight"):
        parse(body)


@pytest.mark.parametrize("name", ["", "a/../b", "a b", "x" * 501])
def test_a_strange_tensor_name_is_refused(text: str, name: str) -> None:
    body = json.loads(text)
    body["tensors"][name] = body["tensors"].pop("final_norm.weight")
    with pytest.raises(DamagedCheckpointError, match="cannot be"):
        parse(body)


@pytest.mark.parametrize(
    "field, value",
    [
        ("step", -1),
        ("step", True),
        ("step", 1e300),
        ("step", "7"),
        ("step", 2**60),
        ("progress", {"samples_seen": None}),
        ("progress", 7),
        ("config", None),
        ("files", []),
        ("fragments", {}),
        ("fragments", [[1, 2, 3]]),
        ("tensors", {"final_norm.weight": "5"}),
        ("extra", 3),
    ],
)
def test_a_field_of_another_type_is_refused(text: str, field: str, value: object) -> None:
    with pytest.raises(DamagedCheckpointError):
        parse({**json.loads(text), field: value})


@pytest.mark.parametrize(
    "position, value",
    [
        (0, "unknown"),
        (1, "gradient"),
        (2, "I64"),
        (3, [-1, 0]),
        (3, [0]),
        (4, [7, 4]),
        (4, [0, 4]),
        (5, "rank00009-0000000a.safetensors"),
    ],
)
def test_a_fragment_that_fits_nothing_is_refused(text: str, position: int, value: object) -> None:
    body = json.loads(text)
    matrix = next(part for part in body["fragments"] if len(part[3]) == 2)
    matrix[position] = value
    with pytest.raises(DamagedCheckpointError):
        parse(body)


def test_bytes_used_twice_are_refused(text: str) -> None:
    body = json.loads(text)
    file = body["fragments"][0][5]
    first, second, *_ = (part for part in body["fragments"] if part[5] == file)
    second[6] = first[6]
    with pytest.raises(DamagedCheckpointError, match="in no fragment or in two"):
        parse(body)


def test_one_tensor_in_two_number_formats_is_refused(text: str) -> None:
    body = json.loads(text)
    low = next(part for part in body["fragments"] if part[2] == "BF16")
    low[2] = "F16"
    with pytest.raises(DamagedCheckpointError, match="several number formats"):
        parse(body)


def test_a_missing_fragment_is_refused(text: str) -> None:
    body = json.loads(text)
    del body["fragments"][-1]
    with pytest.raises(DamagedCheckpointError, match="exactly once"):
        parse(body)


def test_a_checkpoint_without_weights_is_refused(text: str) -> None:
    body = {**json.loads(text), "fragments": [], "tensors": {}, "files": {}}
    with pytest.raises(DamagedCheckpointError, match="holds no weights"):
        parse(body)


def as_format_1(text: str) -> dict[str, Any]:
    """The same checkpoint as the first program wrote it: Adam's slots went without saying."""
    body = {**json.loads(text), "format_version": 1}
    del body["slots"]
    return body


def test_the_first_format_is_still_read(text: str) -> None:
    found, expected = parse(as_format_1(text)), Manifest.from_json(text, "here")
    assert found == replace(expected, slots={name: sorted(KINDS) for name in expected.tensors})


def test_the_first_format_holds_every_slot_of_every_tensor(text: str) -> None:
    body = as_format_1(text)
    body["fragments"] = [
        part
        for part in body["fragments"]
        if (part[0], part[1]) != ("final_norm.weight", "exp_avg_sq")
    ]
    with pytest.raises(DamagedCheckpointError, match=r"final_norm.weight \(exp_avg_sq\)"):
        parse(body)


def without_slot(body: dict[str, Any], tensor: str, slot: str) -> dict[str, Any]:
    """The same checkpoint, its bytes laid anew, without one slot of one tensor."""
    ends = {name: file["header_bytes"] for name, file in body["files"].items()}
    kept = []
    for part in sorted(body["fragments"], key=lambda part: part[6]):
        if (part[0], part[1]) == (tensor, slot):
            continue
        size = math.prod(part[4]) * {"F32": 4, "BF16": 2}[part[2]]
        kept.append([*part[:6], ends[part[5]], part[7]])
        ends[part[5]] += size
    files = {name: {**file, "num_bytes": ends[name]} for name, file in body["files"].items()}
    return {**body, "files": files, "fragments": kept}


def test_tensors_may_have_different_optimizers(text: str) -> None:
    body = without_slot(json.loads(text), "final_norm.weight", "exp_avg_sq")
    with pytest.raises(DamagedCheckpointError, match=r"final_norm.weight \(exp_avg_sq\)"):
        parse(body)
    body["slots"]["final_norm.weight"] = ["parameter", "master", "exp_avg"]
    assert parse(body).slots["final_norm.weight"] == ["parameter", "master", "exp_avg"]


@pytest.mark.parametrize(
    "slots, message",
    [
        ({}, "does not say of the same tensors"),
        ({"final_norm.weight": ["exp_avg", "exp_avg_sq"]}, "holds no weights of final_norm.weight"),
        (
            {"final_norm.weight": ["master", "parameter", "exp_avg", "exp_avg_sq", "momentum"]},
            "momentum",
        ),
        ({"final_norm.weight": ["parameter", "master", "exp_avg"]}, "fits nothing"),
    ],
)
def test_slots_and_what_is_stored_must_agree(
    text: str, slots: dict[str, list[str]], message: str
) -> None:
    body = json.loads(text)
    with pytest.raises(DamagedCheckpointError, match=message):
        parse({**body, "slots": {**body["slots"], **slots} if slots else {}})


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(DamagedCheckpointError):
        Manifest.from_json("[" * 100_000, "here")
