"""Playing DeepSpeed's schedule, and schedules that are wrong on purpose."""

import pytest

from train.dryrun.schedule import Instructions, simulate
from train.engine import stage_instructions


@pytest.mark.parametrize("pp", [1, 2, 3, 8])
@pytest.mark.parametrize("num_micro_batches", [1, 2, 7, 16])
def test_deepspeeds_schedule_computes_everything_once(num_micro_batches: int, pp: int) -> None:
    assert simulate(num_micro_batches, pp, stage_instructions) == []


def changed(stage: int, edit: str) -> "Changed":
    return Changed(stage, edit)


class Changed:
    """DeepSpeed's schedule with a fault on one stage."""

    def __init__(self, stage: int, edit: str) -> None:
        self.stage = stage
        self.edit = edit

    def __call__(self, num_micro_batches: int, pp: int, stage: int) -> Instructions:
        given = stage_instructions(num_micro_batches, pp, stage)
        if stage != self.stage:
            return given
        names = [name for name, _ in given]
        if self.edit == "a send is lost":
            del given[names.index("SendActivation")]
        elif self.edit == "a receive is lost":
            del given[names.index("RecvGrad")]
        elif self.edit == "sends change places":
            at = names.index("RecvGrad")
            given[at : at + 2] = given[at : at + 2][::-1]
        elif self.edit == "a micro-batch is computed twice":
            at = names.index("ForwardPass")
            given.insert(at, given[at])
        elif self.edit == "no update":
            del given[names.index("OptimizerStep")]
        elif self.edit == "labels run ahead":
            given.insert(0, ("LoadMicroBatch", 0))
        return given


@pytest.mark.parametrize(
    ("stage", "edit", "words"),
    [
        (0, "a send is lost", "hangs: stage 0 at"),
        (0, "a receive is lost", "hangs: stage 0 at"),
        (
            1,
            "a micro-batch is computed twice",
            "stage 1 does not execute these exactly once: [('forward', 0)]",
        ),
        (2, "no update", "stage 2 does not execute these exactly once: [('update', 0)]"),
        (3, "labels run ahead", "stage 3 has labels of micro-batch 1 for activations of 0"),
    ],
)
def test_a_fault_of_one_stage_is_found(stage: int, edit: str, words: str) -> None:
    problems = simulate(6, 4, changed(stage, edit))
    assert any(words in problem for problem in problems), problems


def test_two_stages_that_both_send_first_hang() -> None:
    """Why the order of a stage's receive and send matters where transfers block."""

    def instructions(num_micro_batches: int, pp: int, stage: int) -> Instructions:
        if stage == 0:
            return [("LoadMicroBatch", 0), ("ForwardPass", 0), ("SendActivation", 0)]
        return [("SendGrad", 0), ("RecvActivation", 0)]

    (problem,) = simulate(1, 2, instructions)
    assert problem == (
        "with 1 micro-batches the pipeline hangs: stage 0 at ('SendActivation', 0), stage 1 at ('SendGrad', 0)"
    )
