from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from alpro.evaluation.encoding import chunks, shard


def test_chunks_cover_everything_once_and_in_order() -> None:
    assert chunks(7, size=3) == [range(3), range(3, 6), range(6, 7)]
    assert chunks(0, size=3) == []


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_ranks_share_the_chunks_without_loss_or_repetition(size: int) -> None:
    pieces = chunks(11, size=3)
    engines: list[Any] = [SimpleNamespace(rank=rank, size=size) for rank in range(size)]
    dealt = [piece for engine in engines for piece in shard(pieces, engine=engine)]
    assert sorted(dealt, key=lambda piece: piece.start) == pieces
