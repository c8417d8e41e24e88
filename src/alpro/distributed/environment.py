"""Variables of launchers, checked before anything relies on them."""

import os
import socket

from alpro.errors import InputError
from alpro.launchers import LAUNCHERS, number_in, value_of

_NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "HOROVOD_SIZE", "HOROVOD_RANK")
_PLACES = (  # number of processes, and a number below it
    ("WORLD_SIZE", "RANK"),
    ("LOCAL_WORLD_SIZE", "LOCAL_RANK"),
    ("HOROVOD_SIZE", "HOROVOD_RANK"),
)
_MAX_PORT = 65535
_MAX_SHOWN = 40  # characters of a value


def check_launcher_variables() -> None:
    """Check the variables of torchrun and horovodrun; empty ones count as not set.

    Raises:
        InputError: a value is no number, or does not fit another one.
    """
    for name in _NUMBERS:
        if value_of(name) is not None and number_in(name) is None:
            problem = f"{name} is {os.environ[name][:_MAX_SHOWN]!r} in the environment"
            raise InputError(f"{problem}, not a whole number. {_REMEDY}")
    for size_name, rank_name in _PLACES:
        size, rank = number_in(size_name), number_in(rank_name)
        if size == 0 or (size is not None and rank is not None and rank >= size):
            place = "" if rank is None else f" and {rank_name} is {rank}"
            raise InputError(
                f"{size_name} is {size}{place} in the environment; ranks count from 0 to "
                f"{size_name} - 1. {_REMEDY}"
            )
    for name in ("RANK", "LOCAL_RANK"):
        is_alone = value_of("WORLD_SIZE") is None and value_of("HOROVOD_SIZE") is None
        if is_alone and value_of(name) is not None:
            problem = f"{name} is {os.environ[name]} in the environment, but WORLD_SIZE is not set"
            raise InputError(f"{problem}. {_REMEDY}")


def refuse_to_be_one_of_several() -> None:
    """Refuse a run of one process that a launcher has started several of.

    They do not know of each other, and would overwrite each other's output.

    Raises:
        InputError: a launcher has.
    """
    for launcher in LAUNCHERS:
        if launcher.num_processes > 1:
            raise InputError(
                "engine: the environment says that this is one of several processes of "
                f"{launcher.name} ({launcher.size} is {os.environ[launcher.size]}), which a run of "
                "one process cannot be. Use horovodrun -np N or torchrun --nproc_per_node N, with "
                f"engine auto; or, for runs apart from each other, `unset {launcher.size}`."
            )


def check_master() -> tuple[str, int]:
    """Return the host and the port that all processes meet at.

    Raises:
        InputError: there is no such host or port.
    """
    host, port = os.environ["MASTER_ADDR"], number_in("MASTER_PORT")
    if port is None or port > _MAX_PORT:
        problem = f"MASTER_PORT is {os.environ['MASTER_PORT']!r} in the environment, not a port"
        raise InputError(f"{problem} (0 to {_MAX_PORT}). {_REMEDY}")
    try:
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"MASTER_ADDR is {host!r} in the environment, and there is no such host: {reason}. Set "
            "it to the host of rank 0."
        ) from error
    return host, port


_REMEDY = (
    "Start several processes with torchrun --nproc_per_node N, which sets it; for one process, "
    "unset it."
)
