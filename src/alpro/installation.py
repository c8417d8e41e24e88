"""Optional packages, and resource files of the installation.

An optional package that is incompatible with others counts as absent: importing it may raise
anything from AttributeError (NumPy 2) and TypeError (protobuf) to OSError and SystemExit.

``config_release`` and ``ext`` are in the root of a checkout, and inside the package in a wheel.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from pathlib import Path
from types import ModuleType

logger = logging.getLogger(__name__)

_MAX_SHOWN = 200  # characters of a reason
FOLDERS = ("config_release", "ext")
DECODERS = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec"}  # name -> its package
_PACKAGE = Path(__file__).parent
_ROOTS = (_PACKAGE / "resources", _PACKAGE.parents[1])


class AbsentPackageError(ImportError):
    """A package that is not installed or cannot be imported; the message names the reason."""

    def __init__(self, message: str, *, is_installed: bool) -> None:
        super().__init__(message)
        self.is_installed = is_installed


def import_optional(name: str, *, package: str | None = None) -> ModuleType:
    """Import a module of an optional package.

    Args:
        name: of the module.
        package: the optional package, if the module is part of another one.

    Raises:
        AbsentPackageError: the package is not installed, or its import fails.
    """
    package = package or name.partition(".")[0]
    try:
        return import_module(name)
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # SystemExit, and panics of Rust
        # A missing module of another package is a failure of this one.
        missing = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
        if missing.partition(".")[0] == package:
            problem = f"{package} is not installed"
            raise AbsentPackageError(problem, is_installed=False) from error
        line = str(error).strip().partition("\n")[0][:_MAX_SHOWN]
        problem = f"{package} cannot be imported ({type(error).__name__}: {line})"
        raise AbsentPackageError(problem, is_installed=True) from error


def has_package(name: str) -> bool:
    """Return whether a package can be imported; warn of one that is installed but fails."""
    try:
        import_optional(name)
    except AbsentPackageError as error:
        if error.is_installed:
            logger.warning("%s; it counts as not installed", error)
        return False
    return True


def with_resources(path: str) -> str:
    """Resolve the path of a resource file; existing and other paths are returned unchanged."""
    first = path.removeprefix("./").partition("/")[0]
    if first not in FOLDERS or os.path.lexists(path):
        return path
    places = (root / path for root in _ROOTS)
    return next((str(place) for place in places if place.exists()), path)
