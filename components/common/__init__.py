"""What every other package uses: names, settings, errors, the home's folders. No TensorFlow, no TFX."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
"""The folder of our packages and of configs/: a checkout, or site-packages."""
