"""The details of a step as single numbers."""

from train.detail_values import MOST_LAYERS, scalars


def test_lists_and_objects_become_numbers_by_name() -> None:
    line = {
        "step": 100,
        "samples_seen": 800,
        "layers/gradient_norm": [0.5, float("inf"), 2],
        "parts/weight_norm": {"embedding": 3.0, "final_norm": 4.0},
        "time/step": 1.5,
        "ranks/seconds": [1.0, 5.0, 2.0],
        "train/loss_source/web": None,
        "pipeline/passes": {"stages": [[{"kind": "forward"}]], "step": 100},
        "empty": [],
    }
    assert scalars(line) == {
        "step": 100,
        "samples_seen": 800,
        "layers/gradient_norm/00": 0.5,
        "layers/gradient_norm/01": float("inf"),
        "layers/gradient_norm/02": 2,
        "parts/weight_norm/embedding": 3.0,
        "parts/weight_norm/final_norm": 4.0,
        "time/step": 1.5,
        "ranks/seconds/min": 1.0,
        "ranks/seconds/median": 2.0,
        "ranks/seconds/max": 5.0,
    }


def test_the_curves_of_a_deep_model_are_bounded() -> None:
    found = scalars({"layers/weight_norm": list(range(1000))})
    assert len(found) == MOST_LAYERS
    assert all(int(key.rpartition("/")[2]) == value for key, value in found.items())
    assert found["layers/weight_norm/000"] == 0 and found["layers/weight_norm/999"] == 999
    assert list(found) == sorted(found)
