"""Tables that pandas 1.0 to 1.3 pickled in other ways than today's, imitated."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from alpro.datasets.dataframes import read_pickled_table
from alpro.errors import InputError

_PROTOCOLS = [2, 3, 4, 5]


def _written(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


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


def _imitated_frame(imitate: Callable[[str, str], type[_Imitated]], names: Any, places: Any) -> Any:
    """A frame as pandas before 1.3 wrote it, of one column ``text``."""
    frame = imitate("pandas.core.frame", "DataFrame")
    manager = imitate("pandas.core.internals.managers", "BlockManager")
    blocks = [{"values": np.array([["a"]], dtype=object), "mgr_locs": places}]
    state: tuple[Any, ...] = (
        [names],
        [],
        [],
        {"0.14.1": {"axes": [names, names], "blocks": blocks}},
    )
    return frame(state={"_mgr": manager(state=state)})


def test_ranges_without_bounds_are_refused(
    tmp_path: Path, imitate: Callable[[str, str], type[_Imitated]]
) -> None:
    new_index = imitate("pandas.core.indexes.base", "_new_Index")
    range_index = imitate("pandas.core.indexes.range", "RangeIndex")
    index = imitate("pandas.core.indexes.base", "Index")
    many = new_index(range_index, {"start": 0, "stop": 10**15, "step": 1})
    one = new_index(index, {"data": np.array(["text"], object)})
    for names, places, message in [
        (many, slice(0, 10**15, 1), "1000000000000000 columns, more than 10000; convert"),
        (one, slice(0, 10**15, 1), r"a block of more columns than have names \(1\); convert"),
        (one, slice(0, 10**30, 1), "OverflowError"),
        (one, slice(0, 1, 0), "ValueError"),
    ]:
        path = _written(tmp_path / "a.pkl", _imitated_frame(imitate, names, places))
        with pytest.raises(InputError, match=message):
            read_pickled_table(path, lambda _: {"text": "text"})
