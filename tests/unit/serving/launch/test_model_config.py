from __future__ import annotations

from serving.launch import model_config
from serving.model_server import versions


def test_a_base_path_with_any_character_is_quoted() -> None:
    path = '/home/"quoted" \\ and\ttab/ü'
    (config,) = versions.parse_config(model_config.text(path, [3, 1], {"stable": 1}), "models.config")
    assert config.base_path == path
    assert list(config.model_version_policy.specific.versions) == [1, 3]
    assert dict(config.version_labels) == {"stable": 1}
