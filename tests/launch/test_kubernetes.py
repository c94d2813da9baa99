"""The manifest against the operator's schema: a PyTorchJob as the Kubeflow training operator 1.x defines it."""

import json
import re
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from launch.kubernetes import kubernetes, object_name

PLACE = ["cluster.image=registry/glm:1", "cluster.volume=claim:/glm"]

# The fields that we use, with their types, of github.com/kubeflow/training-operator
# manifests/base/crds/kubeflow.org_pytorchjobs.yaml (v1), and of the Kubernetes core API for what stands in a pod.
# A type, a tuple of allowed values, a list of one kind of item, or the fields of an object; "!" marks required ones.
POD = {
    "terminationGracePeriodSeconds": int,
    "containers!": [
        {
            "name!": ("pytorch",),
            "image!": str,
            "command": [str],
            "workingDir": str,
            "env": [{"name!": str, "value": str}],
            "resources": {"limits": {"nvidia.com/gpu": str, "cpu": str}},
            "volumeMounts": [{"name!": str, "mountPath!": str}],
        }
    ],
    "volumes": [
        {
            "name!": str,
            "persistentVolumeClaim": {"claimName!": str},
            "emptyDir": {"medium": ("", "Memory")},
        }
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms!": [
                    {
                        "matchExpressions": [
                            {
                                "key!": str,
                                "operator!": ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
                                "values": [str],
                            }
                        ]
                    }
                ]
            }
        }
    },
}
REPLICAS = {
    "replicas": int,
    "restartPolicy": ("Always", "OnFailure", "Never", "ExitCode"),
    "template": {"spec": POD},
}
SCHEMA = {
    "apiVersion!": ("kubeflow.org/v1",),
    "kind!": ("PyTorchJob",),
    "metadata!": {"name!": str, "namespace": str},
    "spec!": {
        "nprocPerNode": str,
        "elasticPolicy": {
            "rdzvBackend": ("c10d", "etcd", "etcd-v2"),
            "minReplicas": int,
            "maxReplicas": int,
            "maxRestarts": int,
        },
        "runPolicy": {
            "cleanPodPolicy": ("All", "Running", "None"),
            "backoffLimit": int,
            "activeDeadlineSeconds": int,
        },
        "pytorchReplicaSpecs!": {"Worker": REPLICAS, "Master": REPLICAS},
    },
}


def violations(value: Any, schema: Any, path: str = "") -> list[str]:
    """Where a value is not of the schema."""
    if isinstance(schema, tuple):
        return [] if value in schema else [f"{path}: {value}"]
    if isinstance(schema, type):
        return [] if type(value) is schema else [f"{path}: {value!r}"]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{path}: no list"]
        return [
            wrong
            for index, item in enumerate(value)
            for wrong in violations(item, schema[0], f"{path}[{index}]")
        ]
    if not isinstance(value, dict):
        return [f"{path}: no object"]
    fields = {name.rstrip("!"): kind for name, kind in schema.items()}
    found = [
        f"{path}.{name} is missing"
        for name in schema
        if name.endswith("!") and name[:-1] not in value
    ]
    found += [f"{path}.{name} is unknown" for name in value if name not in fields]
    for name in value.keys() & fields.keys():
        found += violations(value[name], fields[name], f"{path}.{name}")
    return found  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=glm_130b"],
        ["experiment=glm_10b_1node", "cluster.cpus_per_rank=8", "cluster.exclude=[bad]"],
        ["device=cpu", "cluster.environment=[A=b=c,OMP_NUM_THREADS=2]"],
    ],
)
def test_the_manifest_is_of_the_operators_schema(words: list[str]) -> None:
    assert violations(json.loads(kubernetes([*words, *PLACE])), SCHEMA) == []


def test_the_schema_finds_mistakes() -> None:
    made = json.loads(kubernetes(PLACE))
    made["spec"]["nprocPerNode"] = 8
    made["spec"]["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] = "Sometimes"
    made["spec"]["replicas"] = 1
    del made["metadata"]["name"]
    assert len(violations(made, SCHEMA)) == 4


def test_the_published_run_has_a_pod_of_eight_gpus_a_node() -> None:
    made = json.loads(kubernetes(["experiment=glm_130b", *PLACE]))
    spec = made["spec"]
    worker = spec["pytorchReplicaSpecs"]["Worker"]
    (container,) = worker["template"]["spec"]["containers"]
    assert made["metadata"]["name"] == "glm-130b"
    assert (spec["nprocPerNode"], worker["replicas"]) == ("8", 96)
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert container["workingDir"] == "/glm"
    assert load_config(container["command"][3:]) == load_config(
        ["experiment=glm_130b", *PLACE, "run.time_limit=0-23:55:00"]
    )


@pytest.mark.parametrize(
    ("words", "limit", "deadline"),
    [
        (["cluster.time=2-03:00:00", "cluster.signal_seconds=60"], "2-02:59:00", 183_600),
        (["cluster.time=00:10:00", "run.time_limit=00:09:00"], "00:09:00", 600),
    ],
)
def test_the_run_stops_by_itself_before_the_deadline(
    words: list[str], limit: str, deadline: int
) -> None:
    spec = json.loads(kubernetes([*words, *PLACE]))["spec"]
    (container,) = spec["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    assert spec["runPolicy"]["activeDeadlineSeconds"] == deadline
    assert load_config(container["command"][3:]).run.time_limit == limit


def test_a_pod_that_must_end_gets_the_time_that_a_save_needs() -> None:
    made = json.loads(kubernetes([*PLACE, "cluster.signal_seconds=900"]))
    pod = made["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 900


def test_names_become_those_of_kubernetes() -> None:
    for name in ("GLM_130B", "a" * 80, "x.y-", "-lr=1e-4"):
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", object_name(name))


def test_what_a_manifest_lacks_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        kubernetes(["cluster.namespace=A_b", "cluster.setup=module load x", "run.name=__"])
    assert len(caught.value.problems) == 5
    assert all("Try " in problem for problem in caught.value.problems)
