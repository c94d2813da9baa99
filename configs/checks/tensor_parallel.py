"""Check that matrices and vocabulary can be cut over the tensor-parallel ranks, and propose a size that fits."""

from configs import derive
from configs.schema import Config


def tensor_parallel_problems(config: Config, world_size: int | None) -> list[str]:
    """Check that parallel.tp divides everything that it cuts; one message names all that it does not divide.

    Args:
        config: any configuration.
        world_size: number of processes, which the proposed size divides; None before it is known: that of `cluster.*`.
    """
    model, tp = config.model, config.parallel.tp
    if tp < 1 or min(model.num_heads, model.ffn_size, model.vocab_size, model.vocab_multiple) < 1:
        return []
    padded = derive.padded_vocab_size(model)
    cut = {
        "model.num_heads": (model.num_heads, ""),
        "model.ffn_size": (model.ffn_size, f"model.ffn_size={-(-model.ffn_size // tp) * tp}"),
        "the padded vocabulary": (padded, f"model.vocab_multiple={model.vocab_multiple * tp}"),
    }
    if config.parallel.sequence:
        whole = -(-model.seq_length // tp) * tp
        cut["model.seq_length"] = (model.seq_length, f"model.seq_length={whole}")
    wrong = {name: found for name, found in cut.items() if found[0] % tp}
    if not wrong:
        return []
    # If parallel.tp does not divide the heads, change parallel.tp; otherwise change the other numbers.
    better = (
        f"parallel.tp={_nearest_tp(config, world_size)}"
        if model.num_heads % tp
        else " ".join(other for _, other in wrong.values())
    )
    named = [f"{name} ({value})" for name, (value, _) in wrong.items()]
    listed = " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))
    return [f"parallel.tp ({tp}) must divide {listed}. Try {better}."]


def _nearest_tp(config: Config, world_size: int | None) -> int:
    """The nearest power of two that divides the heads and cuts the ranks into whole replicas."""
    heads, tp, pp = config.model.num_heads, config.parallel.tp, max(config.parallel.pp, 1)
    planned = config.cluster.nodes * config.cluster.gpus_per_node
    # A cluster of one rank is the default: the user has not described one.
    ranks = world_size or (planned if planned > 1 else 0)
    powers = [2**power for power in range(heads.bit_length()) if heads % 2**power == 0]
    fitting = [power for power in powers if ranks % (power * pp) == 0]
    return min(fitting or powers, key=lambda power: (abs(power - tp), -power))
