"""Every key of a run, with its type, unit and default: the one list that the command line, the YAML and the docs share.

A default of None means "derived": configs/derive.py computes it from other keys, so each key can be overridden alone.
Interval and schedule keys count samples (rows of `model.seq_length` tokens), never steps: GLM-130B's log shows what a
schedule in steps costs when the batch size changes (its embedding-shrink ramp was 26,850 steps instead of 6,000).
"""

from dataclasses import dataclass, field
from enum import Enum


class Precision(str, Enum):
    """Number format of parameters and activations."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class DeviceKind(str, Enum):
    """Where the run computes."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Schedule(str, Enum):
    """Shape of the learning rate after its linear warm-up."""

    cosine = "cosine"
    wsd = "wsd"
    constant = "constant"


class AttentionPath(str, Enum):
    """Which attention implementation computes the scores."""

    auto = "auto"
    reference = "reference"
    sdpa = "sdpa"
    flex = "flex"


class RopeTables(str, Enum):
    """Precision of the rotary angles: fp16 reproduces the tables that the released GLM-130B was trained with."""

    fp32 = "fp32"
    fp16 = "fp16"


class SliceRule(str, Enum):
    """How stored tokens become rows: `fit` loses nothing, `glm_130b` truncates as the original run did."""

    fit = "fit"
    glm_130b = "glm_130b"


class Documents(str, Enum):
    """Documents that share a slice: one text, as in the original run, or kept apart."""

    crossed = "crossed"
    isolated = "isolated"


class MipPositions(str, Enum):
    """Positions of an instruction's answer: they go on behind [MASK], or are all that of [MASK]."""

    consecutive = "consecutive"
    blank = "blank"


class MipTruncate(str, Enum):
    """Which end of an over-long prompt is cut off."""

    end = "end"
    start = "start"


class MipPacking(str, Enum):
    """Instruction records of a window: one, or as many as fit on average."""

    slots = "slots"
    filled = "filled"


class LossWeighting(str, Enum):
    """What weighs the same in the loss: every row (as GLM-130B) or every target token of the global batch."""

    row = "row"
    token = "token"


class Wandb(str, Enum):
    """Weights & Biases: `auto` is online with an API key and offline without one."""

    off = "off"
    auto = "auto"
    online = "online"
    offline = "offline"


class ProgressBar(str, Enum):
    """The console: `auto` draws a bar on a terminal and prints lines elsewhere."""

    auto = "auto"
    on = "on"
    off = "off"


@dataclass
class RunConfig:
    """The run and its folder."""

    name: str | None = None
    """Name of the run; default: the experiment's name."""
    dir: str | None = None
    """Run folder; default `runs/<run.name>`."""
    stop_after_samples: int | None = None
    """Stop as if asked to (checkpoint, exit code 75) once this many samples are seen; null: run to the end."""
    time_limit: str | None = None
    """Stop as if asked to before the process has run this long, in a form of `cluster.time`: when another step and a save, as slow as the
    slowest so far, would not end in time. null: SLURM's limit of the job, where it is known."""
    time_margin_seconds: float = 60.0
    """Kept free before the time limit, in seconds; before the first save it also stands for what a save takes."""


@dataclass
class ModelConfig:
    """GLM architecture. GLM-130B (Zeng et al. 2022), section 2.1 and appendix B."""

    num_layers: int = 4
    """Transformer layers."""
    hidden_size: int = 256
    """Width of the residual stream; a multiple of num_heads."""
    num_heads: int = 4
    """Attention heads; parallel.tp must divide it."""
    ffn_size: int = 704
    """Width inside the GeGLU feed-forward: 8/3 of hidden_size rounded up to 64 in the presets."""
    vocab_size: int = 4096
    """Rows of the embedding that a token may use; the tokenizer's ids must lie below it. It is the size of the
    tokenizer that is trained when `data.tokenizer` names none."""
    vocab_multiple: int = 128
    """The embedding has vocab_size rounded up to this multiple (independent of parallel.tp, which must divide it)."""
    seq_length: int = 512
    """Tokens per row (sample)."""
    hidden_dropout: float = 0.0
    """Dropout probability after the embedding, the attention output and the feed-forward output."""
    attention_dropout: float = 0.0
    """Dropout probability of the attention weights; above 0 only the reference attention path can serve."""
    layernorm_epsilon: float = 1e-5
    """Epsilon of every LayerNorm."""
    embedding_init_std: float | None = None
    """Standard deviation of the initial embedding; default sqrt(1 / (3 hidden_size)), GLM-130B's 0.0052."""
    rope_base: float = 10000.0
    """Base of the rotary angles."""
    rope_2d: bool = False
    """Rotate half of each head by the position and half by the block position (ChatGLM-6B); GLM-130B uses 1-D."""
    rope_tables: RopeTables = RopeTables.fp32
    """Precision of the rotary tables; fp16 only to continue GLM-130B's released weights."""
    attention: AttentionPath = AttentionPath.auto
    """auto: flex on CUDA, sdpa on CPU, reference with attention dropout."""


