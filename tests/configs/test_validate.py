"""Every mistake that a configuration can hold, with its exact message; and the advice in it is taken and works."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import derive
from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import BatchRampConfig, Config
from configs.validate import problems

# Words, and the one problem that they make.
CASES = [
    ("parallel.tp=0", "parallel.tp (0) must be at least 1. Try parallel.tp=1."),
    (
        "optim.batch_ramp.samples=0",
        "optim.batch_ramp.samples (0) must be at least 1. Try optim.batch_ramp.samples=1.",
    ),
    (
        "run.stop_after_samples=-3",
        "run.stop_after_samples (-3) must be at least 1. Try run.stop_after_samples=1.",
    ),
    ("optim.lr=0", "optim.lr (0.0) must be above 0. Try optim.lr=0.001."),
    (
        "experiment=glm_130b optim.lr=-1",
        "optim.lr (-1.0) must be above 0. Try optim.lr=8e-05.",  # of the chosen groups
    ),
    ("optim.lr=nan", "optim.lr (nan) must be a finite number. Try optim.lr=0.001."),
    (
        "data.weights=[inf]",
        "data.weights (inf) must be a finite number. Try data.weights=0.1.",
    ),
    (
        "model.embedding_init_std=0",
        "model.embedding_init_std (0.0) must be above 0. Try model.embedding_init_std=0.0052.",
    ),
    (
        "run.time_margin_seconds=-1",
        "run.time_margin_seconds (-1.0) must not be negative. Try run.time_margin_seconds=60.",
    ),
    (
        "checkpoint.healthy_margin=-0.1",
        "checkpoint.healthy_margin (-0.1) must not be negative. Try checkpoint.healthy_margin=0.5.",
    ),
    (
        "checkpoint.copy_keep_last=0",
        "checkpoint.copy_keep_last (0) must be at least 1. Try checkpoint.copy_keep_last=1.",
    ),
    ("optim.clip=-1", "optim.clip (-1.0) must not be negative. Try optim.clip=0."),
    (
        "data.locality_rows=-1",
        "data.locality_rows (-1) must not be negative. Try data.locality_rows=0.",
    ),
    ("seed=-1", "seed (-1) must lie between 0 and 2^63 - 1. Try seed=1234."),
    (
        "objective.gmask_share=1.5",
        "objective.gmask_share (1.5) must be between 0 and 1. Try objective.gmask_share=0.5.",
    ),
    (
        "model.hidden_dropout=1",
        "model.hidden_dropout (1.0) must be at least 0 and below 1. Try model.hidden_dropout=0.1.",
    ),
    (
        "objective.mask_fraction=0",
        "objective.mask_fraction (0.0) must be above 0 and below 1. Try objective.mask_fraction=0.15.",
    ),
    (
        "model.num_heads=3",
        "model.num_heads (3) must divide model.hidden_size (256). Try model.num_heads=2.",
    ),
    (
        "model.hidden_size=260",
        "model.hidden_size (260) / model.num_heads (4) must be a multiple of 2 for rotary positions. "
        "Try model.hidden_size=128.",
    ),
    (
        "model.hidden_size=24 model.rope_2d=true",
        "model.hidden_size (24) / model.num_heads (4) must be a multiple of 4 for rotary positions. "
        "Try model.hidden_size=256.",
    ),
    (
        "model.seq_length=510",
        "objective.windows_per_row (4) must divide model.seq_length (510). Try model.seq_length=508.",
    ),
    (
        "model.seq_length=64",
        "model.seq_length (64) / objective.windows_per_row (4) must be at least 32 tokens. "
        "Try model.seq_length=128.",
    ),
    (
        "model.seq_length=520 objective.slice_rule=glm_130b",
        "model.seq_length (520) must be a multiple of 128 with objective.slice_rule (glm_130b), whose rows hold "
        "125/128 of it. Try model.seq_length=512.",
    ),
    (
        "model.attention=sdpa model.attention_dropout=0.1",
        "model.attention (sdpa) cannot apply model.attention_dropout (0.1). Try model.attention=reference, "
        "or model.attention_dropout=0.",
    ),
    (
        "model.attention=flex model.softmax_fp32=false",
        "model.attention (flex) computes its softmax in fp32 and cannot do without (model.softmax_fp32=false). "
        "Try model.attention=reference, or model.softmax_fp32=true.",
    ),
    (
        "precision=fp32 model.softmax_fp32=false",
        "model.softmax_fp32 (false) means a softmax in the training precision, but precision (fp32) has no other. "
        "Try precision=bf16, or model.softmax_fp32=true.",
    ),
    (
        "model.attention=flex device=cpu",
        "model.attention (flex) has no backward pass on device (cpu). Try model.attention=sdpa.",
    ),
    (
        "parallel.tp=8",
        "parallel.tp (8) must divide model.num_heads (4). Try parallel.tp=4.",
    ),
    (
        "parallel.tp=2 model.ffn_size=701",
        "parallel.tp (2) must divide model.ffn_size (701). Try model.ffn_size=702.",
    ),
    (
        "parallel.tp=4 model.vocab_multiple=2 model.vocab_size=4098",
        "parallel.tp (4) must divide the padded vocabulary (4098). Try model.vocab_multiple=8.",
    ),
    (
        "parallel.zero_stage=2",
        "parallel.zero_stage (2) must be 0 or 1: the pipeline engine shards optimizer states only. "
        "Try parallel.zero_stage=1.",
    ),
    (
        "parallel.zero_stage=0 precision=bf16",
        "parallel.zero_stage (0) keeps no fp32 copy that precision (bf16) needs. Try parallel.zero_stage=1, "
        "or precision=fp32.",
    ),
    (
        "precision=fp16 device=cpu",
        "precision (fp16) does not run on device (cpu). Try precision=bf16.",
    ),
    (
        "stability.initial_loss_scale=1000",
        "stability.initial_loss_scale (1000.0) must be a power of two, at least 1. "
        "Try stability.initial_loss_scale=65536.",
    ),
    (
        "stability.min_loss_scale=131072",
        "stability.min_loss_scale (131072.0) must not exceed stability.initial_loss_scale (65536.0). "
        "Try stability.min_loss_scale=1.",
    ),
    (
        "optim.min_lr=0.01",
        "optim.min_lr (0.01) must lie between 0 and optim.lr (0.001). Try optim.min_lr=0.0001.",
    ),
    (
        "optim.warmup_samples=-1",
        "optim.warmup_samples (-1) must not be negative. Try optim.warmup_samples=0.",
    ),
    (
        "optim.warmup_samples=5000",
        "optim.warmup_samples (5000) must not exceed optim.decay_samples (4096). Try optim.warmup_samples=40.",
    ),
    (
        "optim.schedule=wsd optim.wsd_decay_samples=4090",
        "optim.wsd_decay_samples (4090) must lie between 0 and optim.decay_samples (4096) - optim.warmup_samples "
        "(409). Try optim.wsd_decay_samples=368.",
    ),
    (
        "stability.embedding_shrink=[]",
        "stability.embedding_shrink ([]) must be points [samples, alpha]. Try stability.embedding_shrink=[[0,0.1]].",
    ),
    (
        "stability.embedding_shrink=[[10,1],[10,0.5]]",
        "stability.embedding_shrink ([[10.0, 1.0], [10.0, 0.5]]) must go forward in samples. "
        "Try stability.embedding_shrink=[[0,0.1]].",
    ),
    (
        "stability.embedding_shrink=[[0,2]]",
        "stability.embedding_shrink ([[0.0, 2.0]]) must have alphas between 0 and 1. "
        "Try stability.embedding_shrink=[[0,0.1]].",
    ),
    ("data.paths=[]", "data.paths ([]) must name a corpus. Try data.paths=corpus.jsonl."),
    (
        "data.weights=[1,2]",
        "data.weights ([1.0, 2.0]) must give each of data.paths (1 of them) a weight of at least 0, and not all 0. "
        "Try data.weights=null to sample by size.",
    ),
    (
        "data.stages=[]",
        "data.stages ([]) must be rows [from_sample, weight, ...], a weight for each of data.paths. "
        "Try data.stages=[[0,1]].",
    ),
    (
        "data.stages=[[0,1],[5]]",
        "data.stages ([[0.0, 1.0], [5.0]]) must be rows [from_sample, weight, ...], a weight for each of data.paths. "
        "Try data.stages=[[0,1]].",
    ),
    (
        "data.stages=[[10,1],[5,1]]",
        "data.stages ([[10.0, 1.0], [5.0, 1.0]]) must begin at sample 0 and go forward. They begin at [10, 5]. "
        "Try data.stages=[[0,1]].",
    ),
    (
        "data.stages=[[0,1],[5.5,1]]",
        "data.stages ([[0.0, 1.0], [5.5, 1.0]]) must begin at whole samples. Try data.stages=[[0,1]].",
    ),
    (
        "data.stages=[[0,1,2]]",
        "data.stages ([0.0, 1.0, 2.0]) must give at most a weight for each of data.paths (1), each at least 0, and not "
        "all 0. Try data.stages=[[0,1]].",
    ),
    (
        "data.stage_ramp_samples=-1",
        "data.stage_ramp_samples (-1) must not be negative. Try data.stage_ramp_samples=0.",
    ),
    (
        "data.stage_ramp_samples=100",
        "data.stage_ramp_samples (100) needs data.stages (null) or data.instruction_share (null) to move between. Try "
        "data.stage_ramp_samples=0.",
    ),
    (
        "data.skip_samples=[[5,5]]",
        "data.skip_samples ([[5, 5]]) must be ranges [a,b) with 0 <= a < b. Try data.skip_samples=[[40700,40900]].",
    ),
    (
        "data.skip_samples=[[9,12],[1,5],[4,8]]",
        "data.skip_samples ([[9, 12], [1, 5], [4, 8]]) must be in order, without overlap. "
        "Try data.skip_samples=[[1,8],[9,12]].",
    ),
    (
        "data.skip_samples=[[1,5],[4,8],[8,9]]",
        "data.skip_samples ([[1, 5], [4, 8], [8, 9]]) must be in order, without overlap. "
        "Try data.skip_samples=[[1,9]].",
    ),
    (
        "cluster.time=24h",
        "cluster.time (24h) must be minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS, above 0: SLURM's forms. Try cluster.time=24:00:00.",
    ),
    (
        "cluster.time=00:00:00",
        "cluster.time (00:00:00) must be minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS, above 0: SLURM's forms. Try cluster.time=24:00:00.",
    ),
    ("cluster.nodes=0", "cluster.nodes (0) must be at least 1. Try cluster.nodes=1."),
    (
        "cluster.time=00:05:00",
        "cluster.signal_seconds (300) must be below cluster.time (00:05:00 = 300 s), or the run is asked to stop "
        "before it starts. Try cluster.signal_seconds=75.",
    ),
    (
        "cluster.nodes=4 cluster.min_nodes=5",
        "cluster.min_nodes (5) must not exceed cluster.nodes (4). Try cluster.min_nodes=3.",
    ),
    (
        "cluster.max_restarts=-1",
        "cluster.max_restarts (-1) must not be negative. Try cluster.max_restarts=3.",
    ),
    (
        "cluster.nodes=4 cluster.gpus_per_node=1 parallel.tp=2",
        "parallel.tp (2) does not divide cluster.gpus_per_node (1): tensor parallelism would go over the network. "
        "Try parallel.tp=1, or cluster.tp_across_nodes=true if that is meant.",
    ),
    (
        "cluster.nodes=2 cluster.gpus_per_node=2 parallel.tp=4",
        "parallel.tp (4) does not divide cluster.gpus_per_node (2): tensor parallelism would go over the network. "
        "Try parallel.tp=2, or cluster.tp_across_nodes=true if that is meant.",
    ),
    (
        "cluster.environment=NCCL_DEBUG",
        "cluster.environment (NCCL_DEBUG) must be NAME=VALUE. Try cluster.environment=NCCL_DEBUG=INFO.",
    ),
    (
        "cluster.exclude=node;1",
        "cluster.exclude (node;1) must name nodes as SLURM does, such as node042 or nid[010696-010718]. "
        "Try cluster.exclude=[node042,node7].",
    ),
    (
        "cluster.srun_options=exclusive",
        "cluster.srun_options (exclusive) must begin with - and stand on one line. "
        "Try cluster.srun_options=--exclusive.",
    ),
    (
        "cluster.account=my;account",
        "cluster.account (my;account) must be one word. Try cluster.account=null for the cluster's default.",
    ),
]


@pytest.mark.parametrize(("words", "expected"), CASES)
def test_a_mistake_is_named_exactly(words: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(words.split())
    assert caught.value.problems == [expected]


@pytest.mark.parametrize(("words", "expected"), CASES)
def test_what_a_message_says_to_type_corrects_the_mistake(words: str, expected: str) -> None:
    advice = re.search(r"Try (\S+?=\S+?)[.,]?( |$)", expected)
    assert advice, "every message ends with what to type"
    load_config([*words.split(), advice[1]])


def test_tensor_parallelism_over_the_network_is_allowed_when_it_is_said() -> None:
    words = ["cluster.nodes=2", "cluster.gpus_per_node=1", "parallel.tp=2"]
    load_config([*words, "cluster.tp_across_nodes=true"])


def test_every_problem_of_a_cluster_is_listed_at_once() -> None:
    words = "cluster.nodes=2 parallel.tp=2 cluster.time=1h cluster.exclude=[a;b,c] cluster.qos=x;y"
    with pytest.raises(ConfigError) as caught:
        load_config(words.split())
    assert len(caught.value.problems) == 4


def test_every_problem_is_listed_at_once() -> None:
    config = Config()
    config.optim.lr, config.optim.clip = -1.0, -1.0
    config.parallel.zero_stage = 3
    config.parallel.tp = 3
    config.data.paths = []
    assert problems(config) == [
        "parallel.zero_stage (3) must be 0 or 1: the pipeline engine shards optimizer states only. "
        "Try parallel.zero_stage=1.",
        "optim.lr (-1.0) must be above 0. Try optim.lr=0.0001.",
        "optim.clip (-1.0) must not be negative. Try optim.clip=0.",
        "parallel.tp (3) must divide model.num_heads (4), model.ffn_size (704) and the padded vocabulary (4096). "
        "Try parallel.tp=4.",
        "data.paths ([]) must name a corpus. Try data.paths=corpus.jsonl.",
    ]


@settings(max_examples=200)
@given(
    st.fixed_dictionaries(
        {
            "tp": st.integers(-1, 9),
            "pp": st.integers(-1, 9),
            "layers": st.integers(-1, 9),
            "heads": st.integers(-1, 9),
            "hidden": st.integers(-1, 99),
            "windows": st.integers(-1, 9),
            "seq": st.integers(-1, 999),
            "micro": st.integers(-1, 9),
            "batch": st.integers(-1, 99),
            "total": st.integers(-1, 999),
            "ramp": st.none() | st.lists(st.none() | st.integers(-1, 99), min_size=3, max_size=3),
            "nodes": st.integers(-1, 3),
            "gpus": st.integers(-1, 9),
            "world": st.none() | st.integers(1, 32),
        }
    ),
)
def test_checks_never_fail_and_what_passes_can_be_computed_with(numbers: dict[str, Any]) -> None:
    config = Config()
    config.parallel.tp, config.parallel.pp = numbers["tp"], numbers["pp"]
    config.model.num_layers, config.model.num_heads = numbers["layers"], numbers["heads"]
    config.model.hidden_size, config.model.seq_length = numbers["hidden"], numbers["seq"]
    config.objective.windows_per_row = numbers["windows"]
    config.optim.micro_batch_size, config.optim.global_batch_size = (
        numbers["micro"],
        numbers["batch"],
    )
    config.optim.total_samples = numbers["total"]
    config.optim.batch_ramp = None if numbers["ramp"] is None else BatchRampConfig(*numbers["ramp"])
    config.cluster.nodes, config.cluster.gpus_per_node = numbers["nodes"], numbers["gpus"]
    if problems(config, numbers["world"]):
        return
    world = numbers["world"] or derive.planned_world_size(config)
    dp = derive.data_parallel_size(config, world)
    assert dp * config.parallel.tp * config.parallel.pp == world
    for level in derive.ramp_levels(config.optim):
        accumulated = derive.grad_accum(config.optim, dp, level.batch_size)
        assert config.optim.micro_batch_size * accumulated * dp == level.batch_size
        assert accumulated >= 1
