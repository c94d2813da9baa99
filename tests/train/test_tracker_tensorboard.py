"""The event files of TensorBoard, read back: x is samples_seen, and what was cut is forgotten."""

import struct
from pathlib import Path
from typing import Any

from train.tracker_tensorboard import TensorBoardTracker


def events_in(path: Path) -> list[Any]:
    """The events of a file: each behind its length and the length's checksum, with a checksum after it."""
    from tensorboardX.proto.event_pb2 import Event

    content, place, events = path.read_bytes(), 0, []
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        events.append(Event.FromString(content[place + 12 : place + 12 + length]))
        place += 12 + length + 4
    return events


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """The curves as TensorBoard has them: files in the order of their names, and a mark forgets what is at or after it."""
    from tensorboardX.proto.event_pb2 import SessionLog

    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("*tfevents*")):
        for event in events_in(path):
            if event.session_log.status == SessionLog.START:
                for points in found.values():
                    for step in [step for step in points if step >= event.step]:
                        del points[step]
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def line(step: int, loss: float, valid: float | None = None) -> dict[str, Any]:
    position = {"step": step, "samples_seen": 8 * step}
    return {**position, "train/loss": loss, "valid/loss": valid}


def test_the_final_history_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "tensorboard"
    # Killed after step 4; its checkpoint is that of step 2.
    first = TensorBoardTracker(folder)
    for step in (1, 2, 3, 4):
        first.log_metrics(line(step, step))
    first.sync()
    second = TensorBoardTracker(folder)
    second.log_metrics(line(3, 30.0))
    second.log_metrics(line(4, 40.0, valid=4.5))
    second.log_metrics(line(5, float("inf")))
    # Rolled back to step 3 in the same process.
    second.log_metrics(line(4, 400.0))
    second.close()
    first.close()
    assert len(list(folder.iterdir())) == 2
    found = curves(folder)
    assert found["train/loss"] == {8: 1.0, 16: 2.0, 24: 30.0, 32: 400.0}
    assert found["valid/loss"] == {}, "it is not evaluated any more"
    assert found["step"] == {8: 1.0, 16: 2.0, 24: 3.0, 32: 4.0}
    assert "samples_seen" not in found


def test_details_samples_and_alerts(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(tmp_path)
    tracker.log_metrics(line(3, 1.0))
    position = {"step": 3, "samples_seen": 24}
    tracker.log_details({**position, "layers/gradient_norm": [0.5, 1.5], "pipeline/passes": {}})
    blank = {"text": "a [MASK]", "truth": "b", "filled": "<script>*x*"}
    tracker.log_samples({**position, "blanks": [blank]})
    tracker.alert("Spike", "It spikes.\n# twice")
    tracker.close()
    found = curves(tmp_path)
    assert found["layers/gradient_norm/01"] == {24: 1.5}
    (path,) = tmp_path.iterdir()
    texts = {
        value.tag: (event.step, value.tensor.string_val[0].decode())
        for event in events_in(path)
        for value in event.summary.value
        if value.WhichOneof("value") == "tensor"
    }
    # Lines of code in Markdown: nothing in them is markup.
    assert texts["samples/blanks/text_summary"] == (
        24,
        "    a [MASK]\n    -> <script>*x*  (truth: b)",
    )
    assert texts["alerts/Spike/text_summary"] == (24, "    It spikes.\n    # twice")


def test_lines_are_written_before_the_end(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(tmp_path)
    tracker.log_metrics(line(1, 1.0))
    tracker.sync()
    assert curves(tmp_path)["train/loss"] == {8: 1.0}
    tracker.close()