@dataclass
class ParallelConfig:
    """How the model is spread over processes; the data-parallel size is what remains of them."""

    tp: int = 1
    """Tensor-parallel size: each layer's matrices are cut over this many ranks."""
    pp: int = 1
    """Pipeline-parallel size: the layers are cut into this many stages."""
    zero_stage: int = 1
    """0: every rank keeps the whole optimizer state (fp32 only); 1: sharded over the data-parallel ranks."""
    recompute: bool = False
    """Recompute each layer's activations in the backward pass instead of keeping them."""


@dataclass
class BatchRampConfig:
    """Growth of the global batch: `start`, then `increment` more at equal intervals over `samples` samples."""

    start: int | None = None
    """Global batch size of the first step, in samples; default `increment`, or about an eighth of the full batch."""
    increment: int | None = None
    """Growth of the global batch per interval, in samples; default what divides `start` and the full batch."""
    samples: int | None = None
    """Length of the whole ramp, in samples; default 2.5 % of optim.schedule_samples."""


@dataclass
class OptimConfig:
    """The optimizer and its schedules, all functions of the samples seen."""

    name: str = "adamw"
    """adamw, or PACKAGE:NAME of an optimizer that an installed package registers (docs/extending.md)."""
    micro_batch_size: int = 4
    """Samples per data-parallel rank and forward pass."""
    global_batch_size: int = 16
    """Samples per optimizer step; micro_batch_size x gradient accumulation x data-parallel size."""
    total_samples: int = 4096
    """Length of the run, in samples; the last step is a whole one."""
    schedule_samples: int | None = None
    """Length of the run that warm-up, decay and batch ramp are derived from; default total_samples. A run that is made
    longer and keeps its former total_samples here goes on without a jump, at the learning rate that its decay ended with."""
    schedule: Schedule = Schedule.cosine
    """Shape of the learning rate after warm-up."""
    lr: float = 1e-3
    """Peak learning rate."""
    min_lr: float | None = None
    """Final learning rate; default lr / 10."""
    warmup_samples: int | None = None
    """Linear warm-up from 0, in samples; default a tenth of schedule_samples."""
    decay_samples: int | None = None
    """Samples seen when the learning rate reaches min_lr, constant after; default schedule_samples."""
    wsd_decay_samples: int | None = None
    """Length of the final decay of the wsd schedule, in samples; default 10 % of decay_samples."""
    weight_decay: float = 0.1
    """Decoupled weight decay; none on LayerNorm parameters and biases."""
    beta1: float = 0.9
    """Adam's first-moment decay."""
    beta2: float = 0.95
    """Adam's second-moment decay."""
    eps: float = 1e-8
    """Adam's epsilon."""
    clip: float = 1.0
    """Largest global gradient norm; 0: no clipping."""
    batch_ramp: BatchRampConfig | None = None
    """Batch-size warm-up; null: no ramp."""


@dataclass
class CheckpointConfig:
    """When checkpoints are written, kept and read."""

    save_every_samples: int | None = None
    """Interval in samples; default a tenth of total_samples. The last step is always saved."""
    keep_last: int = 2
    """How many of the newest checkpoints to keep."""
    keep_every_samples: int | None = None
    """Also keep, for ever, the first checkpoint at or after each multiple of this many samples."""
    keep_healthy: bool = True
    """Also keep the newest checkpoint that training is known to have gone on well from: until the next one was saved no
    step was skipped, and the mean loss was finite and not higher than before. A diverged run can go back to it."""
    healthy_margin: float = 0.5
    """By how much that mean loss may be higher than in the stretch before it, in nats."""
    copy_to: str | None = None
    """Folder for a second copy of each checkpoint: NAME below it becomes a run folder that can be continued and used by
    itself; it belongs to this run, and another one of the same name is refused. All ranks must see it: on one node a local disk will do, on several a start refuses one. The run continues from
    it if it holds a newer whole checkpoint than its own folder."""
    copy_keep_last: int = 1
    """How many of the newest second copies to keep."""
    resume: str = "auto"
    """auto: continue if the run folder has a checkpoint; never: refuse if it has one, and begin a run at 0 that has lost
    its checkpoints; or the path of a checkpoint, or of a run folder, whose newest is taken."""
    init_from: str | None = None
    """Checkpoint, or run folder, whose weights alone start a new run (optimizer, schedule and data position start anew);
    model.seq_length may differ."""


