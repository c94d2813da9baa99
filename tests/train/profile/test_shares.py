"""What the moments of a step belong to, on traces written by hand; and traces that are damaged or missing."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from train.profile.__main__ import cli
from train.profile.shares import shares_of
from train.profile.trace import Trace, read_trace, short_name

NAME = "step_7_to_7_rank_2.json"
EVALUATE = "autograd::engine::evaluate_function: "


def event(
    name: str, start: float, end: float, category: str = "cpu_op", tid: Any = 1, **arguments: Any
) -> dict[str, Any]:
    """Microseconds."""
    place = {"pid": 10, "tid": tid, "ts": start, "dur": end - start}
    return {"ph": "X", "cat": category, "name": name, **place, "args": arguments}


def ranged(name: str, start: float, end: float) -> dict[str, Any]:
    return event(name, start, end, "user_annotation")


def op(name: str, start: float, end: float, sequence: int) -> dict[str, Any]:
    return event(name, start, end, **{"Sequence number": sequence})


# A step from 0 to 1000: a layer's forward pass from 100 to 400, its backward pass from 500 to 800.
HOST = [
    ranged("step 7", 0, 1000),
    ranged("data", 10, 30),
    ranged("forward", 100, 400),
    ranged("layer 0", 110, 390),
    op("_Norm", 110, 130, 1),
    ranged("attention", 140, 240),
    op("aten::mm", 150, 200, 2),
    ranged("communication", 210, 230),
    ranged("mlp", 260, 360),
    op("_Linear", 260, 350, 3),
    op("aten::mm", 270, 340, 4),  # within the other
    ranged("gloo:all_reduce", 225, 500),  # ends in another thread
    ranged("backward", 500, 800),
    op(f"{EVALUATE}_LinearBackward", 510, 600, 3),
    event("aten::mm", 520, 560),
    event(f"{EVALUATE}torch::autograd::AccumulateGrad", 600, 640, **{"Sequence number": 2**64 - 1}),
    op(f"{EVALUATE}MmBackward0", 650, 700, 2),
    op(f"{EVALUATE}_NormBackward", 700, 720, 1),
    ranged("bubble", 850, 900),
    ranged("communication", 860, 890),
    ranged("evaluation", 950, 990),
    ranged("attention", 955, 985),
    ranged("checkpoint", 1005, 1100),  # after the step
]


def written(folder: Path, events: list[dict[str, Any]], name: str = NAME) -> Path:
    (folder / "profile").mkdir(exist_ok=True)
    path = folder / "profile" / name
    text = json.dumps({"schemaVersion": 1, "traceEvents": events})
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def read(folder: Path, events: list[dict[str, Any]]) -> Trace:
    return read_trace(written(folder, events))


def in_microseconds(values: dict[str, float]) -> dict[str, int]:
    return {name: round(1e6 * value) for name, value in values.items() if value}


def test_every_moment_of_a_step_on_cpu_has_a_part(tmp_path: Path) -> None:
    trace = read(tmp_path, [{"ph": "M", "name": "process_name", "pid": 10}, *HOST])
    assert (trace.rank, trace.first, trace.last) == (2, 7, 7)
    shares = shares_of(trace)
    assert shares.steps == [7] and shares.step_seconds == [pytest.approx(1e-3)]
    expected = {
        "data": 20,
        "attention": 80 + 50,
        "MLP": 100 + 90 + 40,
        "norms and residuals": 280 - 100 - 100 + 20,
        "communication": 20,
        "bubble": 50,
        "evaluation": 40,
    }
    expected["other"] = 1000 - sum(expected.values())
    assert in_microseconds(shares.parts) == expected
    by_name = {
        name: (round(1e6 * each.seconds), each.calls) for name, each in shares.operators.items()
    }
    assert by_name["aten::mm"] == (50 + 70 + 40, 3)
    assert by_name["_Linear"] == (20, 1)


def test_on_a_gpu_kernels_belong_where_they_were_started(tmp_path: Path) -> None:
    launches = [(1, 160), (2, 280), (3, 530), (4, 215), (5, 660), (6, 870)]
    kernels = [
        (1, "void gemm<float, 3>(int, int)", 300, 400),
        (2, "void gemm<float, 3>(int, int)", 400, 450),
        (4, "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(int)", 420, 500),
        (3, "void gemm_backward<half>(int)", 600, 640),
        (5, "Memcpy DtoD (Device -> Device)", 700, 710),
        (6, "ncclDevKernel_SendRecv(int)", 900, 1100),  # runs on behind the step
        (99, "started_by_nobody", 800, 810),
    ]
    events = [
        *HOST,
        *(
            event("cudaLaunchKernel", at, at + 3, "cuda_runtime", correlation=c)
            for c, at in launches
        ),
        *(event(name, a, b, "kernel", 7, correlation=c) for c, name, a, b in kernels),
    ]
    shares = shares_of(read(tmp_path, events))
    assert shares.on_gpu
    expected = {
        "attention": 100 + 10,
        "MLP": 50 + 40,
        "communication": 500 - 450,  # what is beside the product is hidden
        "bubble": 100,
        "other": 10,
    }
    expected["device idle"] = 1000 - sum(expected.values())
    assert in_microseconds(shares.parts) == expected
    assert shares.operators["gemm"].calls == 2
    assert round(1e6 * shares.operators["ncclDevKernel_SendRecv"].seconds) == 100


@pytest.mark.parametrize(
    "name, short",
    [
        ("aten::mm", "aten::mm"),
        ("void at::native::kernel<4, F<a(int)>>(int, T<b>)", "at::native::kernel"),
        ("Memcpy HtoD (Pageable -> Device)", "Memcpy HtoD"),
        ("(anonymous)", "(anonymous)"),
    ],
)
def test_names_of_kernels(name: str, short: str) -> None:
    assert short_name(name) == short


def damaged(folder: Path, content: bytes, name: str = NAME) -> None:
    (folder / "profile").mkdir(exist_ok=True)
    (folder / "profile" / name).write_bytes(content)


WHOLE = json.dumps({"traceEvents": HOST}).encode()
PACKED = gzip.compress(WHOLE)


@pytest.mark.parametrize(
    "content, name",
    [
        (WHOLE[:-40], NAME),
        (b"", NAME),
        (b"[1, 2]", NAME),
        (b'{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "a"}]}', NAME),
        (b'{"traceEvents": 5}', NAME),
        (b"\xff\xfe\x00", NAME),
        (PACKED[:-100], f"{NAME}.gz"),
        (WHOLE, f"{NAME}.gz"),
        (PACKED[:40] + bytes(40) + PACKED[80:], f"{NAME}.gz"),
        (b'{"traceEvents": [], "cat": "cpu_op"}', NAME),
        (b'{"traceEvents": [7]}', NAME),
    ],
)
def test_a_damaged_trace_is_one_message_and_the_others_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, name: str
) -> None:
    damaged(tmp_path, content, name)
    written(tmp_path, HOST, "step_7_to_7_rank_3.json.gz")
    assert cli([str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and name in shown.err
    assert shown.err.endswith("Profile the steps again.\n")
    assert shown.out.startswith("Rank 3, step 7 on CPU: 0.001 s a step\n")


def test_the_newest_steps_are_shown_and_names_stay_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = [*HOST, event("\x1b[31mred\n" + "x" * 200, 910, 940)]
    written(tmp_path, hostile, "step_700_to_700_rank_0.json")
    damaged(tmp_path, b"", NAME)  # of earlier steps
    damaged(tmp_path, b"", ".step_800_to_801_rank_0.json")  # not complete
    assert cli([str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out and "\\x1b[31mred" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert not shown.err


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli([str(tmp_path / "nothing")]) == 2
    assert "has no trace in profile/" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("")
    assert cli([str(tmp_path)]) == 2
    assert "'log.profile_steps=[100,103]'" in capsys.readouterr().err
    written(tmp_path, HOST)
    assert cli([str(tmp_path), "--rank", "5"]) == 2
    assert "has no trace of rank 5 for steps 7 to 7" in capsys.readouterr().err
