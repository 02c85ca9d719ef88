"""The manifests that `kubectl kustomize` builds, compared with the schemas of Kubernetes and with each other."""

from __future__ import annotations

import functools
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from components.common import contract
from components.common.container_engine import IMAGE
from pipeline.kubeflow_settings import KubeflowSettings
from serving.launch import backends
from tests.conftest import ROOT

DEPLOY = ROOT / "serving" / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in (KUBERNETES / "overlays").glob("*/kustomization.yaml"))
VERSIONS = ("1.29", "1.33", "1.37")  # the range that managed clusters run, and the newest available schemas
Manifest = dict[str, Any]


def load(path: Path) -> Manifest:
    manifest: Manifest = yaml.safe_load(path.read_text())
    return manifest


@functools.cache
def built(overlay: str) -> dict[str, Manifest]:
    """The manifests of an overlay, by kind; each kind occurs once."""
    kubectl = Path(sysconfig.get_path("scripts"), "kubectl")
    command = [kubectl, "kustomize", KUBERNETES / "overlays" / overlay]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # warnings about deprecated fields
    manifests = list(yaml.safe_load_all(done.stdout))
    by_kind = {manifest["kind"]: manifest for manifest in manifests}
    assert len(by_kind) == len(manifests) == 8
    return by_kind


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> dict[str, Manifest]:
    return built(request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_match_the_schemas_of_kubernetes(manifests: dict[str, Manifest], version: str) -> None:
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_every_file_of_the_base_is_used() -> None:
    resources = load(KUBERNETES / "base" / "kustomization.yaml")["resources"]
    files = {path.name for path in (KUBERNETES / "base").iterdir()}
    assert files == {"kustomization.yaml", *(name for name in resources if "/" not in name)}


def test_names_labels_and_ports_match_across_manifests(manifests: dict[str, Manifest]) -> None:
    assert len({manifest["metadata"]["namespace"] for manifest in manifests.values()}) == 1
    deployment = manifests["Deployment"]
    pod = deployment["spec"]["template"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= pod["metadata"]["labels"].items()
    target = manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["name"] == deployment["metadata"]["name"]

    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {f"--port={ports['grpc']}", f"--rest_api_port={ports['http']}"} <= set(container["args"])
    assert all(port["targetPort"] in ports for port in manifests["Service"]["spec"]["ports"])

    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    claim = manifests["PersistentVolumeClaim"]["metadata"]["name"]
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim == KubeflowSettings().volume_claim
    assert volumes["config"]["configMap"]["name"] == manifests["ConfigMap"]["metadata"]["name"]

    pre_stop_s = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pre_stop_s < pod["spec"]["terminationGracePeriodSeconds"]


def test_every_way_of_starting_the_server_has_the_same_image_flags_and_config_files() -> None:
    compose = load(DEPLOY / "compose.yaml")["services"]["serving"]
    (container,) = built(OVERLAYS[0])["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == compose["image"] == IMAGE
    assert container["args"] == compose["command"]

    (mounted,) = (DEPLOY / v.partition(":")[0] for v in compose["volumes"] if v.endswith(":/deploy:ro"))
    files = {path.name: path.read_text() for path in mounted.glob("*.config")}
    assert mounted.resolve() == backends.DEPLOY_CONFIG
    assert files == built(OVERLAYS[0])["ConfigMap"]["data"]
    named = {arg.partition("=/deploy/")[2] for arg in compose["command"] if "=/deploy/" in arg}
    assert named == set(files)

    storage_uri = load(KUBERNETES / "kserve" / "inference-service.yaml")["spec"]["predictor"]["model"]["storageUri"]
    assert storage_uri == f"pvc://{KubeflowSettings().volume_claim}/serving_model/{contract.MODEL_NAME}"