@dataclass
class EvalConfig:
    """Held-out loss during and after training."""

    every_samples: int | None = None
    """Interval in samples; default a quarter of total_samples. The end of the run is always evaluated."""
    num_samples: int = 128
    """Validation rows per evaluation, the same ones each time."""


@dataclass
class SpecialTokenTexts:
    """Tokens of the vocabulary that have a role in blank infilling, where their names do not tell."""

    mask: str | None = None
    """The tokenizer's token, as its vocabulary writes it, that is [MASK]; default: the one of that name, or one that is
    added after the vocabulary."""
    gmask: str | None = None
    """The token that is [gMASK]; default as for mask."""
    sop: str | None = None
    """The token that starts a target; default: <sop>, or one that is added."""
    eop: str | None = None
    """The token that ends a target; default: <eop>, or one that is added."""
    eos: str | None = None
    """The token that ends a document; default: <eos>, </s>, <|endoftext|> or <eod>, or one that is added."""
    pad: str | None = None
    """The token that fills up rows; default: <pad>, [PAD] or <|pad|>, or one that is added."""
    smask: str | None = None
    """The token that is [sMASK]; default: the one of that name, or one that is added."""


@dataclass
class DataConfig:
    """The corpora and their tokenizer."""

    paths: list[str] = field(default_factory=lambda: ["python-docs"])
    """Each a .jsonl, .txt or .parquet file (also .gz, .zst), a prefix of token shards, the name of a Hugging Face data
    set, or `python-docs`: the documentation that comes with every Python."""
    weights: list[float] | None = None
    """Sampling weight of each path; default: by size."""
    stages: list[list[float]] | None = None
    """Sampling weights that change: rows [from_sample, weight of the first path, of the second, ...] in drawn samples, the
    first from 0; weights that a row leaves out are 0. Null: data.weights all the time."""
    stage_ramp_samples: int = 0
    """Samples over which the weights move linearly from the start of each row of stages and each point of
    instruction_share on; 0: they jump."""
    valid_paths: list[str] | None = None
    """Validation corpora; default: documents held out of `paths` by a fixed key when they are prepared; of a corpus
    made by Megatron, its last documents."""
    valid_fraction: float = 0.05
    """Share of documents that are held out when a corpus is prepared (of a corpus made by Megatron: of tokens)."""
    tokenizer: str | None = None
    """hf:FILE, sp:FILE, icetk:FILE or bytes; also hf:FOLDER, sp:FOLDER; default: the tokenizer of the run that is
    continued or whose weights are taken, otherwise that of the shards, otherwise a BPE of model.vocab_size trained on
    the corpus."""
    special_tokens: SpecialTokenTexts = field(default_factory=SpecialTokenTexts)
    """Roles of the tokenizer's special tokens."""
    text_key: str = "text"
    """Field of a .jsonl record, .parquet row or data set that holds the text."""
    instructions: list[str] = field(default_factory=list)
    """Instruction data sets (MIP), each a .jsonl or .parquet file (also .gz, .zst) or a data set with a prompt and a target
    in each record, or a prefix of token shards prepared with --prompt-key and --target-key."""
    instruction_share: list[list[float]] | None = None
    """Share of the rows that are instructions, as points [from_sample, share] in drawn samples, the first from 0; default
    [[0, 0.05]]."""
    instruction_cap: int = 100_000
    """Records of an instruction data set that count at most, where data sets are drawn from by size."""
    prompt_key: str = "prompt"
    """Field of an instruction record that holds the prompt."""
    target_key: str = "target"
    """Field of an instruction record that holds the target."""
    skip_samples: list[list[int]] = field(default_factory=list)
    """Ranges [a, b) of drawn sample indices that are never trained on."""
    locality_rows: int = 0
    """Rows of one source's text that are read, in shuffled order, before others, so that reads stay near each other on
    disks that seek slowly; 0: any row may follow any other."""
    local_copy: str | None = None
    """Folder on a disk of each node, to which its first rank copies the shards, once, and from where they are read."""
    accept_changed: bool = False
    """Resume although the shards differ from those that the checkpoint was trained on."""
    cache_dir: str | None = None
    """Where corpora are prepared; default the user's cache folder (XDG_CACHE_HOME or ~/.cache)."""


