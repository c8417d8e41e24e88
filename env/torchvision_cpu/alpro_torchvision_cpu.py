"""Makes `import torchvision` work beside a PyTorch that is built without CUDA.

The torchvision of the package index is a CUDA build: without CUDA's libraries its compiled part
does not load, and `import torchvision` fails because the operator `torchvision::nms` does not
exist, and with it much of transformers. Declaring the operators' signatures is enough for both to
import. The operators themselves and torchvision's JPEG codecs, which this project does not use,
stay out of order.

The installer adds this package only where the import fails; where it succeeds, the package does
nothing.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# PyTorch forgets the declarations when this object is collected.
_library: torch.library.Library | None = None


def declare_missing_operators() -> None:
    """Declare the operators of torchvision's compiled part, where that cannot be loaded."""
    global _library
    if torch.version.cuda is not None or _library is not None or not _compiled_part_fails():
        return
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for signature in OPERATORS:
        _library.define(signature)


def _compiled_part_fails() -> bool:
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return True
        return False
    return True
