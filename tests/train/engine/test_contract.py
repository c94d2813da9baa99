"""What this program uses of its libraries beyond what they document: an upgrade that moves one fails here, by name."""

import ast
import importlib
import inspect
from importlib import metadata
from typing import Any

import pytest

from tests.helpers.distributed import run_distributed
from tests.helpers.places import ROOT
from tests.helpers.rank_runs import allow_fp16, config_of, rank_session, train
from tests.helpers.sources import sources

# The versions whose source was read.
READ = {
    "deepspeed": "0.19.8",
    "megatron-core": "0.16.1",
    "torch": "2.13.0",
    "hydra-core": "1.3.2",
    "wandb-workspaces": "0.4.13",
}

# (library, module, dotted name in it)
STATIC = [
    ("deepspeed", "deepspeed.comm.comm", "cdb"),
    ("deepspeed", "deepspeed.ops", "__compatible_ops__"),
    ("deepspeed", "deepspeed.runtime.zero.stage_1_and_2", "INITIAL_MICRO_STEP_ID"),
    ("deepspeed", "deepspeed.runtime.pipe.schedule", "TrainSchedule"),
    ("deepspeed", "deepspeed.runtime.pipe.topology", "PipeModelDataParallelTopology.get_coord"),
    ("deepspeed", "deepspeed.runtime.pipe.topology", "PipelineParallelGrid.stage_to_global"),
    ("deepspeed", "deepspeed.pipe", "PipelineModule._partition_layers"),
    ("deepspeed", "deepspeed.pipe", "PipelineModule._set_bounds"),
    (
        "deepspeed",
        "deepspeed.runtime.zero.stage_1_and_2",
        "DeepSpeedZeroOptimizer._release_preflattened_grad_buffers",
    ),
    ("megatron-core", "megatron.core.tensor_parallel", "set_tensor_model_parallel_attributes"),
    ("megatron-core", "megatron.core.parallel_state", "destroy_model_parallel"),
    (
        "megatron-core",
        "megatron.core.pipeline_parallel.schedules",
        "forward_backward_pipelining_with_interleaving",
    ),
    ("megatron-core", "megatron.core.pipeline_parallel.schedules", "forward_step"),
    ("megatron-core", "megatron.core.pipeline_parallel.schedules", "backward_step"),
    ("megatron-core", "megatron.core.pipeline_parallel.p2p_communication", "_p2p_ops"),
    (
        "megatron-core",
        "megatron.core.pipeline_parallel.p2p_communication",
        "P2PCommunicator._communicate",
    ),
    ("deepspeed", "deepspeed.pipe", "PipelineModule._build"),
    ("deepspeed", "deepspeed.pipe", "PipelineModule.stage_owner"),
    ("deepspeed", "deepspeed.pipe", "PipelineModule._synchronize_tied_weights"),
    ("deepspeed", "deepspeed.runtime.engine", "DeepSpeedEngine.forward"),
    ("torch", "torch.testing._internal.distributed.fake_pg", "FakeStore"),
    (
        "torch",
        "torch.distributed.elastic.rendezvous.static_tcp_rendezvous",
        "StaticTCPRendezvous",
    ),
    ("wandb-workspaces", "wandb_workspaces.workspaces.interface", "Workspace._to_model"),
    ("torch", "torch.cuda.memory", "_record_memory_history"),
    ("torch", "torch.cuda.memory", "_dump_snapshot"),
    ("torch", "torch", "ops.aten._scaled_dot_product_flash_attention_for_cpu"),
    ("torch", "torch", "ops.aten._scaled_dot_product_flash_attention_for_cpu_backward"),
    ("hydra-core", "hydra.core.override_parser.overrides_parser", "OverridesParser.create"),
]

# Of a live engine: attributes by object and precision ("" for all).
WRAPPER_OF_ZERO = ("averaged_gradients", "all_grad_tensors", "micro_step_id", "bit16_groups")
LIVE = {
    "engine": {
        "": ("global_steps", "global_samples", "skipped_steps", "set_train_batch_size")
        + ("_INSTRUCTION_MAP", "_running_engine_backward", "_backward_prologue_per_tensor")
        + ("micro_batches",),
    },
    "wrapper": {
        "": ("optimizer", "param_groups", "update_lp_params", "zero_grad", "overflow")
        + ("_global_grad_norm",),
        "fp32": WRAPPER_OF_ZERO,
        "fp16": WRAPPER_OF_ZERO,
        "bf16": ("bf16_groups", "fp32_groups_gradients")
        + ("bf16_groups_flat", "bf16_partitioned_groups", "fp32_groups_gradients_flat")
        + ("fp32_groups_flat_partition", "fp32_groups_gradient_flat_partition")
        + ("real_dp_process_group", "_lazy_init_hp_params_optimizer_state")
        + ("fp32_groups_has_gradients",),
    },
    "loss_scaler": {
        "fp16": ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis", "dynamic")
        + ("raise_error_at_min_scale",),
    },
    "parameter": {
        "": ("_hp_mapping", "ds_pipe_replicated", "tensor_model_parallel", "partition_dim"),
        "bf16": ("_hp_grad",),
    },
    "mapping": {
        "": ("param_group_index", "hp_fragment_address", "lp_fragment_address"),
    },
    "module": {
        "": ("_topo", "_grid", "parts", "_local_start", "_local_stop", "tied_comms"),
    },
    "grid": {"": ("dp_group", "pp_group", "slice_group", "stage_to_global")},
}
# Private names that occur in the sources and are checked by another test, or belong to Python.
ELSEWHERE = {
    "_fields",  # named tuples
    "_replace",
    "_exit",  # os
    "_run_exitfuncs",  # atexit: tests/train/test_fast_exit.py
    "_store",  # torchrun's rendezvous: tests/integration/test_torchrun.py
    "_timeout",  # NCCL's options: needs CUDA
}