@dataclass
class ObjectiveConfig:
    """Autoregressive blank infilling. GLM (Du et al. 2022), section 2.1; GLM-130B, section 2.2."""

    gmask_share: float = 0.7
    """Share of rows with the [gMASK] objective; what it and `shares` leave are [MASK] rows."""
    shares: list[str] = field(default_factory=list)
    """Shares of the rows of further objectives, which installed packages provide: a list of NAME:SHARE, such as [reversed:0.1]
    (docs/objectives.md)."""
    slice_rule: SliceRule = SliceRule.fit
    """fit: every stored token used exactly once an epoch, nothing truncated; glm_130b: 2000-token rows as the original."""
    documents: Documents = Documents.crossed
    """crossed: a slice is one text although it may hold several documents, as the original; isolated: the same slices and
    spans, attention and positions cut where a document ends."""
    windows_per_row: int = 4
    """Independent segments packed into a [MASK] row."""
    mask_fraction: float = 0.15
    """Share of a slice's tokens that is hidden in a [MASK] segment."""
    mean_span_length: float = 3.0
    """Poisson mean of the span lengths, in tokens."""
    max_span_length: int = 39
    """Longest span, in tokens."""
    short_segment_probability: float = 0.02
    """Probability that a [MASK] slice is shortened (glm_130b) or split in two (fit) at a random length."""
    single_span_probability: float = 0.02
    """Probability that a [MASK] segment hides one span only."""
    smask_share: float = 0.0
    """Share of the [MASK] windows that hide whole sentences behind [sMASK] instead of short spans: at least mask_fraction
    of the slice. A slice of one sentence hides spans all the same. GLM-130B had none."""
    gmask_min_fraction: float = 0.2
    """The [gMASK] target's length is uniform between this share of the row and the whole row."""
    mip_positions: MipPositions = MipPositions.consecutive
    """consecutive: an answer's positions go on behind [MASK], as the original was trained; blank: they are all that of
    [MASK], as for short blanks, and as the original was evaluated."""
    mip_truncate: MipTruncate = MipTruncate.end
    """Which end of a prompt is cut where a record is too long: end (its head is kept, as the original) or start."""
    mip_packing: MipPacking = MipPacking.slots
    """slots: each of the windows_per_row windows holds one instruction record, as the original; filled: as many as fit
    on average."""
    loss_weighting: LossWeighting = LossWeighting.row
    """row: each row counts the mean over its own targets; token: each target token of the global batch counts the same."""


@dataclass
class StabilityConfig:
    """What keeps a large run from diverging. GLM-130B, section 3."""

    embedding_shrink: list[list[float]] = field(default_factory=lambda: [[0.0, 0.1]])
    """Embedding gradient shrink alpha as points [samples_seen, alpha], linear between them, constant after the last."""
    initial_loss_scale: float = 65536.0
    """First loss scale of fp16."""
    loss_scale_window: int = 200
    """Steps without overflow before the fp16 loss scale doubles."""
    loss_scale_hysteresis: int = 2
    """Overflows before the fp16 loss scale halves."""
    min_loss_scale: float = 1.0
    """Smallest fp16 loss scale."""
    max_skipped_steps: int = 50
    """Consecutive steps skipped for overflow or NaN before the run stops with an error."""
    watchdog_seconds: float | None = None
    """A step that takes longer counts as hanging: every rank writes its stacks to runs/NAME/stacks and exits with 3, for the
    launcher to start the run again. Ten times as long for the first step, evaluations and saves. null: 20 times the
    slowest recent step, at least 300."""
    meeting_seconds: float = 120.0
    """How long the ranks wait, when they start, for one that does not come; then they exit with 3 and name it. One that
    came may prepare for as long as it takes."""


@dataclass
class LogConfig:
    """What the run says while it trains."""

    every_steps: int = 10
    """Console line every this many steps; metrics.jsonl and wandb always get every step."""
    progress_bar: ProgressBar = ProgressBar.auto
    """A bar with loss, tokens/s and time left."""
    wandb: Wandb = Wandb.off
    """Weights & Biases tracking."""
    wandb_project: str = "glm-pretraining"
    """wandb project."""
    wandb_entity: str | None = None
    """wandb entity; null: the account's default."""


