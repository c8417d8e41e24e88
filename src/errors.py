"""The exception that means "the user's input is at fault", and how a script ends on it."""

import sys
from collections.abc import Callable

USER_ERROR_EXIT_CODE = 2


class InputError(ValueError):
    """A mistake in what the user gave us: a file, a key, a flag, a folder.

    The message names the file, key and value, and says what to do. Entry scripts print it without a
    traceback and exit with ``USER_ERROR_EXIT_CODE``.
    """


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function; the user's mistakes end it with one message and exit code 2."""
    try:
        main()
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(USER_ERROR_EXIT_CODE)
