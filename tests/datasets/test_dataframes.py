from __future__ import annotations

import copyreg
import os
import pickle
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpro.datasets.dataframes import _Recorded, read_pickled_table
from alpro.errors import InputError

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
def test_parts_of_data_frames_are_read(tmp_path: Path, protocol: int) -> None:
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
    assert read_pickled_table(path, lambda _: {"video_id": "video_id"}) == {"video_id": [1, 2, 3]}
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
    calls: list[tuple[Callable[..., Any], str, str]] = [
        (os.system, f"touch {made}", f"{os.name}.system"),
        (eval, f"open({str(made)!r}, 'w')", "eval"),
        (exec, f"open({str(made)!r}, 'w')", "exec"),
        (__import__, "antigravity", "__import__"),
    ]
    for function, argument, name in calls:
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
            read_pickled_table(path, lambda _: {"video_id": "video_id", "text": "text"})
        assert not made.exists()


def _with_attribute(frame: Any, value: Any) -> Any:
    frame.attrs["note"] = value
    return frame


@pytest.mark.parametrize(
    "text",
    [
        b"cbuiltins\nslice.indices\n.",  # a dotted name
        b"cfunctools\nslice\n.",  # a known name of another module
        b"cpandasql\nDataFrame\n.",
        b"cfunctools\nreduce\n.",
        b"cbuiltins\ngetattr\n.",
    ],
)
def test_names_are_known_by_their_module(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(text)
    with pytest.raises(InputError, match="the pickle asks for"):
        read_pickled_table(tmp_path / "a.pkl")


def test_names_of_the_libraries_do_nothing_when_called(tmp_path: Path) -> None:
    written = _written(tmp_path / "a.pkl", pandas.DataFrame({"a": [1]}))
    np.save(tmp_path / "a.npy", [1])
    for call in (_Call(pandas.read_pickle, str(written)), _Call(np.load, str(tmp_path / "a.npy"))):
        with pytest.raises(InputError, match="a DataFrame is expected, not (read_pickle|load); c"):
            read_pickled_table(_written(tmp_path / "b.pkl", call))
        path = _written(tmp_path / "b.pkl", pandas.DataFrame({"a": [1], "day": [call]}))
        assert read_pickled_table(path, lambda _: {"a": "a"}) == {"a": [1]}


_FRAME = b"cpandas\nDataFrame\n"


@pytest.mark.parametrize(
    "text",
    [
        _FRAME + b"}S'state'\nI1\nsb.",  # BUILD on a class
        _FRAME + b"(N}S'state'\nI1\nstb.",  # BUILD with attributes of the class
        _FRAME + b"I1\na.",  # APPEND on a class
        _FRAME + b"(I1\nI2\ne.",  # APPENDS
        _FRAME + b"S'state'\nI1\ns.",  # SETITEM
        b"cfunctools\npartial\n(N}S'state'\nI1\nstb.",
        b"\x80\x02\x82\x01.",  # an extension code that nobody has registered
    ],
)
def test_classes_stay_as_they_are(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(text)
    with pytest.raises(InputError, match=r"a\.pkl: "):
        read_pickled_table(tmp_path / "a.pkl")
    assert not any(hasattr(one, "state") for one in (pandas.DataFrame, partial))
    assert not hasattr(_Recorded, "state")


def test_extension_codes_are_names(tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 240)
    try:
        (tmp_path / "a.pkl").write_bytes(b"\x80\x02\x82\xf0(S'exit 1'\ntR.")
        with pytest.raises(InputError, match=r"the pickle asks for os\.system"):
            read_pickled_table(tmp_path / "a.pkl")
    finally:
        copyreg.remove_extension("os", "system", 240)


def test_blocks_that_are_no_table_are_refused(tmp_path: Path) -> None:
    whole = pickle.dumps(pandas.DataFrame({"a": [1, 2], "b": [3, 4]}), protocol=2)
    places = b"K\x00K\x02K\x01"  # slice(0, 2, 1)
    assert whole.count(places) == 1
    for other in (b"K\x01K\x03K\x01", b"K\x00K\x01K\x01", b"K\x00K\xffK\x01"):
        (tmp_path / "a.pkl").write_bytes(whole.replace(places, other))
        with pytest.raises(InputError, match=r"a\.pkl: "):
            read_pickled_table(tmp_path / "a.pkl")


def test_messages_stay_short(tmp_path: Path) -> None:
    long = "x" * 100_000
    twice = pandas.DataFrame([[1, 2]], columns=[long, long])
    for content in (
        f"cos\n{long}\n.".encode(),
        f"P{long}\n.".encode(),
        pickle.dumps(twice, protocol=4),
    ):
        (tmp_path / "a.pkl").write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_pickled_table(tmp_path / "a.pkl")
        assert len(str(caught.value)) < 800


@pytest.mark.parametrize("value", [[1, 2], {"video_id": [1]}, "text", pandas.Index([1])])
def test_a_pickle_of_another_object_is_refused(tmp_path: Path, value: Any) -> None:
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
