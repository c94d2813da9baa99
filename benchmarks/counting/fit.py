"""The constants of the speed model (launch/estimate/traffic.py), from counts at several shapes."""

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np

from benchmarks.counting.network import NetworkCost, Passes, count_network
from benchmarks.counting.tally import Tally
from benchmarks.teams import Team
from configs import computation, derive
from configs.load import load_config
from configs.schema import AttentionPath, Config, Precision
from launch.estimate.traffic import HeadTraffic, PassTraffic, Traffic

# Shapes whose tensors of each kind differ: hidden size, inner width, tensor-parallel ranks.
_SHAPES = ((1024, 2048, 1), (1024, 2048, 4), (2048, 2048, 4), (1024, 8192, 4))
_MANY_HEADS = (4096, 2048, 1)
_VOCABULARIES = (8192, 32768, 131072)
_HEAD_SIZE, _SEQ = 128, 2048
_REPLICAS = (2, 4)


def fitted(precision: Precision) -> Traffic:
    """Count, and solve for the bytes per element."""
    configs = [_config(precision, *shape) for shape in _SHAPES]
    plain = [count_network(config) for config in configs]
    # One shape is enough for what only one kind of tensor needs; many heads, which share a mask.
    config = _config(precision, *_MANY_HEADS)
    cost = count_network(config)
    model = config.model
    scores = replace(config, model=replace(model, attention=AttentionPath.reference))
    dropped = replace(config, model=replace(model, hidden_dropout=0.1))
    both = replace(
        scores, model=replace(scores.model, attention=AttentionPath.auto, attention_dropout=0.1)
    )
    others = [count_network(other) for other in (scores, dropped, both)]
    gradients, step, update = _gradients(precision)
    return Traffic(
        _fit_pass(configs, plain, config, cost, others, lambda passes: passes.forward),
        _fit_pass(configs, plain, config, cost, others, lambda passes: passes.backward),
        _fit_head(precision),
        *(gradients, step, update),
        plain[1].layer.forward.collectives.total(),
        plain[1].layer.backward.collectives.total(),
    )


def _gradients(precision: Precision) -> tuple[float, float, float]:
    """Bytes per parameter: of a micro-batch; of a step on every rank, and of what a replica owns.

    The last two follow from two numbers of replicas, of which the first is counted. One replica alone is left out: it
    reduces nothing, and has less to copy.
    """
    found: list[tuple[float, float]] = []
    for replicas in _REPLICAS:
        with Team("benchmarks.counting.gradients:counted", replicas, precision.value) as team:
            found.append(team.ask()[0])
    (micro_batch, of_few), (_, of_many) = found
    few, many = _REPLICAS
    update = (of_few - of_many) / (1 / few - 1 / many)
    return round(micro_batch, 1), round(of_few - update / few, 1), round(update, 1)


def lines(name: str, traffic: Traffic) -> list[str]:
    """Python text of a table of constants."""
    return [
        f"{name} = Traffic(",
        *(f"    {key}={_text(value)}," for key, value in vars(traffic).items()),
        ")",
    ]


def _text(value: object) -> str:
    if not isinstance(value, PassTraffic | HeadTraffic):
        return f"{value:g}"
    parts = ", ".join(f"{key}={number:g}" for key, number in asdict(value).items())
    return f"{type(value).__name__}({parts})"


def _config(precision: Precision, hidden: int, ffn: int, tp: int, vocab: int = 8192) -> Config:
    words = [
        "model=tiny",
        f"precision={precision.value}",
        f"model.hidden_size={hidden}",
        f"model.num_heads={hidden // _HEAD_SIZE}",
        f"model.ffn_size={ffn}",
        f"model.vocab_size={vocab}",
        f"model.seq_length={_SEQ}",
        f"parallel.tp={tp}",
        "optim.micro_batch_size=1",
    ]
    return load_config(words)


def _fit_pass(
    configs: list[Config],
    plain: list[NetworkCost],
    config: Config,
    cost: NetworkCost,
    others: list[NetworkCost],
    side: Callable[[Passes], Tally],
) -> PassTraffic:
    rows = []
    for each in configs:
        tp, hidden = each.parallel.tp, each.model.hidden_size
        rows.append([_SEQ * hidden, _SEQ * hidden / tp, _SEQ * each.model.ffn_size / tp])
    moved = [side(each.layer).other.moved for each in plain]
    whole, cut, inner = np.linalg.lstsq(np.array(rows), np.array(moved), rcond=None)[0]
    elements = _SEQ * config.model.hidden_size
    scores = _SEQ**2 * config.model.num_heads / config.parallel.tp
    materialised, dropped, scores_dropped = (_all(side(other.layer)) for other in others)
    base = side(cost.layer).other.moved
    return PassTraffic(
        *(round(float(value), 1) for value in (whole, cut, inner)),
        scores=round((materialised - base) / scores, 1),
        hidden_dropout=round((dropped - _all(side(cost.layer))) / elements, 1),
        scores_dropout=round((scores_dropped - materialised) / scores, 1),
    )


def _fit_head(precision: Precision) -> HeadTraffic:
    rows, moved = [], []
    for hidden, ffn, tp in _SHAPES[1:3]:
        for vocab in _VOCABULARIES:
            config = _config(precision, hidden, ffn, tp, vocab)
            local = derive.padded_vocab_size(config.model) // tp
            matrix = hidden * local
            more = computation.head_chunks(_SEQ, local, hidden) - 1
            rows.append([_SEQ * hidden, _SEQ * local, matrix, more * matrix])
            moved.append(count_network(config).head.both.other.moved)
    found = np.linalg.lstsq(np.array(rows), np.array(moved), rcond=None)[0]
    return HeadTraffic(*(round(float(value), 1) for value in found))


def _all(tally: Tally) -> int:
    """Of a layer whose products with scores move them: those bytes too."""
    return tally.other.moved + tally.attention.moved
