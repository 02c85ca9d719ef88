"""Shared by all packages: names, settings, errors, the home's folders. Imports neither TensorFlow nor TFX."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
"""The folder that contains our packages and configs/: a checkout or site-packages."""
