"""serving/deploy/kubernetes against the OpenAPI schemas of Kubernetes, and against each other. No cluster here."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "serving" / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = sorted(path.parent for path in (KUBERNETES / "overlays").glob("*/kustomization.yaml"))
VERSIONS = ("1.29", "1.33", "1.37")  # what managed clusters of the last years run, and the newest known here
Manifest = dict[str, Any]


def load(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def built(folder: Path) -> list[Manifest]:
    """What `kustomize build` makes of a folder, as far as ours use it: resources, namespace and JSON 6902 patches."""
    (kustomization,) = load(folder / "kustomization.yaml")
    manifests: list[Manifest] = []
    for name in kustomization["resources"]:
        resource = folder / name
        manifests += built(resource.resolve()) if resource.is_dir() else load(resource)
    for patch in kustomization.get("patches", []):
        target = patch["target"]
        matching = [m for m in manifests if m["kind"] == target["kind"] and m["metadata"]["name"] == target["name"]]
        assert len(matching) == 1, f"{folder.name}: {target} matches {len(matching)} resources"
        for operation in yaml.safe_load(patch["patch"]):
            apply(matching[0], **operation)
    for manifest in manifests:
        if "namespace" in kustomization:
            manifest["metadata"]["namespace"] = kustomization["namespace"]
    unknown = set(kustomization) - {"apiVersion", "kind", "resources", "patches", "namespace", "labels"}
    assert not unknown, "this test does not know them"
    return manifests


def apply(manifest: Any, op: str, path: str, value: Any) -> None:
    """One operation of RFC 6902; replacing what is not there is an error, as it is there."""
    *parents, last = path.strip("/").split("/")
    for part in parents:
        manifest = manifest[int(part)] if isinstance(manifest, list) else manifest[part]
    assert op == "add" or (op == "replace" and last in manifest), path
    manifest[last] = copy.deepcopy(value)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_each_overlay_holds_the_schemas(overlay: Path, version: str) -> None:
    manifests = built(overlay)
    assert len(manifests) == 8
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_validator_finds_mistakes() -> None:
    (deployment,) = (m for m in built(OVERLAYS[0]) if m["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


def test_every_file_is_used() -> None:
    (base,) = load(KUBERNETES / "base" / "kustomization.yaml")
    assert {p.name for p in (KUBERNETES / "base").iterdir()} == {*base["resources"], "kustomization.yaml"}


def test_the_parts_fit_each_other() -> None:
    by_kind = {manifest["kind"]: manifest for manifest in built(KUBERNETES / "base")}
    pod = by_kind["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert by_kind["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert by_kind["Service"]["spec"]["selector"].items() <= labels.items()
    assert by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert (
        by_kind["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
        == by_kind["Deployment"]["metadata"]["name"]
    )
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {f"--port={ports['grpc']}", f"--rest_api_port={ports['http']}"} <= set(container["args"])
    assert all(port["targetPort"] in ports for port in by_kind["Service"]["spec"]["ports"])
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert (
        volumes["models"]["persistentVolumeClaim"]["claimName"] == by_kind["PersistentVolumeClaim"]["metadata"]["name"]
    )


def test_they_fit_the_pipeline_and_the_compose_file() -> None:
    from components.common import contract
    from pipeline.kubeflow_settings import KubeflowSettings

    by_kind = {manifest["kind"]: manifest for manifest in built(KUBERNETES / "base")}
    assert by_kind["PersistentVolumeClaim"]["metadata"]["name"] == KubeflowSettings().volume_claim
    assert by_kind["ConfigMap"]["data"] == {p.name: p.read_text() for p in DEPLOY.glob("*.config")}
    (compose,) = load(DEPLOY / "compose.yaml")
    (container,) = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == compose["services"]["serving"]["image"]
    assert container["args"] == compose["services"]["serving"]["command"]
    (kserve,) = load(KUBERNETES / "kserve" / "inference-service.yaml")
    claim = KubeflowSettings().volume_claim
    assert kserve["spec"]["predictor"]["model"]["storageUri"] == f"pvc://{claim}/serving_model/{contract.MODEL_NAME}"


def test_serving_pods_are_confined() -> None:
    (deployment,) = (m for m in built(KUBERNETES / "base") if m["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert next(m for m in container["volumeMounts"] if m["name"] == "models")["readOnly"] is True
    grace = pod["terminationGracePeriodSeconds"]
    assert int(container["lifecycle"]["preStop"]["exec"]["command"][-1]) < grace
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]


def test_the_image_holds_what_the_dockerfile_copies_and_no_more() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    }
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users[-1].split(":")[0].isdecimal() and users[-1] != "0"


def test_the_image_keeps_what_the_product_asks_for() -> None:
    from tools.slim import names

    removed = names((ROOT / "pyproject.toml").read_text())
    assert {"mypy", "pytest", "ruff"} <= set(removed)
    assert not {"kfp", "pyyaml", "tfx", "uvicorn"} & set(removed)