@dataclass
class ClusterConfig:
    """Where the run is meant to run: used by `python -m launch`, and by the MFU metric."""

    nodes: int = 1
    """Number of nodes."""
    gpus_per_node: int = 1
    """Ranks per node (GPUs, or processes on a CPU node)."""
    min_nodes: int | None = None
    """Start, and go on, with as few nodes as this when others are missing: the batches stay the same, the replicas are
    fewer. null: all of them or none."""
    tp_across_nodes: bool = False
    """Allow tensor parallelism over the network between nodes, which is slow: each layer waits for it four times."""
    partition: str | None = None
    """SLURM partition."""
    account: str | None = None
    """SLURM account."""
    qos: str | None = None
    """SLURM quality of service."""
    time: str = "24:00:00"
    """SLURM time limit: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS."""
    signal_seconds: int = 300
    """How long before the time limit the run is asked to save and stop, in seconds: a step, a save and up to a minute
    by which SLURM may be late."""
    requeue: bool = True
    """Let the job go back to the queue by itself after a stop for the scheduler or a failure of a node."""
    max_restarts: int = 3
    """Restarts in a row without a new checkpoint, after which a job gives up."""
    exclude: list[str] = field(default_factory=list[str])
    """Nodes that SLURM must not use, each entry a name or a list such as nid[0001-0008,12]."""
    preflight: bool | None = None
    """Begin each life of a job with `python -m launch preflight`, and leave out the nodes that it names. null: unless
    device is cpu."""
    cpus_per_rank: int | None = None
    """CPU cores of each rank; also OMP_NUM_THREADS, unless `environment` sets it. null: the partition's default."""
    setup: list[str] = field(default_factory=list[str])
    """Shell lines before the ranks start, such as [module load cuda/12.1,source .venv/bin/activate]."""
    environment: list[str] = field(default_factory=list[str])
    """Variables of all ranks, such as [NCCL_SOCKET_IFNAME=ib0,XDG_CACHE_HOME=/shared/cache]."""
    container: str | None = None
    """Command that runs the words after it in a container, such as `apptainer exec --nv glm.sif`."""
    srun_options: list[str] = field(default_factory=list[str])
    """Further options of srun, such as [--container-image=glm.sqsh]."""
    sbatch_options: list[str] = field(default_factory=list[str])
    """Further #SBATCH lines, such as [--exclusive,--reservation=glm]."""
    hostfile: str | None = None
    """Clusters without a scheduler: file with a line `HOST` or `HOST slots=N` for each node."""
    image: str | None = None
    """Kubernetes: image with this program and its libraries."""
    volume: str | None = None
    """Kubernetes: `CLAIM:PATH`, a persistent volume claim that all pods mount at PATH; the run starts in that folder."""
    namespace: str = "default"
    """Kubernetes namespace."""
    gpu: str | None = None
    """GPU of the cluster, for estimates: A100-40G, A100-80G, H100, H200, B200, or custom with all the numbers below."""
    gpu_memory_gib: float | None = None
    """Memory of one GPU; null: the preset's."""
    peak_tflops: float | None = None
    """Dense peak of one device in TFLOP/s, for MFU and HFU; null: known for common GPUs, else MFU is null."""
    gpu_memory_gb_per_second: float | None = None
    """Memory bandwidth of one GPU; null: the preset's."""
    node_gb_per_second: float | None = None
    """Bandwidth between GPUs of a node, per GPU and direction; null: the preset's."""
    network_gb_per_second: float | None = None
    """Bandwidth between nodes, per GPU and direction; null: the preset's."""
    gpu_watts: float | None = None
    """Power of one GPU at full load; null: the preset's."""
    gpu_price_per_hour: float | None = None
    """Price of a GPU hour in dollars; null: a round figure of the preset."""
    gpu_mtbf_hours: float | None = None
    """Mean time between failures per GPU, in hours; null: the preset's, from published logs."""
    storage_gb_per_second: float | None = None
    """Write speed of the shared storage, all nodes together; null: 1 per node, at most 50."""
    restart_minutes: float = 15.0
    """From a failure to the next step: notice, requeue, load."""
    host_memory_gib: float | None = None
    """Memory of a node, to check that a checkpoint's copy fits; null: not checked."""
    measured_seconds_per_step: float | None = None
    """Seconds per step of the full batch, where they are known: the estimate derives MFU, days and cost from them."""


@dataclass
class Config:
    """A whole run."""

    experiment: str = "default"
    """The experiment file that was composed; the run's default name."""
    seed: int = 1234
    """Seeds the initial weights, dropout and the data order."""
    device: DeviceKind = DeviceKind.auto
    """auto: CUDA where a GPU is visible."""
    precision: Precision = Precision.auto
    """auto: what the device does fast, resolved once at the first start and stored in the run folder."""
    deterministic: bool = False
    """CUDA: use deterministic kernels, so that two equal runs are byte-equal (costs speed); CPU runs always are."""
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    log: LogConfig = field(default_factory=LogConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
