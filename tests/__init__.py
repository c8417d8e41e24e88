"""Tests of the checkout they lie in, whether or not the package is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