@pytest.mark.parametrize("library, module, name", STATIC)
def test_a_library_still_has_the_name(library: str, module: str, name: str) -> None:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        has_it = part in vars(found) or hasattr(found, part)
        assert has_it, moved(library, f"{module}.{name}")
        found = getattr(found, part, None)


def live_objects(rank: int, world_size: int, precision: str) -> list[str]:
    """Names that are missing on the objects of an engine that has trained two steps."""
    from train.engine.pipeline import PipelineEngine

    allow_fp16()
    config = config_of((f"precision={precision}",), world_size)
    missing: list[str] = []

    def look(kind: str, thing: Any) -> None:
        for names in (LIVE[kind].get("", ()), LIVE[kind].get(precision, ())):
            missing.extend(f"{kind} {name}" for name in names if not hasattr(thing, name))

    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        train(engine, session, config, 0, 2)
        wrapper = engine.deepspeed.optimizer
        look("engine", engine.deepspeed)
        look("wrapper", wrapper)
        if precision == "fp16":
            look("loss_scaler", wrapper.loss_scaler)
        module: Any = engine.module
        look("module", module)
        look("grid", module._grid)
        weight = module.tied_modules["embed"].word_embeddings.weight
        look("parameter", weight)
        if rank == 0:  # the other replica of fp32 owns nothing of this matrix
            look("mapping", weight._hp_mapping)
        engine.close()
    return missing


def test_megatrons_schedule_makes_nothing_by_zeros_but_its_count_of_tokens() -> None:
    """train/engine/megatron_schedule.py gives it a `torch` whose `zeros` stays on CPU."""
    schedules: Any = importlib.import_module("megatron.core.pipeline_parallel.schedules")
    source = inspect.getsource(schedules.forward_backward_pipelining_with_interleaving)
    assert source.count("torch.zeros(") == 1
    assert 'total_num_tokens = torch.zeros([], dtype=torch.int, device="cuda")' in source


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_deepspeeds_objects_still_have_their_attributes(precision: str) -> None:
    # In fp32 one replica has no wrapper.
    missing = sum(run_distributed(live_objects, 2 if precision == "fp32" else 1, precision), [])
    assert not missing, moved("deepspeed", ", ".join(missing))


def moved(library: str, names: str) -> str:
    """What an upgrade of a library has changed."""
    return (
        f"{library} {metadata.version(library)} has no {names}; the source that was read is {READ[library]}. "
        "See what took its place, then change the file that uses it and this list."
    )


def test_every_private_name_of_a_library_is_in_the_contract() -> None:
    listed = {part for _, _, name in STATIC for part in name.split(".")} | ELSEWHERE
    for kinds in LIVE.values():
        listed |= {name for names in kinds.values() for name in names}
    own: set[str] = set()
    used: dict[str, str] = {}
    for path, tree in sources().items():
        for node in ast.walk(tree):
            own |= _defined(node)
            for name in _private(node):
                used[name] = path
    unknown = {name: path for name, path in used.items() if name not in own | listed}
    assert not unknown, f"private names of libraries that no test watches: {unknown}"


def _defined(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "object.__setattr__":
        return {name.value for name in node.args[1:2] if isinstance(name, ast.Constant)}
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return {node.id}
    is_own = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    if is_own and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
        return {node.attr}
    return set()


def _private(node: ast.AST) -> list[str]:
    """Names such as `_x` that are read off something; those of `vars(thing)["_x"]` and `getattr` too."""
    found: list[Any] = []
    if isinstance(node, ast.Attribute):
        found = [node.attr]
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        found = [node.slice.value]
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    if is_call and node.func.id in ("getattr", "hasattr", "setattr"):
        found = [part.value for part in node.args[1:2] if isinstance(part, ast.Constant)]
    names = [name for name in found if isinstance(name, str)]
    return [name for name in names if name.startswith("_") and not name.startswith("__")]


def test_private_modules_are_imported_by_the_dry_run_alone() -> None:
    found = [
        (path, node.module)
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module
        and ("._" in node.module or node.module.startswith("torch.testing"))
    ]
    assert found == [("train/distributed.py", "torch.testing._internal.distributed.fake_pg")]
    assert (ROOT / "train/distributed.py").read_text().count("FakeStore") == 2  # fake_session alone


def test_the_engine_is_the_only_folder_that_imports_deepspeed() -> None:
    """Identifiers, not words in messages: a package list may name the package."""
    wrong = []
    for path, tree in sources().items():
        if path.startswith("train/engine/"):
            continue
        for node in ast.walk(tree):
            names = [
                getattr(node, field, None) for field in ("id", "attr", "module", "name", "arg")
            ]
            wrong += [
                f"{path}: {name}"
                for name in names
                if isinstance(name, str)
                and (
                    "deepspeed" in name.lower()
                    or name.startswith(("ds_", "_hp_"))
                    or name in ("averaged_gradients", "update_lp_params", "bit16_groups")
                )
            ]
    assert not wrong
