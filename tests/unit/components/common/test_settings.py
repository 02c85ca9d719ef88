from __future__ import annotations

from typing import Any

import pytest

from components.common.errors import UsageError
from components.common.settings import DataSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": 0},
        {"classes": 257},
        {"image_width": 0},
        {"repeat": 0},
        {"max_mean_intensity": 0.001},
        {"eval_examples": -1},
        {"on_drift": "ignore"},
    ],
)
def test_impossible_data_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        DataSettings(**wrong)
