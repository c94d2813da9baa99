"""A network and its layout, as the speed model sees them: GLM or not, this trainer or another."""

from dataclasses import dataclass

from configs import computation, cutting, derive, pipeline
from configs.schema import AttentionPath, Config, Recompute
from launch.estimate.traffic import Traffic, allowed_share, our_traffic


@dataclass(frozen=True)
class Transformer:
    """What the speed model needs of a network and of the kernels that compute it."""

    num_layers: int
    hidden_size: int
    inner_size: int
    """Width of the tensors that the feed-forward layer's activation reads: 4 h in a GPT."""
    weights_per_layer: float
    num_heads: int
    vocab_size: int
    seq_length: int
    parameters: float
    traffic: Traffic
    materialises_scores: bool = False
    allowed: float = 0.5
    """Share of all pairs of tokens that fused attention computes; materialised scores are computed for all."""
    hidden_dropout: bool = False
    attention_dropout: bool = False

    @classmethod
    def of(cls, config: Config, on_gpu: bool = True) -> "Transformer":
        """The GLM of a configuration, computed by this trainer."""
        model = config.model
        path, _ = computation.attention_path(model, on_gpu)
        return cls(
            num_layers=model.num_layers,
            hidden_size=model.hidden_size,
            inner_size=model.ffn_size,
            weights_per_layer=derive.matrix_weights(model),
            num_heads=model.num_heads,
            vocab_size=derive.padded_vocab_size(model),
            seq_length=model.seq_length,
            parameters=float(derive.parameters(model)),
            traffic=our_traffic(config.precision, model),
            materialises_scores=path is AttentionPath.reference,
            allowed=allowed_share(config.objective),
            hidden_dropout=model.hidden_dropout > 0,
            attention_dropout=model.attention_dropout > 0,
        )

    @property
    def head_layers(self) -> float:
        """Operations of the head, in layers."""
        weights = self.vocab_size * self.hidden_size
        return cutting.head_share(
            weights, self.weights_per_layer, self.seq_length, self.hidden_size
        )

    def flops_per_sample(self, recompute: Recompute = Recompute.none) -> float:
        """Floating-point operations to train one row; selective recompute repeats no matrix product."""
        return derive.transformer_flops(
            self.num_layers,
            self.hidden_size,
            self.weights_per_layer,
            self.vocab_size,
            self.seq_length,
            recompute is Recompute.full,
        )


@dataclass(frozen=True)
class Layout:
    """How the network is spread, and what runs beside its products."""

    tp: int
    pp: int
    dp: int
    gpus_per_node: int
    micro_batch_size: int
    recompute: Recompute
    size: int
    """Bytes of an activation's element."""
    gradient_bytes: int
    """Bytes per gradient element that travel."""
    sequence: bool = False
    """Hidden states are cut over the tensor-parallel ranks."""
    chunks: int = 1
    """Parts of a stage between which the schedule alternates; above 1, transfers run beside computation."""
    ends_count: bool = True
    """Embedding and head count as a layer each where stages are cut; False: all stages have the same layers."""
    hidden_sums: float = 0.0
    """Share of the tensor-parallel sums that runs beside products."""
    hidden_reduction: float = 0.0
    """Share of the gradients' reduction that runs beside the last micro-batches, of another trainer."""
    overlap: bool = False
    """Gradients are reduced to the replicas that own them beside the last passes, weights gathered beside the next."""

    @classmethod
    def of(cls, config: Config) -> "Layout":
        """The layout of a configuration on its cluster."""
        dp = derive.data_parallel_size(config, derive.planned_world_size(config))
        precision, size = config.precision, computation.element_bytes(config.precision)
        return cls(
            tp=config.parallel.tp,
            pp=config.parallel.pp,
            dp=dp,
            gpus_per_node=derive.ranks_per_node(config),
            micro_batch_size=config.optim.micro_batch_size,
            recompute=config.parallel.recompute,
            size=size,
            gradient_bytes=4 if computation.sums_in_fp32(precision) else size,
            sequence=derive.is_sequence_cut(config.parallel),
            chunks=pipeline.num_chunks(config.parallel),
            overlap=config.parallel.overlap,
        )
