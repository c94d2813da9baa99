"""The translation of our configuration into DeepSpeed's."""

import math

from configs import computation
from configs.schema import Config, Precision


def deepspeed_config(config: Config, dp: int) -> dict[str, object]:
    """Translate the part of our configuration that DeepSpeed acts on.

    The initial batch size may be any valid one, because every step sets its own.
    """
    micro_batch_size = config.optim.micro_batch_size
    zero_stage = computation.zero_stage(config.parallel, config.precision, dp)
    rendered: dict[str, object] = {
        "train_batch_size": micro_batch_size * dp,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        # Without ZeRO, train/engine/update.py clips.
        "gradient_clipping": 0.0 if zero_stage == 0 else config.optim.clip,
        "steps_per_print": None,
        "zero_optimization": {
            "stage": zero_stage,
            "reduce_bucket_size": computation.reduce_bucket_size(config),
        },
        "zero_allow_untested_optimizer": True,
        "pipeline": {
            # The module computes again by itself (train/engine/stages.py).
            "activation_checkpoint_interval": 0,
            "use_reentrant": False,
            "pipe_partitioned": False,
            "grad_partitioned": False,
        },
    }
    if config.precision is Precision.bf16:
        rendered["bf16"] = {"enabled": True}
    if computation.sums_in_fp32(config.precision):
        # Without these, DeepSpeed sums gradients in bf16, over both micro-batches and replicas.
        rendered["data_types"] = {"grad_accum_dtype": "fp32"}
        rendered["communication_data_type"] = "fp32"
    if config.precision is Precision.fp16:
        stability = config.stability
        rendered["fp16"] = {
            "enabled": True,
            "initial_scale_power": round(math.log2(stability.initial_loss_scale)),
            "loss_scale_window": stability.loss_scale_window,
            "hysteresis": stability.loss_scale_hysteresis,
            "min_loss_scale": stability.min_loss_scale,
        }
    return rendered
