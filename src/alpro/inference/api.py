"""Names that ``import alpro`` offers."""

from alpro.inference.model import Model, load
from alpro.inference.windows import Window, WindowPlan, read_windows

__all__ = ["Model", "Window", "WindowPlan", "load", "read_windows"]
