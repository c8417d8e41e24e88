"""A reader of pickles that calls nothing: objects of classes become descriptions of themselves.

Files of weights hold other objects beside the tensors: configs, paths, numbers of NumPy, anything.
``torch.load`` either runs their code or refuses the whole file. This reader steps through the
pickle with the parser of ``pickletools`` and builds plain values alone, so that no content of a
file can run code, whatever class or function it names.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from io import BytesIO
from mmap import mmap
from typing import Any, cast

from alpro.quoting import shortened

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


class BrokenPickleError(ValueError):
    """Bytes that are no pickle, or one beyond the limits of this module."""


class Global(str):
    """Full name of a class or function, such as ``argparse.Namespace``."""

    __slots__ = ()

    @classmethod
    def of(cls, module: str, name: str) -> Global:
        """Join a module and a name in it; pickles have the modules' names in Python 2."""
        return cls(shortened(f"{_PYTHON_2.get(module, module)}.{name}", most=MAX_NAME))


class Foreign:
    """An object of a class that is not loaded: its class's name and what it was pickled with."""

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
    """Read a pickle from where a file stands.

    Sets become lists, the kinds of dict of the standard library become dicts, and keys that are
    neither numbers nor texts become `Foreign`.

    Args:
        file: whose reads take no more memory than it has bytes, whatever length is asked for.
        rebuild: given a function's name and its arguments, returns what stands for the call;
            None to leave it a `Foreign`. What it returns must have nothing to call.
        persistent: given the id of a persistent object, returns what stands for it.

    Raises:
        BrokenPickleError: see there.
    """
    machine = _Machine(rebuild, persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(Any, file))):
            if count == MAX_OPERATIONS:
                raise BrokenPickleError(f"a pickle of more than {MAX_OPERATIONS:,} operations")
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
        return machine.pop()
    except BrokenPickleError:
        raise
    # The parser raises ValueError, and for texts that are none UnicodeError, a kind of it.
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise BrokenPickleError(str(error)) from error


class _Machine:
    """The stack machine of a pickle; `step` carries out one operation."""

    def __init__(
        self, rebuild: Callable[[str, Any], Any], persistent: Callable[[Any], Any]
    ) -> None:
        self._rebuild = rebuild
        self._persistent = persistent
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        """Stacks below each mark."""
        self._memo: dict[int, Any] = {}
        self._num_copied = 0

    def pop(self) -> Any:
        return self._stack.pop()

    def step(self, name: str, argument: Any) -> None:
        if name in _IGNORED:
            return
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name.endswith("PUT"):
            self._memo[argument] = self._stack[-1]
        elif name.endswith("GET"):
            self._stack.append(self._memo[argument])
        else:
            operation = getattr(self, f"_{name.lower()}", None)
            if operation is None:
                raise BrokenPickleError(f"the operation {name} is not read")
            operation(*(() if argument is None else (argument,)))

    # The stack.

    def _mark(self) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._outer.pop()
        return values

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _pop_mark(self) -> None:
        self._since_mark()

    def _dup(self) -> None:
        self._stack.append(self._stack[-1])

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    # Sequences and mappings.

    def _tuple(self) -> None:
        values = self._since_mark()
        self._stack.append(tuple(values))

    def _tuple1(self) -> None:
        self._stack[-1] = (self._stack[-1],)

    def _tuple2(self) -> None:
        self._stack[-2:] = [tuple(self._stack[-2:])]

    def _tuple3(self) -> None:
        self._stack[-3:] = [tuple(self._stack[-3:])]

    def _list(self) -> None:
        values = self._since_mark()
        self._stack.append(values)

    _frozenset = _list

    def _dict(self) -> None:
        values = self._since_mark()
        self._stack.append({})
        self._set_items(values)

    def _append(self) -> None:
        self._extend([self.pop()])

    def _appends(self) -> None:
        self._extend(self._since_mark())

    _additems = _appends

    def _extend(self, values: list[Any]) -> None:
        if isinstance(target := self._stack[-1], list):
            target.extend(values)
        elif isinstance(target, Foreign):
            start = len(target.items)
            target.items.update(enumerate(values, start))
        else:
            raise BrokenPickleError("values are added to what is no list")

    def _setitem(self) -> None:
        value = self.pop()
        self._set_items([self.pop(), value])

    def _setitems(self) -> None:
        self._set_items(self._since_mark())

    def _set_items(self, values: list[Any]) -> None:
        target = self._stack[-1]
        items = target.items if isinstance(target, Foreign) else target
        if not isinstance(items, dict):
            raise BrokenPickleError("entries are added to what is no dict")
        for key, value in _pairs(values):
            items[key] = value

    # Classes and functions: named, never looked up.

    def _global(self, names: str) -> None:
        self._stack.append(Global.of(*names.split(" ", 1)))

    def _stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self._stack.append(Global.of(_text(module), _text(name)))

    def _call(self, function: Any, arguments: Any) -> None:
        if function in _GENERIC and isinstance(arguments, tuple) and arguments:
            function = arguments[0]
        name = function if isinstance(function, Global) else "an unnamed class"
        if name in _MAPPINGS or name in _SEQUENCES:
            built = self._container(name, arguments)
        else:
            built = self._rebuild(name, arguments)
        self._stack.append(Foreign(name, arguments) if built is None else built)

    def _container(self, name: str, arguments: Any) -> Any:
        """Give a container of the standard library as the dict or list that it was made of."""
        content = arguments[0] if isinstance(arguments, tuple) and arguments else ()
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

    def _reduce(self) -> None:
        arguments = self.pop()
        self._call(self.pop(), arguments)

    _newobj = _reduce

    def _newobj_ex(self) -> None:
        keywords, arguments = self.pop(), self.pop()
        self._call(self.pop(), (arguments, keywords))

    def _inst(self, names: str) -> None:
        self._call(Global.of(*names.split(" ", 1)), tuple(self._since_mark()))

    def _obj(self) -> None:
        function, *arguments = self._since_mark()
        self._call(function, tuple(arguments))

    def _build(self) -> None:
        state = self.pop()
        if isinstance(target := self._stack[-1], Foreign):
            target.state = state

    def _persid(self, name: str) -> None:
        self._stack.append(self._persistent(name))

    def _binpersid(self) -> None:
        self._stack[-1] = self._persistent(self._stack[-1])


_IGNORED = ("PROTO", "FRAME")
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_DICT": dict,
}
_VALUES = frozenset(
    code.name
    for code in pickletools.opcodes
    if code.arg is not None
    and not code.stack_before
    and code.stack_after
    and code.stack_after[0] is not pickletools.anyobject
)
"""Operations whose only work is to push the value that stands in the file."""


def _pairs(values: list[Any]) -> Iterator[tuple[Any, Any]]:
    if len(values) % 2:
        raise BrokenPickleError("a key without a value")
    for place in range(0, len(values), 2):
        key = values[place]
        plain = isinstance(key, _KEYS) and not isinstance(key, Global)
        yield (key if plain else Foreign(_text(key))), values[place + 1]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else type(value).__name__
