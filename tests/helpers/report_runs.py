"""Run folders for the report, made of numbers alone: all files of a run with everything on, in the trainer's formats."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.interventions import Interventions, Rollback
from configs.run_paths import RunPaths
from configs.yaml_text import render_yaml
from train.metrics import metric_keys

BATCH, LAYERS = 8, 6
COUNTED = ("mask", "gmask", "mip", "smask")
FURTHER = ("reversed", "copied")
_TIME = 1_700_000_000.0
_SENTENCE = "The [MASK] of the run is shown to {}."


def make_run(
    folder: Path,
    steps: int = 400,
    text: str = "everybody",
    shift: float = 0.0,
    *,
    is_full: bool = False,
) -> Path:
    """Write a run that was killed, continued with another learning rate and layout, and rolled back once.

    Args:
        folder: where; is made.
        steps: that it has trained.
        text: stands wherever text of data, overrides, events or file names does.
        shift: added to its losses, to tell runs apart.
        is_full: True to have a held-out loss in every line, and the losses of further objectives.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    paths = RunPaths(folder)
    spike = steps // 2
    lines = (_metrics(step, shift) for step in range(1, steps + 1))
    _write(paths.metrics, [_filled_up(line) for line in lines] if is_full else list(lines))
    _write(paths.details, [_details(step) for step in range(1, steps + 1, max(1, steps // 100))])
    _write(
        paths.samples, [_samples(step, text) for step in range(1, steps + 1, max(1, steps // 8))]
    )
    rollback = Rollback(
        generation=2,
        reason=f"loss 9.1, usually 3.2 {text}",
        onset_step=spike,
        found_step=spike + 5,
        onset_samples=BATCH * (spike - 1),
        found_samples=BATCH * (spike + 5),
        checkpoint_step=spike - 20,
        checkpoint_samples=BATCH * (spike - 20),
        skip=[(BATCH * (spike - 1), BATCH * (spike + 5))],
        time=_TIME + 900,
    )
    paths.interventions.write_text(Interventions(rollbacks=[rollback]).to_json())
    paths.rolled_back.mkdir()
    cut = [_metrics(step, shift + 2) for step in range(spike - 19, spike + 6)]
    _write(paths.rolled_back / f"rollback_1_{paths.metrics.name}", cut)
    _write(paths.events, _events(steps, spike, rollback, text))
    paths.config.write_text(_config(steps, text))
    paths.overrides.write_text(f"optim.lr=0.0006 data.paths=['{text}']\n")
    status = {"state": "done", "samples_seen": BATCH * steps, "message": f"all samples seen {text}"}
    paths.status.write_text(json.dumps(status))
    return folder


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _metrics(step: int, shift: float) -> dict[str, Any]:
    seen = BATCH * step
    loss = 3 + 7 * math.exp(-step / 60) + 0.1 * math.sin(step * 1.7) + shift
    is_evaluated = step % 50 == 0
    values = {
        "step": step,
        "samples_seen": seen,
        "tokens_seen": 256 * seen,
        "data/samples_drawn": seen,
        "train/loss": loss,
        "train/loss_mask": loss - 0.3,
        "train/loss_gmask": "inf" if step == 7 else loss + 0.2,
        "train/loss_mip": loss + 0.5 if step % 4 == 0 else None,
        "train/loss_smask": loss + 0.6 if step % 4 == 2 else None,
        "valid/loss": loss + 0.1 if is_evaluated else None,
        "valid/loss_mask": loss - 0.2 if is_evaluated else None,
        "valid/loss_gmask": loss + 0.3 if is_evaluated else None,
        "valid/loss_mip": loss + 0.6 if is_evaluated else None,
        "valid/loss_smask": loss + 0.7 if is_evaluated else None,
        "optim/lr": 3e-3 * min(1, step / 40) * math.exp(-step / 400),
        "optim/grad_norm": 0.4 + 0.1 * math.sin(step) + (5 if step % 97 == 0 else 0),
        "optim/grad_norm_embedding": 0.05 + 0.01 * math.cos(step),
        "optim/loss_scale": 2.0 ** (16 - step // 150),
        "optim/skipped_steps": step // 97,
        "optim/embedding_shrink": 0.1,
        "optim/global_batch_size": BATCH,
        "speed/seconds_per_step": 0.25 + 0.02 * math.sin(step * 0.3),
        "speed/tokens_per_second": 8000 + 600 * math.sin(step * 0.3),
        "speed/tflops_per_gpu": 0.06,
        "speed/mfu": 0.41 + 0.01 * math.sin(step * 0.2),
        "speed/hfu": 0.47 + 0.01 * math.sin(step * 0.2),
        "speed/data_wait_seconds": 1e-5,
        "speed/checkpoint_blocked_seconds": 0.02 if step % 100 == 0 else 0.0,
        "speed/evaluation_seconds": 0.5 if is_evaluated else 0.0,
        "speed/rank_seconds_max": 0.26 + 0.03 * math.sin(step * 0.11) ** 2,
        "speed/rank_seconds_min": 0.24,
        "memory/peak_gib": 0.51,
        "data/target_tokens_fraction": 0.5 + 0.02 * math.sin(step),
    }
    return {key: values.get(key) for key in metric_keys(COUNTED)}


def _filled_up(line: dict[str, Any]) -> dict[str, Any]:
    """A line in which every loss has a value."""
    losses = [key for key in metric_keys((*COUNTED, *FURTHER)) if "/loss" in key]
    shifted = {key: line["train/loss"] + 0.1 * at for at, key in enumerate(losses)}
    return {**line, **{key: line.get(key) or value for key, value in shifted.items()}}


def _details(step: int) -> dict[str, Any]:
    parts = dict(data=0.01, forward=0.08, backward=0.12, bubble=0.01, communication=0.01)
    parts.update(optimizer=0.01, checkpoint=0.002, evaluation=0.003, logging=0.001, rest=0.004)
    norms = [0.1 + 0.02 * layer + 0.05 * math.sin(step / 20 + layer) for layer in range(LAYERS)]
    return {
        "step": step,
        "samples_seen": BATCH * step,
        "layers/gradient_norm": ["inf" if step == 1 else norms[0], *norms[1:]],
        "layers/weight_norm": [10 + layer + step / 200 for layer in range(LAYERS)],
        "layers/activation_rms": [1 + 0.2 * layer * math.sin(step / 50) for layer in range(LAYERS)],
        "parts/weight_norm": {"embedding": 12 + step / 300, "final_norm": 11.3},
        "time/step": sum(parts.values()),
        **{f"time/{name}": seconds for name, seconds in parts.items()},
        "memory/weights_gib": 0.1,
        "memory/gradients_gib": 0.1,
        "memory/optimizer_gib": 0.2,
        "memory/activations_gib": 0.08,
        "memory/rest_gib": 0.03,
        "train/loss_source/books": 3 + 4 * math.exp(-step / 80),
        "train/loss_source/web": 3.4 + 4 * math.exp(-step / 80),
        "valid/loss_source/books": 3.1 + 4 * math.exp(-step / 80) if step % 5 == 1 else None,
        "speed/mfu_computed": 0.36,
        "speed/hfu_computed": 0.4,
        "attention/computed_fraction": 0.28,
        "ranks/seconds": [0.25, 0.26],
        "pipeline/passes": {
            "step": step,
            "stages": [
                [
                    {"kind": "forward", "micro_batch": 0, "chunk": 0, "start": 0.0, "end": 0.08},
                    {"kind": "backward", "micro_batch": 0, "chunk": 0, "start": 0.1, "end": 0.22},
                ]
            ],
        },
    }


def _samples(step: int, text: str) -> dict[str, Any]:
    blank = {"objective": "mask", "text": _SENTENCE.format(text), "truth": "report"}
    filled = "report" if step > 100 else f"{text} of"
    return {
        "step": step,
        "samples_seen": BATCH * step,
        "blanks": [
            {"index": 0, **blank, "filled": filled},
            {
                "index": 1,
                "objective": "gmask",
                "text": f"{text} [gMASK]",
                "truth": text,
                "filled": text,
            },
        ],
    }


def _events(steps: int, spike: int, rollback: Rollback, text: str) -> list[dict[str, Any]]:
    quarter = steps // 4
    layout = {"world_size": 2, "tp": 1, "pp": 1, "dp": 2, "host": text, "commit": "0" * 40}
    saved = [
        {"event": "checkpoint", "path": f"checkpoints/{step}", "samples_seen": BATCH * step}
        for step in range(quarter // 2, steps + 1, max(1, quarter // 2))
    ]
    repeated = {
        "repeated_steps": [quarter + 1, quarter + 10],
        "repeated_samples": [BATCH * quarter, BATCH * (quarter + 10)],
        "repeated_seconds": 2.5,
    }
    resumed = {"samples_seen": BATCH * quarter, **layout, "tp": 2, "dp": 1, **repeated}
    skipped = [BATCH * (quarter - 1), BATCH * quarter]
    found: list[dict[str, Any]] = [
        {"event": "start", "samples_seen": 0, **layout},
        {"event": "skip", "step": quarter, "samples_seen": skipped, "reason": f"overflow {text}"},
        {"event": "error", "message": f"killed {text}"},
        {"event": "resume", **resumed},
        {"event": "config_change", "changes": [f"optim.lr: 0.003 -> 0.0006 {text}"]},
        {"event": "spike", "step": spike, "text": f"loss 9.1, usually 3.2 {text}"},
        {"event": "rollback", **asdict(rollback)},
        {"event": "resume", **resumed, "samples_seen": BATCH * (spike - 20), "repeated_steps": []},
        {"event": text, "note": text},
        *saved,
        {"event": "done", "samples_seen": BATCH * steps},
    ]
    return [
        {"time": rollback.time if each["event"] == "rollback" else _TIME + 100 * number, **each}
        for number, each in enumerate(found)
    ]


def _config(steps: int, text: str) -> str:
    return render_yaml(
        {
            "experiment": "default",
            "optim": {"lr": 6e-4, "total_samples": BATCH * steps},
            "data": {
                "paths": ["books", "web"],
                "stages": [[0, 1, 1], [BATCH * steps // 2, 3, 1]],
                "stage_ramp_samples": 80,
                "instructions": [text],
            },
        }
    )
