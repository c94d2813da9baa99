"""A Kubernetes manifest of a run: a PyTorchJob of the Kubeflow training operator (kubeflow.org/v1), as JSON.

    python -m launch kubernetes experiment=glm_130b cluster.image=IMAGE cluster.volume=CLAIM:/glm | kubectl apply -f -

The operator gives each pod torchrun's settings in the environment (PET_NNODES, PET_RDZV_ENDPOINT, ...); a pod that
fails is started again, and the run continues from its last checkpoint on the volume. Before a pod is ended, at the
deadline or because its node is needed elsewhere, the run is asked to save and has `cluster.signal_seconds` to do so.
"""

import json
import re
from typing import Any

from configs import derive
from configs.errors import ConfigError
from configs.load import load_config
from configs.scheduler import expand_nodes
from configs.schema import Config, DeviceKind
from launch.options import parse

# Names of Kubernetes objects: RFC 1123 labels.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_VOLUME = re.compile(r"([a-z0-9.-]+):(/\S*)")


def kubernetes(words: list[str]) -> str:
    """Render the manifest.

    Args:
        words: overrides; `cluster.image` and `cluster.volume` among them.

    Raises:
        ConfigError: the configuration cannot run, or cannot be expressed in a manifest.
    """
    overrides = parse(words, (), ()).overrides
    config = load_config(overrides)
    if found := _problems(config):
        raise ConfigError(found)
    return json.dumps(manifest(config, overrides), indent=2)


def manifest(config: Config, overrides: list[str]) -> dict[str, Any]:
    """The PyTorchJob: one pod per node, with torchrun in each.

    Args:
        config: a checked configuration.
        overrides: the overrides that it was composed from; the ranks get the same ones.
    """
    cluster = config.cluster
    ranks = derive.ranks_per_node(config)
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": object_name(derive.run_name(config)), "namespace": cluster.namespace},
        "spec": {
            "nprocPerNode": str(ranks),
            "elasticPolicy": {
                "rdzvBackend": "c10d",
                "minReplicas": cluster.nodes,
                "maxReplicas": cluster.nodes,
                "maxRestarts": cluster.max_restarts,
            },
            "runPolicy": {
                "cleanPodPolicy": "Running",
                "backoffLimit": cluster.max_restarts,
                "activeDeadlineSeconds": derive.time_limit_seconds(cluster.time),
            },
            "pytorchReplicaSpecs": {
                "Worker": {
                    "replicas": cluster.nodes,
                    "restartPolicy": "OnFailure",
                    "template": {"spec": _pod(config, overrides, ranks)},
                }
            },
        },
    }


def object_name(run_name: str) -> str:
    """A run's name as Kubernetes allows names: lower case, digits and -."""
    return re.sub(r"[^a-z0-9]+", "-", run_name.lower()).strip("-")[:63].rstrip("-")


def _pod(config: Config, overrides: list[str], ranks: int) -> dict[str, Any]:
    cluster = config.cluster
    volume = _VOLUME.fullmatch(cluster.volume or "")
    assert volume, "checked"
    limits: dict[str, str] = {}
    if config.device is not DeviceKind.cpu:
        limits["nvidia.com/gpu"] = str(ranks)
    if cluster.cpus_per_rank is not None:
        limits["cpu"] = str(ranks * cluster.cpus_per_rank)
    variables = dict(entry.split("=", 1) for entry in cluster.environment)
    if cluster.cpus_per_rank is not None:
        variables.setdefault("OMP_NUM_THREADS", str(cluster.cpus_per_rank))
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": cluster.signal_seconds,
        "containers": [
            {
                "name": "pytorch",  # the operator looks for the container of this name
                "image": cluster.image,
                "command": ["torchrun", "-m", "train", *overrides, *_time_limit(config)],
                "workingDir": volume[2],
                "env": [{"name": name, "value": value} for name, value in variables.items()],
                "resources": {"limits": limits},
                "volumeMounts": [
                    {"name": "runs", "mountPath": volume[2]},
                    {"name": "shared-memory", "mountPath": "/dev/shm"},
                ],
            }
        ],
        "volumes": [
            {"name": "runs", "persistentVolumeClaim": {"claimName": volume[1]}},
            # NCCL's and PyTorch's shared-memory segments outgrow a container's default of 64 MiB.
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
        ],
    }
    if cluster.exclude:
        names = [name for nodes in cluster.exclude for name in expand_nodes(nodes) or []]
        away = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": names}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [away]}]}
        pod["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}
        }
    return pod


def _time_limit(config: Config) -> list[str]:
    """The override that makes the run stop by itself before the deadline, which Kubernetes does not announce.

    The deadline counts from the start of the job; `run.time_limit` counts from the start of the run, after images were
    pulled.
    """
    if config.run.time_limit is not None:
        return []
    cluster = config.cluster
    seconds = derive.time_limit_seconds(cluster.time) - cluster.signal_seconds
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return [f"run.time_limit={hours // 24}-{hours % 24:02}:{minute:02}:{second:02}"]


def _problems(config: Config) -> list[str]:
    cluster = config.cluster
    found = list[str]()
    if cluster.image is None:
        found.append("cluster.image is not set. Try cluster.image=registry/glm-pretraining:0.1.0.")
    if not _VOLUME.fullmatch(cluster.volume or ""):
        found.append(
            f"cluster.volume ({cluster.volume}) must be CLAIM:PATH, where the run folder is kept. Try cluster.volume=glm:/glm."
        )
    if not _NAME.fullmatch(cluster.namespace):
        found.append(
            f"cluster.namespace ({cluster.namespace}) must be a name. Try cluster.namespace=default."
        )
    if not object_name(derive.run_name(config)):
        found.append(
            f"run.name ({derive.run_name(config)}) must have a letter or a digit. Try run.name=glm."
        )
    if cluster.setup or cluster.container:
        found.append(
            "cluster.setup and cluster.container do not apply to Kubernetes: prepare the image instead. "
            "Try cluster.setup=[] cluster.container=null."
        )
    return found
