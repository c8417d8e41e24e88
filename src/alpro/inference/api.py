"""Names that ``import alpro`` offers."""

from alpro.datasets.decoding.windows import Window, WindowPlan, read_windows
from alpro.inference.model import Model, load

__all__ = ["Model", "Window", "WindowPlan", "load", "read_windows"]
