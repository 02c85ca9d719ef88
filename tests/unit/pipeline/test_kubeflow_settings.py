from __future__ import annotations

from pipeline.kubeflow_settings import KubeflowSettings, Resources


def test_images_with_a_tag_or_digest_are_valid() -> None:
    for image in ("a:1", "r.io:5000/a/b:1.2_x-y", "registry:5000/a/b@sha256:" + "0" * 64):
        assert KubeflowSettings(image=image).image == image


def test_nodes_that_are_not_listed_have_the_default_resources() -> None:
    settings = KubeflowSettings(resources=("*=500m,1Gi", "Trainer=2.5,8Gi"))
    assert settings.resources_of("Trainer") == Resources("2.5", "8Gi")
    assert settings.resources_of("Pusher") == Resources("500m", "1Gi")
    assert KubeflowSettings(resources=()).resources_of("Pusher") is None
