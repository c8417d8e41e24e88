"""A video-and-language training framework: ALPRO (CVPR 2022), reimplemented.

`load` gives a trained `Model`; `read_windows` the frames of long videos.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in ("Model", "Window", "WindowPlan", "load", "read_windows"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("alpro.inference.api"), name)  # imports PyTorch
