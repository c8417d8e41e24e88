"""Packages that the project can do without.

They may be installed and not fit the others: importing one then raises anything from AttributeError
(NumPy 2) and TypeError (protobuf) to OSError (a library of the system) and SystemExit. Such a
package counts as absent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

logger = logging.getLogger(__name__)

_MAX_SHOWN = 200  # characters of a reason


class AbsentPackageError(ImportError):
    """A package that is not installed, or cannot be imported; the message says which and why."""


def import_optional(name: str) -> ModuleType:
    """Import a package, or a module of one.

    Raises:
        AbsentPackageError: it is not installed, or is of no use.
    """
    package = name.partition(".")[0]
    with failure_as_absence(package):
        return import_module(name)
    raise AssertionError("unreachable")


@contextmanager
def failure_as_absence(package: str) -> Iterator[None]:
    """Context in which whatever an import raises is an `AbsentPackageError`.

    Args:
        package: what is imported, directly or by another module.
    """
    try:
        yield
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise AbsentPackageError(f"{package} is not installed") from error
        lines = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0][:_MAX_SHOWN]}"
        raise AbsentPackageError(f"{package} cannot be imported ({reason})") from error


@cache
def has_package(name: str) -> bool:
    """Say whether a package can be imported; one that is installed in vain is logged, once."""
    if find_spec(name) is None:
        return False
    try:
        import_optional(name)
    except AbsentPackageError as error:
        logger.warning("%s; the run does without it", error)
        return False
    return True
