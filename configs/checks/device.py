"""Checks of what the device can do; they run again once `device=auto` is resolved."""

from collections.abc import Callable

from configs.schema import AttentionPath, Config, DeviceKind, Precision


def device_problems(config: Config, device_type: str) -> list[str]:
    """List the settings that the device does not support.

    Args:
        config: the configuration of the run.
        device_type: "cpu" or "cuda".
    """
    if device_type != "cpu":
        return []
    device = "cpu" if config.device is DeviceKind.cpu else "auto: cpu, for no GPU is visible"
    found: list[str] = []
    if config.model.attention is AttentionPath.flex:
        found.append(
            f"model.attention (flex) has no backward pass on device ({device}). Try model.attention=sdpa."
        )
    if config.precision is Precision.fp16:
        found.append(f"precision (fp16) does not run on device ({device}). Try precision=bf16.")
    return found


def precision_problems(config: Config, precision: Precision) -> list[str]:
    """List the settings that do not fit a precision.

    Args:
        config: the configuration of the run.
        precision: what it is resolved to; `auto`: nothing is known yet.
    """
    if precision is not Precision.fp32 or config.model.softmax_fp32:
        return []
    known = "fp32" if config.precision is Precision.fp32 else "auto: fp32 on this device"
    return [
        f"model.softmax_fp32 (false) means a softmax in the training precision, but precision ({known}) has no other. "
        "Try precision=bf16, or model.softmax_fp32=true."
    ]


def _configured(config: Config) -> list[str]:
    return device_problems(config, "cpu") if config.device is DeviceKind.cpu else []


def _configured_precision(config: Config) -> list[str]:
    return precision_problems(config, config.precision)


CHECKS: tuple[Callable[[Config], list[str]], ...] = (_configured, _configured_precision)
