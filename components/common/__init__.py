"""Ground that every room stands on: names, settings, errors, the home's folders. No TensorFlow, no TFX."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
"""The folder that holds our packages and configs/: a checkout, or site-packages."""
