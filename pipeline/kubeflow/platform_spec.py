"""The Kubernetes platform spec, second document of a package: volumes, secrets, image pull policy of the tasks."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as pb

from pipeline.kubeflow.artifact_paths import RUN_ID_VARIABLE
from pipeline.kubeflow_settings import KubeflowSettings


def platform_spec(settings: KubeflowSettings, executors: Iterable[str], with_volume: Collection[str]) -> dict[str, Any]:
    """The platform spec of a pipeline.

    Args:
        executors: labels of all executors.
        with_volume: labels of the executors whose tasks read or write the volume.
    """
    configs = {label: _executor(settings, label in with_volume) for label in executors}
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": configs}}}}


def _executor(settings: KubeflowSettings, with_volume: bool) -> Any:
    config = pb.KubernetesExecutorConfig(image_pull_policy=settings.image_pull_policy)
    # Not a parameter: a parameter that changes with each run would defeat KFP's cache.
    config.field_path_as_env.add(name=RUN_ID_VARIABLE, field_path="metadata.labels['pipeline/runid']")
    if with_volume:
        mount = config.pvc_mount.add(mount_path=settings.volume_path, constant=settings.volume_claim)
        # Newer servers read this field, older ones `constant`; kfp-kubernetes writes both too.
        mount.pvc_name_parameter.runtime_value.constant.string_value = settings.volume_claim
        for variable in settings.secret_variables():
            secret = config.secret_as_env.add(secret_name=variable.secret)
            secret.key_to_env.add(secret_key=variable.key, env_var=variable.variable)
            secret.secret_name_parameter.runtime_value.constant.string_value = variable.secret
    return json_format.MessageToDict(config)
