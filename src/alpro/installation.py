"""The installation: optional packages, and the files that come with the package.

Optional packages may be installed and not fit the others: importing one then raises anything from
AttributeError (NumPy 2) and TypeError (protobuf) to OSError (a library of the system) and
SystemExit. Such a package counts as absent.

Configs of ``config_release`` and tokenizers of ``ext`` lie in the root of a checkout, and in an
installed wheel inside the package.
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
_PACKAGE = Path(__file__).parent
_ROOTS = (_PACKAGE / "resources", _PACKAGE.parents[1])


class AbsentPackageError(ImportError):
    """A package that is not installed, or cannot be imported; the message says which and why."""

    def __init__(self, message: str, *, is_installed: bool) -> None:
        super().__init__(message)
        self.is_installed = is_installed


def import_optional(name: str, *, package: str | None = None) -> ModuleType:
    """Import a module of an optional package.

    Args:
        name: of the module.
        package: where another one imports it; by default the package that the module is of.

    Raises:
        AbsentPackageError: the package is not installed, or fails.
    """
    package = package or name.partition(".")[0]
    try:
        return import_module(name)
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # SystemExit, and panics of Rust's
        missing = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
        if missing.partition(".")[0] == package:
            problem = f"{package} is not installed"
            raise AbsentPackageError(problem, is_installed=False) from error
        line = str(error).strip().partition("\n")[0][:_MAX_SHOWN]
        reason = f"{type(error).__name__}: {line}"
        problem = f"{package} cannot be imported ({reason})"
        raise AbsentPackageError(problem, is_installed=True) from error


def has_package(name: str) -> bool:
    """Return whether a package can be imported; one that is installed in vain is logged."""
    try:
        import_optional(name)
    except AbsentPackageError as error:
        if error.is_installed:
            logger.warning("%s; it counts as not installed", error)
        return False
    return True


def with_resources(path: str) -> str:
    """Complete the path of a file that comes with the package.

    Args:
        path: as a config or flag has it; one that exists, and any that does not begin with one of
            `FOLDERS`, is returned as it is.
    """
    first = path.removeprefix("./").partition("/")[0]
    if first not in FOLDERS or os.path.lexists(path):
        return path
    places = (root / path for root in _ROOTS)
    return next((str(place) for place in places if place.exists()), path)
