from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, Literal

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from alpro.datasets import shared_rows as module
from alpro.datasets.annotations import CaptionRow
from alpro.datasets.shared_rows import SharedRows, pack_rows
from alpro.tasks.pretraining.annotations import CaptionedItem
from alpro.tasks.question_answering.batches import LabelledQuestion, QuestionGroup
from tests.datasets.stored import in_child

_TEXTS = ["a dog", "", "ein Bär", "犬が走る", "\ud800 alone", "two\nlines", "\x00", "🐕" * 70]


@dataclass(frozen=True, slots=True)
class _Nested:
    """All kinds of fields, one in another."""

    name: str
    number: int
    kind: Literal["video", "image", 3]
    groups: tuple[QuestionGroup, ...]
    names: tuple[tuple[str, ...], ...]


def _captions(count: int) -> list[CaptionRow]:
    return [CaptionRow(f"{_TEXTS[i % len(_TEXTS)]}{i}", f"v{i // 3}") for i in range(count)]


def _nested(count: int) -> list[_Nested]:
    kinds: list[Literal["video", "image", 3]] = ["video", 3, "image"]
    return [
        _Nested(
            _TEXTS[i % len(_TEXTS)],
            (-1) ** i * (2**63 - 1 - i),
            kinds[i % 3],
            tuple(
                QuestionGroup(f"v{j}", tuple(LabelledQuestion(f"{k}?", k) for k in range(j)))
                for j in range(i % 4)
            ),
            (tuple(_TEXTS[: i % 5]), (), ("x",)),
        )
        for i in range(count)
    ]


def test_rows_come_back_as_they_were() -> None:
    for rows in (_captions(20), _nested(20), _TEXTS):
        packed: SharedRows[Any] = pack_rows(iter(rows), type(rows[0]))
        assert len(packed) == len(rows)
        assert list(packed) == list(rows)
        assert [packed[i] for i in reversed(range(len(rows)))] == list(reversed(rows))
        assert type(packed[0]) is type(rows[0])


def test_shared_rows_are_read_like_a_list() -> None:
    rows = _captions(10)
    packed = pack_rows(rows, CaptionRow)
    assert packed[-1] == rows[-1]
    for key in (slice(3), slice(-4, None), slice(None, None, -3), slice(20, 30)):
        assert packed[key] == rows[key]
        assert isinstance(packed[key], SharedRows)
    assert rows[2] in packed
    assert packed.index(rows[4]) == 4
    for position in (10, -11):
        with pytest.raises(IndexError):
            _ = packed[position]


def test_shared_rows_equal_sequences_of_equal_rows() -> None:
    rows = _captions(5)
    packed = pack_rows(rows, CaptionRow)
    assert packed == rows
    assert rows == packed
    assert packed == pack_rows(rows, CaptionRow)
    assert packed != rows[:4]
    assert packed != [*rows[:4], CaptionRow("x", "y")]
    assert packed != 5
    assert repr(pack_rows(rows[:1], CaptionRow)) == f"SharedRows([{rows[0]!r}])"


def test_empty_rows_are_packed_too() -> None:
    packed = pack_rows([], CaptionedItem)
    assert not packed
    assert packed == []
    assert packed.column("video_id") == []
    assert pack_rows(_captions(3), CaptionRow).take([]) == []


def test_slices_of_rows_share_their_memory() -> None:
    rows = _captions(10)
    packed = pack_rows(rows, CaptionRow)
    some = packed.take([7, 1, 1, 4])
    assert some == [rows[7], rows[1], rows[1], rows[4]]
    assert some.take(np.array([3, 0])) == [rows[4], rows[7]]
    assert some[1:3] == [rows[1], rows[1]]
    assert some.column("video_id") == ["v2", "v0", "v0", "v1"]
    assert some.num_bytes == packed.num_bytes - 6 * 8  # positions, of 8 bytes each


def test_a_column_is_one_field_of_all_rows() -> None:
    assert pack_rows(_captions(4), CaptionRow).column("video_id") == ["v0", "v0", "v0", "v1"]
    rows = _nested(9)
    packed = pack_rows(rows, _Nested)
    for name in ("name", "number", "kind", "groups", "names"):
        assert packed.column(name) == [getattr(row, name) for row in rows]


def test_long_texts_have_wide_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _captions(31)
    small = pack_rows(rows, CaptionRow).num_bytes
    monkeypatch.setattr(module, "_MAX_SMALL", 200)
    wide = pack_rows(rows, CaptionRow)
    assert wide == rows
    assert wide.num_bytes - small == 4 * 32  # captions are longer than that together, ids not


def test_rows_of_other_types_are_refused() -> None:
    @dataclass
    class Odd:
        value: float

    for kind in (Odd, float, tuple, dict):
        with pytest.raises(TypeError, match="cannot be packed"):
            pack_rows([], kind)


def test_copies_and_pickles_of_shared_rows_are_equal() -> None:
    rows = _nested(6)
    packed = pack_rows(rows, _Nested).take([4, 2])
    assert packed[0] == rows[4]
    for copied in (pickle.loads(pickle.dumps(packed)), copy.deepcopy(packed), copy.copy(packed)):
        assert copied == packed == [rows[4], rows[2]]


class _Reading(Dataset[CaptionRow]):
    def __init__(self, rows: Sequence[CaptionRow], names: Sequence[str]) -> None:
        self.rows = rows
        self.names = names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[CaptionRow, str]:  # type: ignore[override]
        return self.rows[index], self.names[index]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same(method: str) -> None:
    rows = _captions(50)
    packed = pack_rows(rows, CaptionRow)
    some, names = packed.take(range(49, -1, -1)), pack_rows([row.caption for row in rows], str)
    before = packed[0], some[0], names[0]  # what reads them is there when they are sent
    loader = DataLoader(
        _Reading(some, names),
        batch_size=None,
        num_workers=2,
        collate_fn=tuple,
        multiprocessing_context=multiprocessing.get_context(method),
    )
    expected = [(row, other.caption) for row, other in zip(reversed(rows), rows, strict=True)]
    assert list(loader) == expected
    assert (packed[0], some[0], names[0]) == before  # where the memory has moved to
    assert packed == rows
    assert some.column("caption") == [row.caption for row in reversed(rows)]


def test_shared_rows_can_be_read_while_they_are_sent() -> None:
    """What a thread reads with has to stay: a crash would end the process."""
    rows = _captions(20_000)  # large enough that freed memory goes back to the system
    packed = pack_rows(rows, CaptionRow)

    class Sent:
        def __index__(self) -> int:
            ForkingPickler.dumps(packed)
            return 7

    def read() -> None:
        assert packed[Sent()] == rows[7]  # type: ignore[call-overload]
        assert packed[7] == rows[7]
        thread = threading.Thread(target=lambda: [packed == rows for _ in range(2)])
        thread.start()
        while thread.is_alive():
            ForkingPickler.dumps(packed)

    assert in_child(read) == 0
