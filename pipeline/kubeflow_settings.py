"""Settings for tasks on Kubeflow: image, volume, resources, secrets. Light imports, so invalid values fail at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from components.common.errors import UsageError

PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
DEFAULT: Final = "*"
_DIGEST: Final = re.compile(r"@sha256:[0-9a-f]{64}$")
_TAG: Final = re.compile(r":[\w][\w.-]{0,127}$")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_RESOURCES: Final = re.compile(r"(?P<node>\*|\w+)=(?P<cpu>\d+(\.\d+)?|\d+m),(?P<memory>\d+(Mi|Gi))")
_SECRET: Final = re.compile(r"(?P<secret>[-a-z0-9.]+)/(?P<key>[-\w.]+)=(?P<variable>[A-Za-z_]\w*)")


class Resources(NamedTuple):
    """Limits of a task's container as Kubernetes quantities: "2" or "500m" cores, "4Gi" of memory."""

    cpu: str
    memory: str


class SecretVariable(NamedTuple):
    """An environment variable whose value is a key of a Kubernetes Secret."""

    secret: str
    key: str
    variable: str


@dataclass(frozen=True)
class KubeflowSettings:
    """The image, volume, resources and secrets of the tasks; only `compile` reads them.

    Attributes:
        image: reference with a tag or a digest; it is part of KFP's cache key, so it must change with the code.
        image_pull_policy: "Always", "IfNotPresent" or "Never".
        volume_claim: PersistentVolumeClaim with the raw data and the pushed versions (ReadWriteMany, or one node).
        volume_path: its mount path in the tasks, which is the home of a run in the cluster.
        resources: "NODE=CPU,MEMORY", NODE "*" for all other nodes, e.g. ("*=1,2Gi", "Trainer=4,8Gi").
        secrets: "SECRET/KEY=VARIABLE", environment variables of the tasks that mount the volume.
    """

    image: str = "mnist-tfx:0.1.0"
    image_pull_policy: str = "IfNotPresent"
    volume_claim: str = "mnist-tfx"
    volume_path: str = "/var/lib/mnist-tfx"
    resources: tuple[str, ...] = ("*=1,2Gi", "Trainer=2,4Gi", "Evaluator=2,4Gi")
    secrets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (_DIGEST.search(self.image) or _TAG.search(self.image.rpartition("/")[2])) or " " in self.image:
            raise UsageError(
                f"kubeflow.image is '{self.image}', which has neither a tag nor a digest",
                f"Name the exact image: --set kubeflow.image={self.image.strip() or 'mnist-tfx'}:0.1.0",
            )
        if self.image_pull_policy not in PULL_POLICIES:
            raise UsageError(
                f"kubeflow.image_pull_policy is '{self.image_pull_policy}'", f"Use one of {', '.join(PULL_POLICIES)}."
            )
        if not _NAME.fullmatch(self.volume_claim):
            raise UsageError(f"kubeflow.volume_claim is '{self.volume_claim}', which is not a valid Kubernetes name")
        if not self.volume_path.startswith("/") or self.volume_path.rstrip("/") != self.volume_path:
            raise UsageError(f"kubeflow.volume_path is '{self.volume_path}'; it must be an absolute path below /")
        for text in self.resources:
            if not _RESOURCES.fullmatch(text):
                raise UsageError(f"kubeflow.resources contains '{text}'", 'Expected NODE=CPU,MEMORY: "Trainer=4,8Gi"')
        for text in self.secrets:
            if not _SECRET.fullmatch(text):
                raise UsageError(
                    f"kubeflow.secrets contains '{text}'", 'Expected SECRET/KEY=VARIABLE: "proxy/url=HTTPS_PROXY"'
                )

    def resources_of(self, node_id: str) -> Resources | None:
        """The resources of a node; None if neither it nor "*" is listed."""
        listed = {m["node"]: Resources(m["cpu"], m["memory"]) for m in map(_RESOURCES.fullmatch, self.resources) if m}
        return listed.get(node_id, listed.get(DEFAULT))

    def nodes_with_resources(self) -> set[str]:
        return {m["node"] for m in map(_RESOURCES.fullmatch, self.resources) if m} - {DEFAULT}

    def secret_variables(self) -> list[SecretVariable]:
        matches = [m for m in map(_SECRET.fullmatch, self.secrets) if m]
        return [SecretVariable(m["secret"], m["key"], m["variable"]) for m in matches]
