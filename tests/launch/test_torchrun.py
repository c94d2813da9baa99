"""The command that starts a run, as one types it."""

import shlex

from configs.load import load_config
from launch.torchrun import torchrun


def test_one_node_meets_by_itself() -> None:
    assert torchrun([]) == "torchrun --standalone --max-restarts 3 --nproc-per-node 1 -m train"


def test_there_are_processes_for_at_least_one_whole_model() -> None:
    assert torchrun(["parallel.tp=2", "parallel.pp=2"]) == (
        "torchrun --standalone --max-restarts 3 --nproc-per-node 4 -m train parallel.tp=2 parallel.pp=2"
    )


def test_several_nodes_meet_at_the_head_node() -> None:
    assert torchrun(["experiment=glm_130b"]) == (
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes 96 --max-restarts 3 --rdzv-backend c10d --rdzv-id glm_130b "
        '--rdzv-endpoint "$HEAD_NODE:29400" --nproc-per-node 8 -m train experiment=glm_130b'
    )


def test_the_shell_hands_over_the_words_unchanged() -> None:
    words = ["run.name=it's mine", "data.skip_samples=[[1,5]]", "data.paths=[a b.txt,c.txt]"]
    typed = shlex.split(torchrun(words))
    assert typed[typed.index("train") + 1 :] == words
    load_config(typed[typed.index("train") + 1 :])
