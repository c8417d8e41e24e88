"""The one exception that means "the user's input is at fault"."""


class InputError(ValueError):
    """A mistake in what the user gave us: a file, a key, a flag, a folder.

    The message names the file, key and value, and says what to do. Entry scripts print it without a
    traceback and exit with ``USER_ERROR_EXIT_CODE``.
    """


USER_ERROR_EXIT_CODE = 2
