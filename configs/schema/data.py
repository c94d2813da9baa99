"""The corpora, and the objective that hides parts of their rows."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

from configs.bounds import Bound, Count, Share, ShareBelow1, above_zero, not_negative

MASK_FRACTION = Bound("above 0 and below 1", lambda value: 0 < value < 1, 0.15)


class SliceRule(str, Enum):
    """How stored tokens become rows: `fit` loses nothing, `glm_130b` truncates as the original run did."""

    fit = "fit"
    glm_130b = "glm_130b"


class Documents(str, Enum):
    """Documents that share a slice: one text, as in the original run, or kept apart."""

    crossed = "crossed"
    isolated = "isolated"


class MipPositions(str, Enum):
    """Positions of an instruction's answer: they continue after [MASK], or all equal that of [MASK]."""

    consecutive = "consecutive"
    blank = "blank"


class MipTruncate(str, Enum):
    """Which end of an over-long prompt is cut off."""

    end = "end"
    start = "start"


class MipPacking(str, Enum):
    """Number of instruction records in a window: one, or as many as fit on average."""

    slots = "slots"
    filled = "filled"


class LossWeighting(str, Enum):
    """What has equal weight in the loss: every row (as in GLM-130B) or every target token of the global batch."""

    row = "row"
    token = "token"


@dataclass
class SpecialTokenTexts:
    """Tokens of the vocabulary with a role in blank infilling, for tokenizers that name them differently."""

    mask: str | None = None
    """The token that serves as [MASK], as the tokenizer's vocabulary writes it; default: the token of that name, or one
    that is added after the vocabulary."""
    gmask: str | None = None
    """The token that serves as [gMASK]; default as for mask."""
    sop: str | None = None
    """The token that starts a target; default: <sop>, or one that is added."""
    eop: str | None = None
    """The token that ends a target; default: <eop>, or one that is added."""
    eos: str | None = None
    """The token that ends a document; default: <eos>, </s>, <|endoftext|> or <eod>, or one that is added."""
    pad: str | None = None
    """The token that fills up rows; default: <pad>, [PAD] or <|pad|>, or one that is added."""
    smask: str | None = None
    """The token that serves as [sMASK]; default: the token of that name, or one that is added."""


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
    stage_ramp_samples: Annotated[int, not_negative()] = 0
    """Samples over which the weights change linearly, from each row of stages and each point of instruction_share on; 0:
    they change at once."""
    valid_paths: list[str] | None = None
    """Validation corpora; default: documents held out of `paths` by a fixed key when they are prepared; of a corpus
    made by Megatron, its last documents."""
    valid_fraction: ShareBelow1 = 0.05
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
    instruction_cap: Count = 100_000
    """Largest number of records that counts as the size of an instruction data set, where they are drawn from by size."""
    prompt_key: str = "prompt"
    """Field of an instruction record that holds the prompt."""
    target_key: str = "target"
    """Field of an instruction record that holds the target."""
    skip_samples: list[list[int]] = field(default_factory=list)
    """Ranges [a, b) of drawn sample indices that are never trained on."""
    locality_rows: Annotated[int, not_negative()] = 0
    """Rows of one source that form a block: a block is read in shuffled order before the next one, which helps disks
    that seek slowly; 0: all rows are shuffled together."""
    local_copy: str | None = None
    """Folder on a local disk of each node: the node's first rank copies the shards there once, and all read them there."""
    accept_changed: bool = False
    """Continue although the shards differ from those that the checkpoint was trained on."""
    cache_dir: str | None = None
    """Folder for prepared corpora; default the user's cache folder (XDG_CACHE_HOME or ~/.cache)."""


@dataclass
class ObjectiveConfig:
    """Autoregressive blank infilling. GLM (Du et al. 2022), section 2.1; GLM-130B, section 2.2."""

    gmask_share: Share = 0.7
    """Share of rows with the [gMASK] objective; rows that neither it nor `shares` takes are [MASK] rows."""
    shares: list[str] = field(default_factory=list)
    """Shares of the rows of further objectives, which installed packages provide: a list of NAME:SHARE, such as [reversed:0.1]
    (docs/extending.md)."""
    slice_rule: SliceRule = SliceRule.fit
    """fit: every stored token is used exactly once per epoch, nothing is truncated; glm_130b: 2000-token rows, as in the
    original."""
    documents: Documents = Documents.crossed
    """crossed: a slice is one text although it may hold several documents, as in the original; isolated: the same slices
    and spans, but attention and positions end with each document."""
    windows_per_row: Count = 4
    """Independent segments packed into a [MASK] row."""
    mask_fraction: Annotated[float, MASK_FRACTION] = 0.15
    """Share of a slice's tokens that is hidden in a [MASK] segment."""
    mean_span_length: Annotated[float, above_zero(3)] = 3.0
    """Poisson mean of the span lengths, in tokens."""
    max_span_length: Count = 39
    """Longest span, in tokens."""
    short_segment_probability: Share = 0.02
    """Probability that a [MASK] slice is shortened (glm_130b) or split in two (fit) at a random length."""
    single_span_probability: Share = 0.02
    """Probability that a [MASK] segment hides one span only."""
    smask_share: Share = 0.0
    """Share of the [MASK] windows that hide whole sentences behind [sMASK] instead of short spans: at least mask_fraction
    of the slice. A slice of a single sentence still hides spans. GLM-130B had no [sMASK]."""
    gmask_min_fraction: Share = 0.2
    """The [gMASK] target's length is uniform between this share of the row and the whole row."""
    mip_positions: MipPositions = MipPositions.consecutive
    """consecutive: an answer's positions continue after [MASK], as the original was trained; blank: they all equal that
    of [MASK], as for short blanks, and as the original was evaluated."""
    mip_truncate: MipTruncate = MipTruncate.end
    """Which end of a prompt is cut if a record is too long: end (the beginning is kept, as in the original) or start."""
    mip_packing: MipPacking = MipPacking.slots
    """slots: each of the windows_per_row windows holds one instruction record, as in the original; filled: as many as fit
    on average."""
    loss_weighting: LossWeighting = LossWeighting.row
    """row: the loss averages over rows the mean over each row's targets; token: it averages over all target tokens."""
