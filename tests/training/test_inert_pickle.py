"""Pickles are described, and nothing in them is ever called."""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import os
import pickle
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpro.training import inert_pickle
from alpro.training.inert_pickle import BrokenPickleError, Foreign, Global, load_inert


def read(pickled: bytes) -> Any:
    return load_inert(BytesIO(pickled), rebuild=lambda *_: None, persistent=lambda _: None)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_those_that_were_saved(protocol: int) -> None:
    shared = [1, 2]
    value = {
        "numbers": [0, 1, -1, 255, 65_536, 1 << 40, 1 << 200, 1.5, float("inf"), True, False, None],
        "texts": ("a", "ä", "\n", "漢字" * 100, ""),
        "nested": {"a": [{}, [], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], 3: {None: 1.5}},
        "shared": [shared, shared],
        "many": list(range(3000)),
    }
    copy = read(pickle.dumps(value, protocol))
    assert copy == value
    assert copy["shared"][0] is copy["shared"][1]


@pytest.mark.parametrize("protocol", range(6))
def test_containers_of_the_standard_library_are_read(protocol: int) -> None:
    ordered = collections.OrderedDict(b=1, a=2)
    grouped = collections.defaultdict(list, {"a": [1]})
    counter = collections.Counter("aab")
    value = [ordered, grouped, counter, {1, 2}, frozenset([3])]
    read_back = read(pickle.dumps(value, protocol))
    assert read_back[:3] == [dict(ordered), dict(grouped), dict(counter)]
    assert list(read_back[0]) == ["b", "a"]
    assert [sorted(part) for part in read_back[3:]] == [[1, 2], [3]]


class Config(dict[str, int]):
    """A class of another project: a dict with attributes, as EasyDict is."""


@pytest.mark.parametrize("protocol", range(6))
def test_objects_of_other_classes_are_named(protocol: int) -> None:
    config = Config(lr=1)
    config.name = "x"  # type: ignore[attr-defined]
    values = {
        "argparse.Namespace": argparse.Namespace(lr=1),
        "numpy.ndarray": np.arange(3),
        "datetime.datetime": datetime.datetime(2020, 1, 1),
        f"pathlib.{type(Path()).__name__}": Path("/data"),
        f"{Config.__module__}.Config": config,
    }
    for name, value in values.items():
        found = read(pickle.dumps([value, "after"], protocol))
        assert isinstance(found[0], Foreign)
        assert found[0].name == name or found[0].name.endswith(".numeric._frombuffer")
        assert found[1] == "after"
    found = read(pickle.dumps(config, max(2, protocol)))
    assert (found.items, found.state) == ({"lr": 1}, {"name": "x"})


class Hostile:
    """An object whose pickle asks for a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_loading_calls_no_pickled_object(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "called"
    calls = [
        Hostile(os.system, f"touch {mark}"),
        Hostile(eval, f"open({str(mark)!r}, 'w')"),
        Hostile(exec, f"open({str(mark)!r}, 'w')"),
        Hostile(open, str(mark), "w"),
        Hostile(getattr, Hostile(__import__, "os"), "system"),
        Hostile(pickle.loads, pickle.dumps(Hostile(os.mkdir, str(mark)))),
    ]
    found = read(pickle.dumps({"deep": [calls]}, protocol))
    assert all(isinstance(one, Foreign) for one in found["deep"][0])
    assert not mark.exists()


TOUCH = b"touch called"


@pytest.mark.parametrize(
    "pickled",
    [
        b"cos\nsystem\n(S'" + TOUCH + b"'\ntR.",
        b"(S'" + TOUCH + b"'\nios\nsystem\n.",
        b"(cos\nsystem\nS'" + TOUCH + b"'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0c" + TOUCH + b"\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0c" + TOUCH + b"\x85}\x92.",
        b"cos\nsystem\n}X\x08\x00\x00\x00__code__K\x01sb.",  # BUILD of a function
        b"ccollections\nOrderedDict\nN}X\x01\x00\x00\x00aK\x01s\x86b.",  # BUILD of a class
        b"cos\nsystem\n(X\x01\x00\x00\x00aK\x01u.",
        b"K\x01)R.",
    ],
)
def test_no_operation_calls_or_changes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(BrokenPickleError):
        read(pickled)
    assert list(tmp_path.iterdir()) == []
    assert not hasattr(collections.OrderedDict, "a")


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"}",
        b"0.",
        b"}(K\x01u.",  # a key without a value
        b"h\x05.",  # from an empty memo
        b"\x82\x01.",  # a registered extension
        b"\x97.",  # a buffer outside
        b"X\x02\x00\x00\x00\xff\xfe.",
        b"I" + b"9" * 100_000 + b"\n.",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b"x.",
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
        b"\x8b" + struct.pack("<i", -1) + b"x.",
        b"t.",
        b"K\x01K\x02a.",
        bytes(range(256)),
    ],
)
def test_bytes_that_are_not_a_pickle_are_refused(pickled: bytes) -> None:
    with pytest.raises(BrokenPickleError):
        read(pickled)


def test_a_giant_place_in_the_memo_takes_no_memory() -> None:
    assert read(b"\x80\x02}r\xff\xff\xff\xff.") == {}


@pytest.mark.parametrize(
    "pickled",
    [
        b"]" * 100_000 + b"a" * 99_999 + b".",
        b")" + b"\x85" * 200_000 + b".",
        b"})" + b"\x85" * 200_000 + b"K\x01s.",  # a key whose hash would overflow the stack
        b"\x8f()" + b"\x85" * 200_000 + b"\x90.",
    ],
)
def test_deep_nesting_is_read(pickled: bytes) -> None:
    assert isinstance(read(pickled), list | tuple | dict)


def test_a_cycle_is_read() -> None:
    found = read(b"}q\x00X\x01\x00\x00\x00ah\x00s.")
    assert found["a"] is found


def test_the_number_of_operations_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert_pickle, "MAX_OPERATIONS", 1000)
    with pytest.raises(BrokenPickleError, match="more than 1,000 operations"):
        read(pickle.dumps(list(range(1001))))
    pairs = b"](" + b"](K\x01K\x02e" * 100 + b"eq\x000"
    again = b"ccollections\nOrderedDict\nh\x00\x85R0" * 50
    with pytest.raises(BrokenPickleError, match="repeats itself"):
        read(pairs + again + b"N.")


def test_operations_that_are_inherited_from_python_call_nothing() -> None:
    """A later Python's new operations must be looked at before they are read."""
    python = vars(pickle._Unpickler)  # noqa: SLF001
    operations = inert_pickle._Dispatch(inert_pickle._Unpickler).values()  # noqa: SLF001
    inherited = {one.__name__ for one in operations if one == python.get(one.__name__)}
    values = "none false true int binint binint1 binint2 long long1 long4 float binfloat string"
    texts = "binstring short_binstring unicode binunicode short_binunicode binunicode8"
    raw = "binbytes short_binbytes binbytes8"
    built = "empty_tuple tuple tuple1 tuple2 tuple3 empty_list list empty_dictionary"
    stack = "mark dup pop pop_mark memoize put binput long_binput get binget long_binget"
    named = "global stack_global inst obj persid binpersid"  # by methods that are replaced
    known = " ".join(("proto stop", values, texts, raw, built, stack, named)).split()
    assert inherited == {f"load_{name}" for name in known}


def test_class_names_are_printable() -> None:
    assert Global.of("copy_reg", "b") == "copyreg.b"
    assert Global.of("\x1b[31m", "\ud800") == "\\x1b[31m.\\ud800"
    assert len(Global.of("a", "b" * 100_000)) < 1000
