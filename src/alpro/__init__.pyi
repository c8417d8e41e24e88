from alpro.inference.api import Model as Model
from alpro.inference.api import Window as Window
from alpro.inference.api import WindowPlan as WindowPlan
from alpro.inference.api import load as load
from alpro.inference.api import read_windows as read_windows

__version__: str
