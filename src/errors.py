"""The exceptions that mean something to the user, and how a script ends on them."""

import atexit
import gc
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from src.console import console

logger = logging.getLogger(__name__)

FILE_ONLY = "file_only"  # attribute of log records that the console leaves out
USER_ERROR_EXIT_CODE = 2
FAILURE_EXIT_CODE = 1
INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as shells tell it

GRACE_SECONDS = 5.0  # in which a launcher ends the ranks that have lost another one

# Variables in which launchers tell a process its rank, and the number of processes.
RANK_VARIABLES = (("HOROVOD_RANK", "HOROVOD_SIZE"), ("RANK", "WORLD_SIZE"))


class InputError(ValueError):
    """A mistake in what the user gave us: a file, a key, a flag, a folder.

    The message names the file, key and value, and says what to do. Entry scripts print it without a
    traceback and exit with ``USER_ERROR_EXIT_CODE``.
    """


class RunError(RuntimeError):
    """What ends a run though the program works as it should: a full disk, a loss that is NaN.

    Entry scripts print the message without a traceback and exit with ``FAILURE_EXIT_CODE``.
    """


class NotNumbersError(RunError):
    """Outputs of a model that are NaN, as of weights that are too large for the precision."""

    def __init__(self, outputs: str) -> None:
        """Take what is NaN, in words: "3 retrieval scores"."""
        super().__init__(
            f"{outputs} are NaN. The weights are those of a run that diverged, or too large for "
            "this precision: name another checkpoint, or set precision to fp32."
        )


class PeerLostError(RuntimeError):
    """An exchange with other ranks failed, as a rule because one of them has ended.

    That rank tells why, so this one keeps silent for ``GRACE_SECONDS``, in which its launcher ends
    it.
    """


class TerminatedError(Exception):
    """SIGTERM came, and the run has saved what it needs to go on. Entry scripts exit with 0."""


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function; what the user must know ends it with one message.

    Of several processes the message names the one at fault, and ``torchrun``, which ends with a
    report of its own, is told it.
    """
    # Python collects garbage once more at its end, for seconds; launchers do not wait that long.
    atexit.register(gc.freeze)
    try:
        with console():
            main()
    except TerminatedError as terminated:
        if terminated.args:
            sys.stderr.write(f"stopped{process_name()}: {terminated}\n")
        sys.exit(0)
    except InputError as error:
        _tell(f"error{process_name()}: {error}\n")
        sys.exit(USER_ERROR_EXIT_CODE)
    except RunError as error:
        _tell(f"error{process_name()}: {error}\n")
        sys.exit(FAILURE_EXIT_CODE)
    except PeerLostError:
        time.sleep(GRACE_SECONDS)
        _tell(f"{traceback.format_exc()}{process_name().strip()}\n")
        sys.exit(FAILURE_EXIT_CODE)
    except KeyboardInterrupt as interrupt:
        told = "; ".join([f"interrupted{process_name()}", *map(str, interrupt.args)])
        sys.stderr.write(f"{told}\n")
        sys.exit(INTERRUPTED_EXIT_CODE)
    except Exception as error:
        if name := process_name():
            error.add_note(name.strip())
        _log(traceback.format_exc())
        tell_torchrun(traceback.format_exc())
        raise


def _log(text: str) -> None:
    """Leave last words in the run's log file, if there is one by now."""
    if logging.getLogger().handlers:
        logger.error(text.strip(), extra={FILE_ONLY: True})


def process_name() -> str:
    """This process's place among several, as the launcher tells it: " (rank 3)"."""
    for rank, size in RANK_VARIABLES:
        if os.environ.get(size, "1") != "1":
            return f" (rank {os.environ.get(rank, 'unknown')})"
    return ""


def _tell(text: str) -> None:
    _log(text)
    with suppress(OSError):  # standard error may lead to a full disk
        sys.stderr.write(text)
        sys.stderr.flush()
    tell_torchrun(text)


def tell_torchrun(text: str) -> None:
    """Leave word for the report in which ``torchrun`` names the first rank that failed.

    Source: ``torch.distributed.elastic.multiprocessing.errors``, whose file format this is.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        with suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump({"message": {"message": text, "extraInfo": extra}}, file)
