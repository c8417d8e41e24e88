from __future__ import annotations

import os
import pickle
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from src.datasets.dataframes import read_pickled_table
from src.errors import InputError

pandas = pytest.importorskip("pandas")

_PROTOCOLS = [2, 3, 4, 5]
_TEXTS = ["a dog", "ein Bär", None]


def _frame() -> Any:
    frame = pandas.DataFrame({"video_id": [1, 2, 3], "text": _TEXTS, "x": [1.5, 2.0, float("nan")]})
    frame["object"] = frame["text"].astype(object)
    frame["python"] = frame["text"].astype(pandas.StringDtype("python"))
    frame["with_na"] = frame["text"].astype("string")
    frame["nullable"] = pandas.array([1, None, 3], dtype="Int64")
    return frame.assign(more=[4, 5, 6])  # of the same block as video_id


def _written(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_columns_of_all_plain_kinds(tmp_path: Path, protocol: int) -> None:
    assert read_pickled_table(_written(tmp_path / "a.pkl", _frame(), protocol)) == {
        "video_id": [1, 2, 3],
        "text": _TEXTS,
        "x": [1.5, 2.0, None],
        "object": _TEXTS,
        "python": _TEXTS,
        "with_na": _TEXTS,
        "nullable": [1, None, 3],
        "more": [4, 5, 6],
    }


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_parts_of_frames(tmp_path: Path, protocol: int) -> None:
    frame = _frame()
    for part in (frame[frame["text"].notna()], frame.iloc[1:], frame.set_index("text", drop=False)):
        columns = read_pickled_table(_written(tmp_path / "a.pkl", part, protocol))
        assert columns["more"] == part["more"].tolist()
        assert (
            columns["text"]
            == part["text"].astype(object).where(part["text"].notna(), None).tolist()
        )
    twice = pandas.concat([frame, frame])
    assert read_pickled_table(_written(tmp_path / "a.pkl", twice, protocol))["text"] == _TEXTS * 2


@pytest.mark.parametrize("protocol", _PROTOCOLS)
@pytest.mark.parametrize("kind", [object, int, float])
def test_blocks_of_several_columns_in_either_order(
    tmp_path: Path, protocol: int, kind: type
) -> None:
    for order in ("C_CONTIGUOUS", "F_CONTIGUOUS"):
        values = np.require([[1, 2, 3], [4, 5, 6]], kind, [order])
        frame = pandas.DataFrame(values, columns=["a", "b", "c"], copy=False)
        columns = read_pickled_table(_written(tmp_path / "a.pkl", frame, protocol))
        assert columns == {"a": [1, 4], "b": [2, 5], "c": [3, 6]}


def test_only_wanted_columns_are_read(tmp_path: Path) -> None:
    frame = _frame().assign(day=pandas.to_datetime(["2020-01-01"] * 3))
    path = _written(tmp_path / "a.pkl", frame)
    assert read_pickled_table(path, {"video_id", "absent"}) == {"video_id": [1, 2, 3]}
    with pytest.raises(InputError, match="'M8' cannot be read; convert the table to CSV, JSONL or"):
        read_pickled_table(path)


class _Call:
    """Pickles as a call of a function, as malicious files do."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", _PROTOCOLS)
@pytest.mark.parametrize("place", ["alone", "in a column", "in the names", "as attribute"])
def test_a_malicious_pickle_is_refused_and_does_not_run(
    tmp_path: Path, protocol: int, place: str
) -> None:
    made = tmp_path / "made"
    frame: Any = pandas.DataFrame({"video_id": [1], "text": ["a dog"]})
    for function, argument, name in [
        (os.system, f"touch {made}", f"{os.name}.system"),
        (eval, f"open({str(made)!r}, 'w')", "eval"),
        (exec, f"open({str(made)!r}, 'w')", "exec"),
        (__import__, "antigravity", "__import__"),
        (pandas.read_pickle, str(tmp_path), "pandas.*read_pickle"),
        (np.load, str(tmp_path), "numpy.*load"),
    ]:
        bad = _Call(function, argument)
        value = {
            "alone": lambda bad=bad: bad,
            "in a column": lambda bad=bad: frame.assign(more=pandas.Series([bad], dtype=object)),
            "in the names": lambda bad=bad: frame.set_axis(
                pandas.Index([1, bad], dtype=object), axis=1
            ),
            "as attribute": lambda bad=bad: _with_attribute(frame, bad),
        }[place]()
        path = _written(tmp_path / "a.pkl", value, protocol)
        with pytest.raises(InputError, match=rf"a\.pkl: the pickle asks for .*{name}.*; convert"):
            read_pickled_table(path, {"video_id", "text"})
        assert not made.exists()


def _with_attribute(frame: Any, value: Any) -> Any:
    frame.attrs["note"] = value
    return frame


@pytest.mark.parametrize(
    "text",
    [
        b"cpandas\nDataFrame.eval\n.",  # a dotted name
        b"cpandas.core.frame\npartial\n.",  # a known name of another module
        b"cfunctools\nreduce\n.",
        b"cbuiltins\ngetattr\n.",
        b"cnumpy\nload\n.",
    ],
)
def test_names_are_known_by_their_module(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(text)
    with pytest.raises(InputError, match="the pickle asks for"):
        read_pickled_table(tmp_path / "a.pkl")


def test_known_names_do_nothing_when_called(tmp_path: Path) -> None:
    """Not even partial, which would call whatever it is given."""
    text = b"cfunctools\npartial\n(cpandas\nDataFrame\ntR(I1\ntR."
    (tmp_path / "a.pkl").write_bytes(text)
    with pytest.raises(InputError, match=r"a\.pkl: not a pickled DataFrame of plain columns"):
        read_pickled_table(tmp_path / "a.pkl")


@pytest.mark.parametrize("value", [[1, 2], {"video_id": [1]}, "text", pandas.Index([1])])
def test_something_else_than_a_frame(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputError, match=r"a\.pkl: a DataFrame is expected, not "):
        read_pickled_table(_written(tmp_path / "a.pkl", value))


def test_damaged_files_are_input_errors(tmp_path: Path) -> None:
    whole = pickle.dumps(_frame(), protocol=4)
    rng = random.Random(3)
    path = tmp_path / "a.pkl"
    for trial in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.randrange(len(damaged))] if trial % 3 == 0 else damaged)
        try:
            columns = read_pickled_table(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017  # it need not be raised
        else:
            assert {len(values) for values in columns.values()} == {3}


# Pandas 1.0 to 1.3 wrote frames in other ways; their pickles are imitated here.


class _Imitated:
    """Pickles as an instance of a class that is not there, made by a call or given a state."""

    def __init__(self, *arguments: Any, state: Any = None, ndim: int = 2) -> None:
        assert ndim == 2
        self.arguments, self.state = arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.arguments, self.state


@pytest.fixture
def imitate(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], type[_Imitated]]:
    def make(module: str, name: str) -> type[_Imitated]:
        made = type(name, (_Imitated,), {"__module__": module})
        holder = ModuleType(module)
        holder.__dict__.update({**vars(sys.modules.get(module, holder)), name: made})
        monkeypatch.setitem(sys.modules, module, holder)
        return made

    return make


@pytest.mark.parametrize("protocol", _PROTOCOLS)
@pytest.mark.parametrize("manager_key", ["_mgr", "_data"])
def test_frames_of_pandas_before_1_3(
    tmp_path: Path,
    imitate: Callable[[str, str], type[_Imitated]],
    protocol: int,
    manager_key: str,
) -> None:
    frame = imitate("pandas.core.frame", "DataFrame")
    manager = imitate("pandas.core.internals.managers", "BlockManager")
    new_index = imitate("pandas.core.indexes.base", "_new_Index")
    index = imitate("pandas.core.indexes.base", "Index")
    numbers = imitate("pandas.core.indexes.numeric", "Int64Index")
    names = new_index(index, {"data": np.array(["video_id", "text"], object), "name": None})
    rows = new_index(numbers, {"data": np.array([4, 9]), "name": None})
    values = [np.array([[17, 18]]), np.array([["a dog", "a cat"]], dtype=object)]
    blocks = [
        {"values": values[0], "mgr_locs": slice(0, 1, 1)},
        {"values": values[1], "mgr_locs": np.array([1])},
    ]
    state = (
        [names, rows],
        values,
        [names, names],
        {"0.14.1": {"axes": [names, rows], "blocks": blocks}},
    )
    value = frame(state={manager_key: manager(state=state), "_typ": "dataframe"})
    assert read_pickled_table(_written(tmp_path / "a.pkl", value, protocol)) == {
        "video_id": [17, 18],
        "text": ["a dog", "a cat"],
    }


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_frames_of_pandas_1_3(
    tmp_path: Path, imitate: Callable[[str, str], type[_Imitated]], protocol: int
) -> None:
    frame = imitate("pandas.core.frame", "DataFrame")
    manager = imitate("pandas.core.internals.managers", "BlockManager")
    new_block = imitate("pandas.core.internals.blocks", "new_block")
    new_index = imitate("pandas.core.indexes.base", "_new_Index")
    index = imitate("pandas.core.indexes.base", "Index")
    range_index = imitate("pandas.core.indexes.range", "RangeIndex")

    class Block:
        """Pickles as pandas 1.3.0's do: a call of new_block with ndim given beforehand."""

        def __reduce__(self) -> tuple[Any, ...]:
            from functools import partial

            return partial(new_block, ndim=2), (np.array([["a"]], dtype=object), slice(0, 1, 1))

    names = new_index(index, {"data": np.array(["text"], object), "name": None})
    rows = new_index(range_index, {"name": None, "start": 0, "stop": 1, "step": 1})
    value = frame(state={"_mgr": manager((Block(),), [names, rows])})
    path = _written(tmp_path / "a.pkl", value, protocol)
    assert read_pickled_table(path) == {"text": ["a"]}
