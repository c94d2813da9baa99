"""Checks of the model: heads, rows and attention."""

from collections.abc import Callable

from configs import derive
from configs.checks.batches import nearest_divisor
from configs.derive import GLM_130B_ROW
from configs.schema import AttentionPath, Config, SliceRule

_SHORTEST_WINDOW = 32


def _heads(config: Config) -> list[str]:
    model = config.model
    if model.num_heads < 1 or model.hidden_size < 1:
        return []
    if model.hidden_size % model.num_heads:
        return [
            f"model.num_heads ({model.num_heads}) must divide model.hidden_size ({model.hidden_size}). "
            f"Try model.num_heads={nearest_divisor(model.hidden_size, model.num_heads)}."
        ]
    # Rotary positions turn pairs of numbers; with two coordinates each half of the head has its own pairs.
    multiple = 4 if model.rope_2d else 2
    if derive.head_size(model) % multiple:
        return [
            f"model.hidden_size ({model.hidden_size}) / model.num_heads ({model.num_heads}) must be a multiple of "
            f"{multiple} for rotary positions. Try model.hidden_size={model.num_heads * multiple * 16}."
        ]
    return []


def _rows(config: Config) -> list[str]:
    seq_length, windows = config.model.seq_length, config.objective.windows_per_row
    if seq_length < 1 or windows < 1:
        return []
    found: list[str] = []
    if seq_length % windows:
        found.append(
            f"objective.windows_per_row ({windows}) must divide model.seq_length ({seq_length}). "
            f"Try model.seq_length={max(seq_length // windows, _SHORTEST_WINDOW) * windows}."
        )
    elif seq_length // windows < _SHORTEST_WINDOW:
        found.append(
            f"model.seq_length ({seq_length}) / objective.windows_per_row ({windows}) must be at least "
            f"{_SHORTEST_WINDOW} tokens. Try model.seq_length={_SHORTEST_WINDOW * windows}."
        )
    whole = GLM_130B_ROW[1]
    if config.objective.slice_rule is SliceRule.glm_130b and seq_length % whole:
        found.append(
            f"model.seq_length ({seq_length}) must be a multiple of {whole} with objective.slice_rule (glm_130b), "
            f"whose rows hold {GLM_130B_ROW[0]}/{whole} of it. "
            f"Try model.seq_length={max(seq_length // whole, 1) * whole}."
        )
    return found


def _attention(config: Config) -> list[str]:
    model = config.model
    if not model.softmax_fp32 and model.attention in (AttentionPath.sdpa, AttentionPath.flex):
        return [
            f"model.attention ({model.attention.value}) computes its softmax in fp32 and cannot do without "
            "(model.softmax_fp32=false). Try model.attention=reference, or model.softmax_fp32=true."
        ]
    if model.attention_dropout > 0 and model.attention in (AttentionPath.sdpa, AttentionPath.flex):
        return [
            f"model.attention ({model.attention.value}) cannot apply model.attention_dropout "
            f"({model.attention_dropout}). Try model.attention=reference, or model.attention_dropout=0."
        ]
    return []


CHECKS: tuple[Callable[[Config], list[str]], ...] = (_heads, _rows, _attention)
