"""Safe unpickler that calls nothing: objects of classes become `Foreign` descriptions.

Weight files hold other objects beside tensors, such as configs and NumPy numbers; ``torch.load``
either runs their code or refuses the whole file. Here every operation of Python's unpickler that
looks up, calls or changes a class or function is replaced, so that only plain values are built.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator
from io import BytesIO
from mmap import mmap
from typing import Any, ClassVar

from alpro.errors import shortened

MAX_OPERATIONS = 2_000_000  # of a pickle; a checkpoint with its optimizer has about 20,000
MAX_NAME = 300  # characters of a name that is shown

_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_KEYS = (str, int, float, bool, bytes, type(None))  # hashed in bounded time, unlike nested tuples
_MAPPINGS = (
    *("collections.OrderedDict", "collections.defaultdict", "collections.Counter"),
    "builtins.dict",
)
_SEQUENCES = ("builtins.set", "builtins.frozenset", "builtins.list", "builtins.tuple")
_GENERIC = (  # functions that make objects of the class that is their first argument
    *("copyreg._reconstructor", "copyreg.__newobj__"),
    *("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct"),
)
_UNREAD = (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)
_OPERATIONS = pickle._Unpickler.dispatch  # noqa: SLF001
_BROKEN = (  # what the unpickler raises
    *(pickle.UnpicklingError, struct.error, EOFError, MemoryError),
    *(ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError),
)


class BrokenPickleError(ValueError):
    """Invalid pickle, or one beyond the limits of this module."""


class Global(str):
    """Full name of a class or function, such as ``argparse.Namespace``."""

    __slots__ = ()

    @classmethod
    def of(cls, module: str, name: str) -> Global:
        """Join a module, translated from Python 2, and a name in it."""
        return cls(shortened(f"{_PYTHON_2.get(module, module)}.{name}", most=MAX_NAME))


class Foreign:
    """Object of a class that is not loaded: class name, arguments, items and state."""

    __slots__ = ("arguments", "items", "name", "state")

    def __init__(self, name: str, arguments: Any = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.items: dict[Any, Any] = {}
        """Entries, if the class is a kind of dict."""
        self.state: Any = None
        """Attributes, as a rule in a dict."""

    def __str__(self) -> str:
        return f"<{self.name}>"


def load_inert(
    file: BytesIO | mmap,
    *,
    rebuild: Callable[[str, Any], Any],
    persistent: Callable[[Any], Any],
) -> Any:
    """Read a pickle from the current position of a file.

    Sets become lists, mappings of the standard library dicts, and keys that are neither numbers nor
    texts `Foreign`.

    Args:
        file: reads must allocate no more than the file's size, whatever length is requested.
        rebuild: replaces a call, given the function's name and arguments; None leaves a `Foreign`.
            The result must not be callable.
        persistent: replaces a persistent object, given its id.
    """
    try:
        return _Unpickler(file, rebuild, persistent).load()
    except BrokenPickleError:
        raise
    except _BROKEN as error:
        raise BrokenPickleError(str(error)) from error


class _Dispatch(dict[int, Any]):
    """Methods of an unpickler by opcode, with a limit on the number of look-ups."""

    def __init__(self, unpickler: type) -> None:
        names = {code: operation.__name__ for code, operation in _OPERATIONS.items()}
        super().__init__(
            (code, getattr(unpickler, name))
            for code, name in names.items()
            if bytes([code]) not in _UNREAD
        )
        self.num_left = MAX_OPERATIONS

    def __getitem__(self, code: int) -> Any:
        if self.num_left == 0:
            raise BrokenPickleError(f"a pickle of more than {MAX_OPERATIONS:,} operations")
        self.num_left -= 1
        return super().__getitem__(code)


class _Unpickler(pickle._Unpickler):  # noqa: SLF001  # the C version allocates any declared size
    """Reads one pickle; methods are named after opcodes."""

    stack: list[Any]
    append: Callable[[Any], None]
    dispatch: ClassVar[dict[int, Any]]

    def __init__(
        self, file: Any, rebuild: Callable[[str, Any], Any], persistent: Callable[[Any], Any]
    ) -> None:
        super().__init__(file, encoding="latin1")
        self._rebuild = rebuild
        self._persistent = persistent
        self._num_copied = 0
        self.dispatch = _Dispatch(_Unpickler)  # type: ignore[misc]

    def find_class(self, module: str, name: str) -> Any:
        return Global.of(module, name)

    def persistent_load(self, pid: Any) -> Any:
        return self._persistent(pid)

    def load_frame(self) -> None:
        self.read(8)  # type: ignore[attr-defined]  # the frame is read by later opcodes

    # Sets would hash their elements, and bytearrays allocate any declared size.
    load_empty_set: Any = _OPERATIONS[pickle.EMPTY_LIST[0]]
    load_frozenset = _OPERATIONS[pickle.LIST[0]]
    load_bytearray8 = _OPERATIONS[pickle.BINBYTES8[0]]

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())  # type: ignore[attr-defined]

    load_additems = load_appends

    def _extend(self, values: list[Any]) -> None:
        if isinstance(target := self.stack[-1], list):
            target.extend(values)
        elif isinstance(target, Foreign):
            target.items.update(enumerate(values, len(target.items)))
        else:
            raise BrokenPickleError("values are added to what is no list")

    def load_dict(self) -> None:
        values = self.pop_mark()  # type: ignore[attr-defined]
        self.append({})
        self._set_items(values)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())  # type: ignore[attr-defined]

    def _set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, Foreign) else target
        if not isinstance(items, dict):
            raise BrokenPickleError("entries are added to what is no dict")
        items.update(_pairs(values))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self._instantiate(self.stack.pop(), arguments)

    load_newobj = load_reduce

    def load_newobj_ex(self) -> None:
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self._instantiate(self.stack.pop(), (arguments, keywords))

    def load_build(self) -> None:
        state = self.stack.pop()
        if isinstance(target := self.stack[-1], Foreign):
            target.state = state

    def _instantiate(self, function: Any, arguments: Any) -> None:
        if function in _GENERIC and isinstance(arguments, tuple) and arguments:
            function = arguments[0]
        name = function if isinstance(function, Global) else "an unnamed class"
        if name in _MAPPINGS or name in _SEQUENCES:
            built = self._container(name, arguments)
        else:
            built = self._rebuild(name, arguments)
        self.append(Foreign(name, arguments) if built is None else built)

    def _container(self, name: str, arguments: Any) -> Any:
        # Return the list or dict that the container was built from.
        content = arguments[0] if isinstance(arguments, list | tuple) and arguments else ()
        is_sequence = isinstance(content, list | tuple)
        if name in _SEQUENCES:
            return content if is_sequence else []
        if not is_sequence:
            return content if isinstance(content, dict) else {}
        self._num_copied += len(content)  # one list can be the argument of many calls
        if self._num_copied > MAX_OPERATIONS:
            raise BrokenPickleError("a pickle that repeats itself without end")
        pairs = [pair for pair in content if isinstance(pair, list | tuple) and len(pair) == 2]
        return dict(_pairs([value for pair in pairs for value in pair]))


def _pairs(values: list[Any]) -> Iterator[tuple[Any, Any]]:
    if len(values) % 2:
        raise BrokenPickleError("a key without a value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        is_plain = isinstance(key, _KEYS) and not isinstance(key, Global)
        text = key if isinstance(key, str) else type(key).__name__
        yield (key if is_plain else Foreign(text)), value
